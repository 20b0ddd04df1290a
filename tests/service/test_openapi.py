"""The document at /docs.json: every reference leads somewhere, and its limits are the real ones."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from running_server import ROOT

from service.access import OPEN
from service.api import Api
from service.error_codes import CODES
from service.explain_schemas import ExplainRequest
from service.hugging_face import HuggingFaceRequest, TeiRequest
from service.openapi import document
from service.schemas import TEXT_PATTERN, CompareRequest, PredictRequest
from service.settings import Settings


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_to_a_schema() -> None:
    found = document(Settings())
    names = {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert set(references(found)) == names  # none is missing, and none is there for nothing


def test_every_route_is_described_and_nothing_else() -> None:
    routes = {
        (route.path, method.lower())  # type: ignore[attr-defined]
        for route in Api(Settings()).app().routes
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
        if route.include_in_schema  # type: ignore[attr-defined]
        and route.path not in ("/", "/docs.json")  # type: ignore[attr-defined]
    }
    described = {
        (path, method)
        for path, methods in document(Settings())["paths"].items()
        for method in methods
    }
    bentoml = {(path, "get") for path in ("/livez", "/healthz", "/readyz", "/metrics")}
    assert described == routes | bentoml


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_errors_are_described_with_their_shape_and_every_code() -> None:
    for path, operation in operations(document(Settings())):
        answers = operation["responses"]
        assert {"200", "408", "431", "500", "503"} <= set(answers), path
        if "requestBody" in operation and path != "/models/reload":
            assert {"400", "401", "413", "415", "422", "429", "504"} <= set(answers), path
        for status, answer in answers.items():
            if status == "200":
                continue
            content = answer["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}
            assert set(content["examples"]) == set(CODES[int(status)])
            assert ("Retry-After" in answer["headers"]) == (status in ("429", "503"))


def test_every_code_is_one_that_the_sources_give() -> None:
    """Codes are given by RequestError(status, code, ...), or by the name of the status."""
    given: set[tuple[int, str]] = set()
    literals: set[str] = set()
    for file in (ROOT / "service").rglob("*.py"):
        if file.name == "error_codes.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                literals.add(node.value)
            name = getattr(node, "func", None)
            called = getattr(name, "id", getattr(name, "attr", ""))
            if called == "PydanticCustomError" and file.name != "settings.py":
                given.add((422, ast.literal_eval(node.args[0])))  # type: ignore[attr-defined]
            if called in ("RequestError", "_refuse") and len(node.args) > 1:  # type: ignore[attr-defined]
                status, code = node.args[:2]  # type: ignore[attr-defined]
                if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                    given.add((status.value, code.value))  # type: ignore[arg-type]
    listed = {(status, code) for status, codes in CODES.items() for code in codes}
    assert given <= listed
    names = {HTTPStatus(status).name.lower() for status in CODES}
    assert {code for _, code in listed} <= literals | names


def test_examples_are_requests_that_we_would_take() -> None:
    found = document(Settings())
    models = {m.__name__: m for m in (PredictRequest, CompareRequest, ExplainRequest,
                                      HuggingFaceRequest, TeiRequest)}  # fmt: skip
    taken = set()
    for _, operation in operations(found):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in content.get("examples", {}).items():
            models[name].model_validate(example["value"])
            taken.add(name)
    assert taken == set(models)


def test_the_names_of_the_variants_are_told() -> None:
    schemas = document(Settings(), ["dense", "sparse"])["components"]["schemas"]
    for name in ("PredictRequest", "TeiRequest", "HuggingFaceRequest", "ExplainRequest"):
        string, nothing = schemas[name]["properties"]["variant"]["anyOf"]
        assert (string["enum"], nothing) == (["dense", "sparse"], {"type": "null"})


# Blanks and their neighbours, so that hypothesis meets them.
_CODES = (0x84, 0x85, 0x86, 0xA0, 0x1680, 0x180E, 0x205F, 0x2060, 0x3000, 0xFEFF)
NEAR_BLANKS = st.sampled_from([*map(chr, (*range(34), *_CODES, *range(0x1FFF, 0x2030)))])


@given(st.text(NEAR_BLANKS) | st.text())
def test_the_pattern_of_a_text_is_what_is_taken(text: str) -> None:
    assume(not any("\ud800" <= c <= "\udfff" for c in text))  # which no JSON in UTF-8 can hold
    try:
        PredictRequest.model_validate({"texts": [text]})
        taken = True
    except ValidationError:
        taken = False
    assert taken == bool(re.search(TEXT_PATTERN, text))


def test_keys_are_told_where_they_are_needed(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keyed = dict(operations(document(Settings(keys=file))))
    for path, operation in keyed.items():
        assert ("security" in operation) == (path not in OPEN), path
    assert not [o for _, o in operations(document(Settings())) if "security" in o]


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, operation in operations(document(Settings()))]
    assert len(set(names)) == len(names)


def test_the_limits_of_the_settings_are_told() -> None:
    found = document(Settings(max_texts=7, max_body_bytes=1234))
    texts = found["components"]["schemas"]["PredictRequest"]["properties"]["texts"]
    assert (texts["minItems"], texts["maxItems"]) == (1, 7)
    assert found["components"]["schemas"]["PredictRequest"]["additionalProperties"] is False
    assert "1234" in found["info"]["description"]
