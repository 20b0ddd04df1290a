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
        "input": request.model_json_schema(),
        "output": {"type": "array" if name == "hf" else "object"},
    }
