"""POST /predict: texts under one variant, in our own shape or in that of TEI (`inputs`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.endpoints.hugging_face import tei_response
from service.endpoints.json_body import json_body, json_response
from service.hugging_face import TeiRequest
from service.schemas import PredictRequest, PredictResponse, json_fields, validate

if TYPE_CHECKING:
    from service.api import Api


def routes(api: Api) -> list[Route]:
    async def predict(request: Request) -> Response:
        deadline = api.deadline()
        body = await json_body(request, deadline)
        api.check(body)
        fields = json_fields(body, PredictRequest.example)
        if isinstance(fields, dict) and "inputs" in fields and "texts" not in fields:
            tei = validate(TeiRequest, fields, api.settings.max_texts)
            return await tei_response(api, tei, deadline)
        asked = validate(PredictRequest, fields, api.settings.max_texts)
        name = api.variant_name(asked.variant)
        answer = await api.classify(name, asked.texts, deadline)
        return json_response(
            PredictResponse.model_construct(  # the engine made it: there is nothing to validate
                variant=name, predictions=answer.predictions, timing=answer.timing
            )
        )

    return [Route("/predict", predict, methods=["POST"])]
