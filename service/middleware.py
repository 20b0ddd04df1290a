"""ASGI middleware around the whole server, BentoML's own endpoints included.

`RequestId` gives every request a name that its caller and the log share; `SecurityHeaders` tells
browsers what an answer may not do; `ErrorShape` gives every answer of 400 and above the one error
shape and hides tracebacks; `BodyLimit` refuses a body that is too large before anything reads or
parses it. `service/front.py` says in which order they stand.
"""

from __future__ import annotations

import logging
import os
import re
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import RequestError
from service.logs import request_id, wire_path

logger = logging.getLogger("crisp.service")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # JSON is nothing to run or to frame; the page brings a policy of its own.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)

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
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="crisp"'
    return response


class RequestId:
    """X-Request-ID: the caller's, where it is short and plain, else a new one; also answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        identifier = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        header = (b"x-request-id", identifier.encode())

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        token = request_id.set(identifier)
        try:
            await self.app(scope, receive, named)
        finally:
            request_id.reset(token)


class SecurityHeaders:
    """What a browser must not do with an answer; an endpoint may say it differently."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                headers += [header for header in _SECURITY_HEADERS if header[0] not in present]
                message["headers"] = headers
            await send(message)

        await self.app(scope, receive, guarded)


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
        except HTTPException as error:
            await _answer(scope, receive, send, error.status_code, Headers(error.headers))
        except Exception:
            logger.exception("%s %s failed", scope["method"], wire_path(scope))
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
