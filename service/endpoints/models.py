"""GET /models and GET /docs.json: what the service holds, and how to ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.endpoints.json_body import json_response
from service.openapi import document
from service.schemas import ModelsResponse, OperatorFacts, VariantFacts
from service.variants import Variants

if TYPE_CHECKING:
    from service.api import Api


def routes(api: Api) -> list[Route]:
    async def models(_: Request) -> Response:
        return json_response(facts_of(api.variants))

    async def docs(_: Request) -> Response:
        return JSONResponse(document(api.settings, list(api.variants)))

    return [
        Route("/models", models, methods=["GET"]),
        Route("/docs.json", docs, methods=["GET"]),
    ]


def facts_of(variants: Variants) -> ModelsResponse:
    """What is known of each of `variants`, and of the operators that they run with."""
    library = variants.library
    operators = OperatorFacts(
        kernel="compiled" if library.available else "fallback", reason=library.reason
    )
    facts = {
        name: VariantFacts(operators=operators, manifest=engine.manifest)
        for name, engine in variants.items()
    }
    return ModelsResponse(default=variants.default_name, variants=facts)
