"""JSON in and out of an endpoint: the bytes of a request's body, and a model as a response."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from service.errors import RequestError
from service.exchange import connection_of
from service.middleware import header


async def json_body(request: Request, deadline: float) -> bytes:
    """The body of a request that says it is JSON, read by `deadline`, a time of the event loop.

    Raises RequestError: 415 for another type or a compressed body, 408 where it is late, 400
    where it breaks off.
    """
    content_type = header(request.scope, b"content-type").decode("latin-1")
    if content_type != "application/json":
        _check_type(content_type)
    encoding = header(request.scope, b"content-encoding").decode("latin-1").strip().lower()
    if encoding not in ("", "identity"):
        message = f"expected a body as it is, got Content-Encoding: {encoding[:100]!r}; send none"
        raise RequestError(415, "unsupported_encoding", message)
    connection = connection_of(request.scope)
    if connection is not None and connection.has_body:
        return await _body(request.receive)  # which waits for nothing: no clock is needed
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(deadline):
            return await _body(request.receive)
    except TimeoutError:
        message = f"the body was not complete after {deadline - began:g} seconds"
        raise RequestError(408, "incomplete_body", message) from None


def _check_type(content_type: str) -> None:
    media_type, *parameters = (part.strip() for part in content_type.lower().split(";"))
    charsets = [p[8:].replace('"', "") for p in parameters if p.startswith("charset=")]
    if media_type != "application/json" or not {"utf-8", "utf8"}.issuperset(charsets):
        raise RequestError(
            415,
            "unsupported_media_type",
            "expected Content-Type: application/json (UTF-8), got "
            f"{content_type[:100] or 'none'!r}",
        )


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":  # nobody is left to read this, but the log is quiet
            gone = "the connection was closed before the body was complete"
            raise RequestError(400, "incomplete_body", gone)
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def json_response(response: BaseModel) -> Response:
    return Response(response.model_dump_json(), media_type="application/json")
