"""HTTP/1.1 of one connection, with bounds on what a client may send or withhold.

uvicorn's protocol waits for ever for headers, keeps any amount of them, and speaks WebSocket. A
client that sends a byte now and then (slow loris), or headers without end, would hold a connection
or memory for nothing, and so would one that does not read its answer. Here the headers must come
whole within `header_timeout_seconds` and `max_header_bytes`, some of an answer must be read within
`timeout_seconds`, and a process holds `max_connections` at most; what is refused gets the one error
shape where an answer is still possible. Bodies have their own bounds: `service/middleware.py` and
`timeout_seconds`. Whoever answers a request is told when its client goes: `service/exchange.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import uvicorn.config
from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
    _get_status_line,
)

from service import whole_answers
from service.exchange import CONNECTION
from service.settings import Settings

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

SPARE_FILES = 512  # beside connections: models, logs, the event loop
MOST_WAITING = 64  # requests of one connection that are sent before earlier ones are answered
LINGER_SECONDS = 5.0  # for a client that does not read its last answer


def refused(_status: int) -> None:
    """Is told the status of every answer that is given here, which nobody else sees: replace it."""


def install(settings: Settings) -> None:
    """Lets uvicorn in this process speak HTTP with the bounds of `settings`.

    BentoML makes uvicorn's configuration itself and names no protocol, so the default is replaced.
    """

    class Bounded(BoundedProtocol):
        bounds = settings

    uvicorn.config.HTTP_PROTOCOLS["auto"] = Bounded  # type: ignore[assignment]
    whole_answers.install()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds; `install` says which."""

    bounds: ClassVar[Settings]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ws_protocol_class = None  # nothing here speaks WebSocket: an upgrade is not taken
        self._timer: asyncio.TimerHandle | None = None  # runs while a client owes us headers
        self._unread: asyncio.TimerHandle | None = None  # and while it does not take an answer
        self._in_headers = False
        self._idle_bytes = 0  # that came since a request last began, went on or ended
        self._refused = False
        self._upgrade_ends: int | None = (
            None  # where, in what has come, a head with an upgrade does
        )
        self._answered: RequestResponseCycle | None = None  # the newest but those that wait
        self.on_lost: Callable[[], None] | None = None
        self._extensions = {CONNECTION: self}

    @property
    def has_body(self) -> bool:
        return self._answered is not None and not self._answered.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.bounds.max_connections:
            self._refuse(503, "too_many_connections", "all connections are in use: try again later")
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._answered is not None and self._answered is not self.cycle:
            self._answered.disconnected = True
            self._answered.message_event.set()
        if self.on_lost is not None and self.has_body:
            self.on_lost()

    def pause_writing(self) -> None:
        """What is to be sent has piled up: the client has as long as for a request to take some."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        self._stop_waiting_for_reader()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._idle_bytes += len(data)
        super().data_received(data)
        while self._upgrade_ends is not None and not self._refused:
            data = data[self._upgrade_ends :]
            self._upgrade_ends = None
            data = self._head_without_upgrade() + data
            self.parser = _new_parser(self)
            super().data_received(data)
        if self._in_headers:  # the parser itself holds a header until it is whole
            self._check_header_bytes(self._idle_bytes)
        elif self._idle_bytes > self.bounds.max_header_bytes:
            self._drop()  # neither headers nor body: trailers and the like, which nobody reads
        if self._owes_headers():
            self._start_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
        self._in_headers = True
        self._idle_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # else a trailer
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._offers_upgrade():
            return  # these headers come once more, without the offer
        self._in_headers = False
        self._stop_timer()
        headers = sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._check_header_bytes(len(self.url) + headers)
        self._idle_bytes = 0
        if self._refused:
            return
        super().on_headers_complete()
        if len(self.pipeline) > MOST_WAITING:
            self._drop()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:  # it would read on, however many wait
            self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._idle_bytes = 0
        if not self._refused and not self._offers_upgrade():
            super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid_http", f"this is no HTTP/1.1 request: {msg}")

    def _offers_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _unsupported_upgrade_warning(self) -> None:
        """Called where the parser has read a head with an upgrade and no further, not even a body.
        The request is answered as if it had asked for none: its head is read again without."""
        stopped = sys.exception()
        if isinstance(stopped, HttpParserUpgrade) and self._offers_upgrade():
            self._upgrade_ends = stopped.args[0]

    def _head_without_upgrade(self) -> bytes:
        line = b"%s %s HTTP/%s" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        headers = (b"%s: %s" % header for header in self.headers if header[0] != b"upgrade")
        return b"\r\n".join((line, *headers, b"", b""))

    def _check_header_bytes(self, came: int) -> None:
        most = self.bounds.max_header_bytes
        if came > most and not self._refused:
            message = (
                f"expected at most {most} bytes before the body, got more: send "
                "fewer or shorter headers"
            )
            self._refuse(431, "headers_too_large", message)

    def _owes_headers(self) -> bool:
        """No request is being answered, and this client has sent something that is not one yet."""
        return self._in_headers or self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            seconds = self.bounds.header_timeout_seconds
            self._timer = self.loop.call_later(seconds, self._too_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        if self._in_headers:
            seconds = self.bounds.header_timeout_seconds
            message = f"the headers were not complete after {seconds:g} seconds"
            self._refuse(408, "incomplete_headers", message)
        else:
            self._close()

    def _wait_for_reader(self) -> None:
        seconds, unread = self.bounds.timeout_seconds, self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(seconds, self._check_reader, unread)

    def _check_reader(self, unread_before: int) -> None:
        if self.transport.get_write_buffer_size() < unread_before:
            self._wait_for_reader()
        else:
            self._unread = None
            self.transport.abort()

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._refused = True
        self._stop_timer()
        refused(status)
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        self.transport.write(
            _get_status_line(status)
            + b"content-type: application/json\r\nx-content-type-options: nosniff\r\n"
            + retry
            + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            + body
        )
        self._close()

    def _drop(self) -> None:
        """Reads no more, and says nothing: it would be taken for the answer to a request before."""
        self._refused = True
        self._stop_timer()
        self._close()

    def _close(self) -> None:
        """Closes the connection, and cuts it off where the client does not take its last answer."""
        if not self.transport.is_closing():
            self.transport.close()
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)


def _new_parser(protocol: HttpToolsProtocol) -> HttpRequestParser:
    parser = HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
    return parser
