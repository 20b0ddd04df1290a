"""The document at /docs.json: every reference leads somewhere, and its limits are the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.api import Api
from service.openapi import document
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


def test_errors_are_described_with_their_shape() -> None:
    found = document(Settings())
    for path in ("/predict", "/compare"):
        answers = found["paths"][path]["post"]["responses"]
        assert set(answers) == {"200", "400", "408", "413", "415", "422", "500", "503", "504"}
        for status, answer in answers.items():
            schema = answer["content"]["application/json"]["schema"]
            is_error = schema == {"$ref": "#/components/schemas/ErrorResponse"}
            assert is_error == (status != "200")


def test_the_limits_of_the_settings_are_told() -> None:
    found = document(Settings(max_texts=7, max_body_bytes=1234))
    texts = found["components"]["schemas"]["PredictRequest"]["properties"]["texts"]
    assert (texts["minItems"], texts["maxItems"]) == (1, 7)
    assert found["components"]["schemas"]["PredictRequest"]["additionalProperties"] is False
    assert "1234" in found["info"]["description"]
