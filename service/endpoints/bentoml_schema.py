"""GET /schema.json: what BentoML's own clients read to learn the endpoints.

    with bentoml.SyncHTTPClient("http://127.0.0.1:3000") as client:
        client.predict(texts=["A warm, funny film."])

BentoML's own document has only the endpoints that BentoML parses itself, and ours are not (see
docs/decisions/0004-own-http-layer.md), so this one takes its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.explain_schemas import ExplainRequest
from service.hugging_face import HuggingFaceRequest
from service.schemas import CompareRequest, JsonRequest, PredictRequest

if TYPE_CHECKING:
    from service.api import Api

_REQUESTS: dict[str, type[JsonRequest]] = {
    "predict": PredictRequest,
    "compare": CompareRequest,
    "explain": ExplainRequest,
    "hf": HuggingFaceRequest,
}


def routes(_: Api) -> list[Route]:
    described = {
        "name": "crisp",
        "type": "service",
        "routes": [_described(name, request) for name, request in _REQUESTS.items()],
    }

    async def schema(_: Request) -> Response:
        return JSONResponse(described)

    return [Route("/schema.json", schema, methods=["GET"], include_in_schema=False)]


def _described(name: str, request: type[JsonRequest]) -> dict[str, Any]:
    return {
        "name": name,
        "route": f"/{name}",
        "doc": request.__doc__,
        "input": _input(request),
        "output": {"type": "array" if name == "hf" else "object"},
    }


def _input(request: type[JsonRequest]) -> dict[str, Any]:
    """BentoML's client takes whatever is given for a plain array apart, a string into its letters,
    and leaves what `anyOf` describes as it is."""
    schema = request.model_json_schema()
    for name, field in schema["properties"].items():
        if field.get("type") == "array":
            schema["properties"][name] = {"anyOf": [field]}
    return schema
