"""The OpenAPI document at /docs.json, made from the same classes that parse and answer.

BentoML would describe only endpoints that it parses itself, with its own error shape (see
docs/decisions/0004-own-http-layer.md), so this document takes the place of its own. A new endpoint
is a line in `_paths`; what may go wrong is listed in `service/error_codes.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.error_codes import CODES
from service.explain_schemas import MAX_EXPLAINED, ExplainRequest, ExplainResponse
from service.hugging_face import (
    HuggingFaceRequest,
    HuggingFaceResponse,
    TeiRequest,
    TeiResponse,
)
from service.schemas import (
    CompareRequest,
    CompareResponse,
    ErrorResponse,
    JsonRequest,
    ModelsResponse,
    PredictRequest,
    PredictResponse,
)
from service.settings import Settings

_REF = "#/components/schemas/{model}"
_ANY = (408, 421, 431, 500, 503)  # what can happen to every request
_KEYED = (401, 429)  # and to every one that needs a key
_ADMIN = (403, 409)
_BODY = (400, 413, 415, 422, 504)  # and to every one with texts

_REQUESTS = (PredictRequest, CompareRequest, ExplainRequest, HuggingFaceRequest, TeiRequest)
_RESPONSES = (
    *(PredictResponse, CompareResponse, ModelsResponse, ErrorResponse, ExplainResponse),
    *(HuggingFaceResponse, TeiResponse),
)

_HEADERS = {
    "X-Request-ID": {
        "description": "The request's name in the log: the caller's own, or a new one.",
        "schema": {"type": "string"},
    },
}
_SERVER_TIMING = {
    "description": "Milliseconds in the queue, of tokenising and of inference.",
    "schema": {"type": "string"},
    "example": "queue;dur=1.20, tokenize;dur=0.09, inference;dur=2.35",
}
_RETRY_AFTER = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "A name for this request, in the log and in the answer: up to 128 letters, "
    "digits and ._:/+=@-; any other is replaced.",
    "schema": {"type": "string"},
    "example": "checkout-42",
}


def document(settings: Settings, variants: Sequence[str] = ()) -> dict[str, Any]:
    """OpenAPI 3.1 of every endpoint, with the limits of `settings` and the names of `variants`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Crisp",
            "version": "1",
            "description": "Sentiment of texts, from a sparse, quantised model and its dense "
            f"baseline. JSON only; a body may have {settings.max_body_bytes} bytes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(settings),
        "components": {
            "schemas": _schemas(settings, variants),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key from `crisp keys add`, where the service asks for keys.",
                }
            },
        },
    }


def _paths(settings: Settings) -> dict[str, Any]:
    keyed = settings.keys is not None
    predictions = _post(
        "Classify texts, in our own shape or in that of Text Embeddings Inference",
        PredictRequest,
        PredictResponse,
        other=(TeiRequest, TeiResponse),
    )
    hf = "Classify texts in the shape of Hugging Face's inference endpoints"
    paths = {
        "/predict": {"post": predictions},
        "/hf": {"post": _post(hf, HuggingFaceRequest, HuggingFaceResponse)},
        "/explain": {"post": _post("What a model looked at", ExplainRequest, ExplainResponse)},
        "/compare": {
            "post": _post("Classify texts under every variant", CompareRequest, CompareResponse)
        },
        "/models": {"get": _operation("What is known of every variant", _json(ModelsResponse))},
        "/models/reload": {
            "post": _operation(
                "Take what the models folder holds now", _json(ModelsResponse), _ADMIN
            )
        },
        "/livez": {"get": _probe("The process lives")},
        "/healthz": {"get": _probe("The process lives")},
        "/readyz": {"get": _probe("The models are loaded and warm")},
        "/metrics": {"get": _operation("Metrics in Prometheus text format", _TEXT)},
    }
    for path, methods in paths.items():
        for method, operation in methods.items():
            operation["operationId"] = "_".join([*path.strip("/").split("/"), method])
            if keyed and 401 in map(int, operation["responses"]):
                operation["security"] = [{"key": []}]
    return paths


_TEXT = {"text/plain": {"schema": {"type": "string"}}}


def _schemas(settings: Settings, variants: Sequence[str]) -> dict[str, Any]:
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "validation") for model in _REQUESTS),
        *((model, "serialization") for model in _RESPONSES),
    ]
    _, definitions = models_json_schema(models, ref_template=_REF)
    schemas: dict[str, Any] = definitions["$defs"]
    for model, most in (
        (PredictRequest, settings.max_texts),
        (CompareRequest, settings.max_texts),
        (ExplainRequest, min(MAX_EXPLAINED, settings.max_texts)),
    ):
        schemas[model.__name__]["properties"]["texts"]["maxItems"] = most
    for name in (HuggingFaceRequest.__name__, TeiRequest.__name__):
        for shape in schemas[name]["properties"]["inputs"]["oneOf"]:
            if shape.get("type") == "array" and "maxItems" not in shape:
                shape["maxItems"] = settings.max_texts
    if variants:
        for request in _REQUESTS:
            string, _ = schemas[request.__name__]["properties"]["variant"]["anyOf"]
            string["enum"] = list(variants)
    return schemas


def _post(
    summary: str,
    request: type[JsonRequest],
    response: type[BaseModel],
    *,
    other: tuple[type[JsonRequest], type[BaseModel]] | None = None,
) -> dict[str, Any]:
    """`other` is a second shape of request and response."""
    requests, responses = [request], [response]
    if other is not None:
        requests.append(other[0])
        responses.append(other[1])
    body = _json(*requests)
    body["application/json"]["examples"] = {
        one.__name__: {"value": json.loads(one.example)} for one in requests
    }
    operation = _operation(summary, _json(*responses), _BODY)
    operation["responses"]["200"]["headers"]["Server-Timing"] = _SERVER_TIMING
    return {"requestBody": {"required": True, "content": body}, **operation}


def _operation(
    summary: str, content: dict[str, Any], errors: tuple[int, ...] = ()
) -> dict[str, Any]:
    """An operation that needs a key, where keys are needed at all."""
    return _answers(summary, content, (*errors, *_KEYED, *_ANY))


def _probe(summary: str) -> dict[str, Any]:
    return _answers(summary, _TEXT, _ANY)


def _answers(summary: str, content: dict[str, Any], errors: tuple[int, ...]) -> dict[str, Any]:
    answers: dict[str, Any] = {
        "200": {"description": "OK", "headers": dict(_HEADERS), "content": content}
    }
    for status in sorted(errors):
        answers[str(status)] = _error(status)
    return {"summary": summary, "parameters": [_REQUEST_ID], "responses": answers}


def _error(status: int) -> dict[str, Any]:
    """The answer with this status: what it means, by code, and an example of each."""
    content = _json(ErrorResponse)
    content["application/json"]["examples"] = {
        code: {"summary": meaning, "value": {"error": {"code": code, "message": meaning}}}
        for code, meaning in CODES[status].items()
    }
    headers = {} if status in (408, 431) else dict(_HEADERS)  # refused before there is a request
    if status in (429, 503):
        headers["Retry-After"] = _RETRY_AFTER
    description = f"{HTTPStatus(status).phrase}: {', '.join(CODES[status])}"
    return {"description": description, "headers": headers, "content": content}


def _json(*models: type[BaseModel]) -> dict[str, Any]:
    found = [{"$ref": _REF.format(model=model.__name__)} for model in models]
    schema = found[0] if len(found) == 1 else {"oneOf": found}
    return {"application/json": {"schema": schema}}
