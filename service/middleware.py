"""ASGI middleware around the whole server, BentoML's own endpoints included.

`ErrorShape` gives every answer of 400 and above the one error shape and hides tracebacks;
`BodyLimit` refuses a body that is too large before anything reads or parses it.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import RequestError

logger = logging.getLogger("crisp.service")

_MESSAGES = {
    404: "there is no {path} here; POST texts to /predict or /compare, see /docs.json",
    405: "{path} does not take {method}, only {allow}; see /docs.json",
    500: "the service failed on this request; its log says why",
}


def error_response(error: RequestError) -> JSONResponse:
    """`error` as `{"error": {"code", "message", "field"?}}` with its status."""
    facts = {"code": error.code, "message": str(error)}
    if error.field is not None:
        facts["field"] = error.field
    response = JSONResponse({"error": facts}, error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


class ErrorShape:
    """Turns exceptions, and error answers that are not JSON, into the one error shape."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = replaced = False

        async def shaped(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                headers = Headers(raw=message["headers"])
                kind = headers.get("content-type", "")
                if message["status"] >= 400 and not kind.startswith("application/json"):
                    replaced = True
                    await _answer(scope, receive, send, message["status"], headers)
            if not replaced:
                await send(message)

        try:
            await self.app(scope, receive, shaped)
        except RequestError as error:
            await error_response(error)(scope, receive, send)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if not started:
                await _answer(scope, receive, send, 500, Headers())


async def _answer(
    scope: Scope, receive: Receive, send: Send, status: int, original: Headers
) -> None:
    known = HTTPStatus(status)
    message = _MESSAGES.get(status, known.phrase).format(
        path=scope["path"], method=scope["method"], allow=original.get("allow", "other methods")
    )
    response = error_response(RequestError(status, known.name.lower(), message))
    for name in ("allow", "retry-after"):
        if name in original:
            response.headers[name] = original[name]
    await response(scope, receive, send)


class BodyLimit:
    """Answers 413 to a body of more than `max_bytes`, whether its length is announced or not."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self.max_bytes:
            raise self._too_large(f"{length} bytes")
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise self._too_large("more")
            return message

        await self.app(scope, counted, send)

    def _too_large(self, came: str) -> RequestError:
        return RequestError(
            413,
            "body_too_large",
            f"expected a body of at most {self.max_bytes} bytes, got {came}; "
            "send fewer or shorter texts in one request",
        )
