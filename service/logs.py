"""The log: a line for an event, for people or as JSON, and one for each request.

    2026-11-25T02:20:00.123Z INFO crisp.access method=POST path=/predict status=200 ms=3.2 ...
    {"time": "2026-11-25T02:20:00.123Z", "level": "INFO", "logger": "crisp.access", "method": ...}

Every line within a request carries its X-Request-ID. Texts are logged only where the settings ask
for it, keys never. A request is logged with its path as it came over the wire, so that no request
can forge a line.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.settings import Settings

QUIET = ("/livez", "/readyz", "/healthz", "/metrics")  # asked all day; logged when they fail
MAX_LOGGED = 4096  # bytes of a body, where texts are logged
_MAX_PATH = 200
_PLAIN = re.compile(r"[!#-<>-~]+")  # printable ASCII without blanks, quotes and equals signs

# The X-Request-ID of the request that is being answered.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# Gives the trace of that request; set where there are traces (`service/tracing.py`).
trace_id: Callable[[], str | None] | None = None

access = logging.getLogger("crisp.access")


def configure(settings: Settings) -> None:
    """Gives every log line of this process the format of `settings`, libraries included."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers = [handler]
    for name in ("bentoml", "uvicorn.error", "circus"):  # BentoML gave them handlers of their own
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    access.setLevel(logging.INFO if settings.access_log else logging.ERROR)
    logging.getLogger("crisp.service").setLevel(logging.INFO)


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says beside time, level, logger and message: `extra={"facts": {...}}`, the
    request, and the trace where there is one."""
    facts = dict(getattr(record, "facts", {}))
    identifier = request_id.get()
    if identifier is not None:
        facts.setdefault("request_id", identifier)
    trace = trace_id and trace_id()
    if trace:
        facts["trace_id"] = trace
    return facts


class JsonLines(logging.Formatter):
    """A JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            **({"message": record.getMessage()} if record.msg else {}),
            **facts_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """A line for people: time, level, logger, message, and further facts as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_time(record), record.levelname, record.name, record.getMessage()]
        words += [f"{name}={_word(value)}" for name, value in facts_of(record).items()]
        if record.exc_info:
            words[-1] += "\n" + self.formatException(record.exc_info)
        return " ".join(word for word in words if word)


def _time(record: logging.LogRecord) -> str:
    second = int(record.created)
    return f"{_to_the_second(second)}.{int(1000 * (record.created - second)):03d}Z"


@functools.lru_cache(4)  # lines come in bursts, and formatting a date is half the cost of one
def _to_the_second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _word(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def wire_path(scope: Scope) -> str:
    """The path as it came: ASCII, with percent signs, and not longer than anyone wants to read."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
    return raw.decode("ascii", "backslashreplace")[:_MAX_PATH]


class AccessLog:
    """A line for each request when it has been answered, or given up."""

    def __init__(self, app: ASGIApp, *, texts: bool = False) -> None:
        self.app = app
        self.texts = texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not access.isEnabledFor(logging.INFO):
            await self.app(scope, receive, send)
            return
        began = perf_counter()
        status: int | None = None  # none: the client had gone
        sent = 0
        body = bytearray()

        async def counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        async def kept() -> Message:
            message = await receive()
            if len(body) < MAX_LOGGED:
                body.extend(message.get("body", b"")[: MAX_LOGGED - len(body)])
            return message

        try:
            await self.app(scope, kept if self.texts else receive, counted)
        finally:
            if scope["path"] not in QUIET or status is None or status >= 400:
                client = scope.get("client")
                facts = {
                    "method": scope["method"],
                    "path": wire_path(scope),
                    "status": status,
                    "ms": round(1e3 * (perf_counter() - began), 2),
                    "bytes": sent,
                    "client": client[0] if client else None,
                }
                key = scope.get("state", {}).get("key")
                if key is not None:
                    facts["key"] = key
                if self.texts:
                    facts["body"] = body.decode("utf-8", "replace")
                # Without access.info's search for the line of code that calls it.
                record = logging.LogRecord(access.name, logging.INFO, "", 0, "", None, None)
                record.facts = facts
                access.handle(record)
