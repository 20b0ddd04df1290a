"""POST /predict: texts under one variant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.endpoints.json_body import json_response
from service.schemas import PredictRequest, PredictResponse

if TYPE_CHECKING:
    from service.api import Api


def routes(api: Api) -> list[Route]:
    async def predict(request: Request) -> Response:
        deadline = api.deadline()
        asked = await api.read(PredictRequest, request, deadline)
        name = api.variant_name(asked.variant)
        answer = await api.classify(name, asked.texts, deadline)
        return json_response(
            PredictResponse(variant=name, predictions=answer.predictions, timing=answer.timing)
        )

    return [Route("/predict", predict, methods=["POST"])]
