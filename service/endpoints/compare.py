"""POST /compare: texts under every variant, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.endpoints.json_body import json_response
from service.engine import Answer
from service.schemas import CompareRequest, CompareResponse, Comparison

if TYPE_CHECKING:
    from service.api import Api


def routes(api: Api) -> list[Route]:
    async def compare(request: Request) -> Response:
        deadline = api.deadline()
        asked = await api.read(CompareRequest, request, deadline)
        variants = api.variants
        baseline = variants.baseline_name if asked.variant is None else asked.variant
        api.variant_name(baseline)
        with api.classifier.held() as held:  # the same models throughout, whatever is loaded
            answers = {
                name: await api.classify(name, asked.texts, deadline, held) for name in variants
            }
        return json_response(comparison(baseline, answers))

    return [Route("/compare", compare, methods=["POST"])]


def comparison(baseline: str, answers: dict[str, Answer]) -> CompareResponse:
    """The answers of every variant to the same texts, side by side."""
    labels = {name: [p.label for p in answer.predictions] for name, answer in answers.items()}
    by_text = zip(*(answer.predictions for answer in answers.values()), strict=True)
    return CompareResponse(
        baseline=baseline,
        comparisons=[
            Comparison(
                agree=len({prediction.label for prediction in row}) == 1,
                predictions=dict(zip(answers, row, strict=True)),
            )
            for row in by_text
        ],
        agreement={
            name: sum(map(str.__eq__, own, labels[baseline])) / len(own)
            for name, own in labels.items()
            if name != baseline
        },
        timing={name: answer.timing for name, answer in answers.items()},
    )
