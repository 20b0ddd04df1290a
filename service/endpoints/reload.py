"""POST /models/reload: takes what the models folder holds now; `service/access.py` asks for a key
that may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.endpoints.json_body import json_response
from service.endpoints.models import facts_of

if TYPE_CHECKING:
    from service.api import Api


def routes(api: Api) -> list[Route]:
    async def reload(_: Request) -> Response:
        return json_response(facts_of(await api.reload()))

    return [Route("/models/reload", reload, methods=["POST"])]
