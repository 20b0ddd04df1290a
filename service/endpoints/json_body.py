"""JSON in and out of an endpoint: the bytes of a request's body, and a model as a response."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.errors import RequestError


async def json_body(request: Request, deadline: float) -> bytes:
    """The body of a request that says it is JSON, read by `deadline`, a time of the event loop.

    Raises RequestError: 415 for another type, 408 where it is late, 400 where it breaks off.
    """
    content_type = request.headers.get("content-type", "none")
    media_type, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if media_type.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise RequestError(
            415,
            "unsupported_media_type",
            f"expected Content-Type: application/json (UTF-8), got {content_type[:100]!r}",
        )
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(deadline):
            return await request.body()
    except ClientDisconnect:  # nobody is left to read this, but the log should stay quiet
        message = "the connection was closed before the body was complete"
        raise RequestError(400, "incomplete_body", message) from None
    except TimeoutError:
        message = f"the body was not complete after {deadline - began:g} seconds"
        raise RequestError(408, "incomplete_body", message) from None


def json_response(response: BaseModel) -> Response:
    return Response(response.model_dump_json(), media_type="application/json")
