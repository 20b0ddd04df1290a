"""The OpenAPI document at /docs.json, made from the same classes that parse and answer.

BentoML would describe only endpoints that it parses itself, with its own error shape (see
docs/decisions/0004-own-http-layer.md), so this document takes the place of its own.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.explain_schemas import ExplainRequest, ExplainResponse
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
    ModelsResponse,
    PredictRequest,
    PredictResponse,
)
from service.settings import Settings

_REF = "#/components/schemas/{model}"
_BODY_ERRORS = (400, 408, 413, 415, 422, 500, 503, 504)


def document(settings: Settings) -> dict[str, Any]:
    """OpenAPI 3.1 of every endpoint, with the limits of `settings`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Crisp",
            "version": "1",
            "description": "Sentiment of texts, from a sparse, quantised model and its dense "
            f"baseline. JSON only; a body may have {settings.max_body_bytes} bytes.",
        },
        "paths": {
            "/predict": {
                "post": _post(
                    "Classify texts, in our own shape or in that of Text Embeddings Inference",
                    PredictRequest,
                    PredictResponse,
                    (TeiRequest, TeiResponse),
                )
            },
            "/hf": {
                "post": _post(
                    "Classify texts in the shape of Hugging Face's inference endpoints",
                    HuggingFaceRequest,
                    HuggingFaceResponse,
                )
            },
            "/explain": {"post": _post("What a model looked at", ExplainRequest, ExplainResponse)},
            "/compare": {
                "post": _post("Classify texts under every variant", CompareRequest, CompareResponse)
            },
            "/models": {
                "get": _operation("What is known of every variant", ModelsResponse, errors=(500,))
            },
            "/livez": {"get": _probe("The process lives")},
            "/healthz": {"get": _probe("The process lives")},
            "/readyz": {"get": _probe("The models are loaded and warm")},
            "/metrics": {"get": _probe("Metrics in Prometheus text format")},
        },
        "components": {"schemas": _schemas(settings)},
    }


def _schemas(settings: Settings) -> dict[str, Any]:
    requests = (PredictRequest, CompareRequest, ExplainRequest, HuggingFaceRequest, TeiRequest)
    responses = (PredictResponse, CompareResponse, ModelsResponse, ErrorResponse, ExplainResponse,
                 HuggingFaceResponse, TeiResponse)  # fmt: skip
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "validation") for model in requests),
        *((model, "serialization") for model in responses),
    ]
    _, definitions = models_json_schema(models, ref_template=_REF)
    schemas: dict[str, Any] = definitions["$defs"]
    for model in (PredictRequest, CompareRequest):
        schemas[model.__name__]["properties"]["texts"]["maxItems"] = settings.max_texts
    return schemas


def _post(
    summary: str,
    request: type[BaseModel],
    response: type[BaseModel],
    other: tuple[type[BaseModel], type[BaseModel]] | None = None,
) -> dict[str, Any]:
    """`other` is a second shape of request and response."""
    operation = _operation(summary, response, _BODY_ERRORS)
    body = {"required": True, "content": _content(request)}
    if other is not None:
        body["content"] = _either(request, other[0])
        operation["responses"]["200"]["content"] = _either(response, other[1])
    return {"requestBody": body, **operation}


def _operation(summary: str, response: type[BaseModel], errors: tuple[int, ...]) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": "OK", "content": _content(response)}}
    for status in errors:
        phrase = HTTPStatus(status).phrase
        answers[str(status)] = {"description": phrase, "content": _content(ErrorResponse)}
    return {"summary": summary, "responses": answers}


def _probe(summary: str) -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {"summary": summary, "responses": {"200": {"description": "OK", "content": text}}}


def _either(*models: type[BaseModel]) -> dict[str, Any]:
    found = [_content(model)["application/json"]["schema"] for model in models]
    return {"application/json": {"schema": {"oneOf": found}}}


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
