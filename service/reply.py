"""How every answer looks: what it tells browsers, and the one shape of an error.

    {"error": {"code": "empty_text", "message": "texts[0] is empty: ...", "field": "texts[0]"}}

Exceptions become such answers, tracebacks stay in the log, and an answer of 400 and above that is
no JSON, such as Starlette's and BentoML's, is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from service.errors import RequestError
from service.logs import wire_path

logger = logging.getLogger("crisp.service")

_SECURITY = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    # JSON is nothing to run or to frame; the page brings a policy of its own.
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}

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


class Reply:
    """The answer to one request: `send` is ASGI's, for whoever answers it; `fail` answers with what
    was raised instead. `status` is 0 before it begins; `complete` says that it has been sent."""

    __slots__ = ("_receive", "_replaced", "_scope", "_send", "complete", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._replaced = False
        self.status = 0
        self.complete = False

    async def send(self, message: Message) -> None:
        """As ASGI's `send`."""
        if self._replaced:
            return
        if message["type"] == "http.response.start" and message["status"] >= 400:
            headers = Headers(raw=message["headers"])
            if not headers.get("content-type", "").startswith("application/json"):
                self._replaced = True
                await self._answer(message["status"], headers)
                return
        await self._pass_on(message)

    async def fail(self, error: Exception) -> None:
        """Says what `error` means, and logs it where it is none that a caller should know of."""
        if isinstance(error, RequestError):
            await error_response(error)(self._scope, self._receive, self._pass_on)
        elif isinstance(error, HTTPException):
            await self._answer(error.status_code, Headers(error.headers))
        else:
            logger.error(
                "%s %s failed", self._scope["method"], wire_path(self._scope), exc_info=error
            )
            if not self.status:
                await self._answer(500, Headers())

    async def _answer(self, status: int, original: Headers) -> None:
        known = HTTPStatus(status)
        message = _MESSAGES.get(status, known.phrase).format(
            path=self._scope["path"],
            method=self._scope["method"],
            allow=original.get("allow", "other methods"),
        )
        response = error_response(RequestError(status, known.name.lower(), message))
        for name in ("allow", "retry-after"):
            if name in original:
                response.headers[name] = original[name]
        await response(self._scope, self._receive, self._pass_on)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = _secured(message.get("headers", ()))
        elif not message.get("more_body"):
            self.complete = True
        await self._send(message)


def _secured(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`headers`, and what a browser must not do with an answer where they do not say it."""
    given = list(headers)
    present = {name.lower() for name, _ in given}
    return given + [header for header in _SECURITY.items() if header[0] not in present]
