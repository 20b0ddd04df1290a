"""The Server-Timing header: where the time of a request went, for the tools of browsers and others.

    Server-Timing: queue;dur=1.20, tokenize;dur=0.09, inference;dur=2.35

Milliseconds, as in the `timing` of an answer; added up where a request asks several models.
(W3C, Server Timing.)
"""

from __future__ import annotations

from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine import Timing

_noted: ContextVar[list[Timing] | None] = ContextVar("server_timing", default=None)


def note(timing: Timing) -> None:
    """Adds `timing` to that of the request which is being answered, if one is."""
    timings = _noted.get()
    if timings is not None:
        timings.append(timing)


class ServerTiming:
    """ASGI middleware that writes the header into answers for which something was noted."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        timings: list[Timing] = []

        async def timed(message: Message) -> None:
            if timings and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), _header(timings)]
            await send(message)

        token = _noted.set(timings)
        try:
            await self.app(scope, receive, timed)
        finally:
            _noted.reset(token)


def _header(timings: list[Timing]) -> tuple[bytes, bytes]:
    queue = sum(each.queue_ms for each in timings)
    tokenize = sum(each.tokenize_ms for each in timings)
    inference = sum(each.inference_ms for each in timings)
    value = f"queue;dur={queue:.2f}, tokenize;dur={tokenize:.2f}, inference;dur={inference:.2f}"
    return b"server-timing", value.encode()
