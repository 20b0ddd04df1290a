"""The first and the last that happens to every request: its name, and the limit of its body.

`RequestId` gives every request a name that its caller and the log share; `limited` refuses a body
that is too large before anything reads or parses it. `service/front.py` says in which order.
"""

from __future__ import annotations

import os
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import RequestError
from service.logs import request_id

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestId:
    """X-Request-ID: the caller's, where it is short and plain, else a new one; also answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = header(scope, b"x-request-id")
        identifier = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex().encode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                message["headers"] = [*headers, (b"x-request-id", identifier)]
            await send(message)

        token = request_id.set(identifier.decode())
        try:
            await self.app(scope, receive, named)
        finally:
            request_id.reset(token)


def header(scope: Scope, name: bytes) -> bytes:
    """The first header called `name`, in lower case as ASGI has them; empty where there is none."""
    for given, value in scope["headers"]:
        if given == name:
            return bytes(value)
    return b""


def limited(scope: Scope, receive: Receive, max_bytes: int) -> Receive:
    """`receive` for a body of at most `max_bytes`; raises RequestError 413, at once where a length
    is announced, which no server lets a body exceed, else when too much has come."""
    length = header(scope, b"content-length")
    if length.isdigit():
        if int(length) > max_bytes:
            raise _too_large(max_bytes, f"{length.decode()} bytes")
        return receive
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise _too_large(max_bytes, "more")
        return message

    return counted


def _too_large(max_bytes: int, came: str) -> RequestError:
    return RequestError(
        413,
        "body_too_large",
        f"expected a body of at most {max_bytes} bytes, got {came}; "
        "send fewer or shorter texts in one request",
    )
