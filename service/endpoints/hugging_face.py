"""POST /hf, and the TEI shape at POST /predict: `service/hugging_face.py` says whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.endpoints.json_body import json_response
from service.hugging_face import (
    HuggingFaceParameters,
    HuggingFaceRequest,
    HuggingFaceResponse,
    TeiRequest,
    TeiResponse,
    Transform,
    label_scores,
    require_whole,
)

if TYPE_CHECKING:
    from service.api import Api


def routes(api: Api) -> list[Route]:
    async def classify(request: Request) -> Response:
        deadline = api.deadline()
        asked = await api.read(HuggingFaceRequest, request, deadline)
        name = api.variant_name(asked.variant)
        answer = await api.classify(name, asked.texts, deadline)
        parameters = asked.parameters or HuggingFaceParameters()
        scores = label_scores(
            answer.logits,
            answer.manifest.labels,
            parameters.function_to_apply or "softmax",
        )
        return json_response(HuggingFaceResponse([row[: parameters.top_k] for row in scores]))

    return [Route("/hf", classify, methods=["POST"])]


async def tei_response(api: Api, asked: TeiRequest, deadline: float) -> Response:
    """The answer to a request in TEI's shape, by `deadline`."""
    name = api.variant_name(asked.variant)
    answer = await api.classify(name, asked.texts, deadline)
    manifest = answer.manifest
    require_whole(asked, answer.predictions, manifest.max_tokens)
    transform: Transform = "none" if asked.raw_scores else "softmax"
    scores = label_scores(answer.logits, manifest.labels, transform)
    return json_response(TeiResponse(scores if asked.is_batch else scores[0]))
