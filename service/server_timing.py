"""The Server-Timing header: where the time of a request went, for the tools of browsers and others.

    Server-Timing: queue;dur=1.20, tokenize;dur=0.09, inference;dur=2.35

Milliseconds, as in the `timing` of an answer; added up where a request asks several models.
(W3C, Server Timing.)
"""

from __future__ import annotations

from contextvars import ContextVar, Token

from service.engine import Timing

_noted: ContextVar[list[Timing] | None] = ContextVar("server_timing", default=None)


def begin() -> tuple[Token[list[Timing] | None], list[Timing]]:
    """What `end` takes when the request is over, and the list to which `note` adds until then."""
    timings: list[Timing] = []
    return _noted.set(timings), timings


def end(token: Token[list[Timing] | None]) -> None:
    _noted.reset(token)


def note(timing: Timing) -> None:
    """Adds `timing` to that of the request which is being answered, if one is."""
    timings = _noted.get()
    if timings is not None:
        timings.append(timing)


def header(timings: list[Timing]) -> tuple[bytes, bytes]:
    """The header for `timings`."""
    queue = tokenize = inference = 0.0
    for each in timings:
        queue += each.queue_ms
        tokenize += each.tokenize_ms
        inference += each.inference_ms
    value = f"queue;dur={queue:.2f}, tokenize;dur={tokenize:.2f}, inference;dur={inference:.2f}"
    return b"server-timing", value.encode()
