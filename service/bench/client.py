"""The fastest simple HTTP client: a closed loop of connections that each send the same few bytes.

It shares the machine with what it measures, so it does next to nothing: a request is bytes made
beforehand, and of an answer only its status and length are read. Real clients cost more than that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import cast

from service.errors import ServiceError

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"


class BenchError(ServiceError):
    """The service did not answer as it should while it was measured."""


def predict_request(text: str, variant: str) -> bytes:
    """The bytes of a POST /predict with one text."""
    body = json.dumps({"texts": [text], "variant": variant}).encode()
    head = (
        "POST /predict HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """Sends the next request whenever the last one is answered, until `until`."""

    def __init__(self, requests: Sequence[bytes], first: int, until: float) -> None:
        self._requests = requests
        self._next = first
        self._until = until
        self._buffer = b""
        self._sent = 0.0
        self.seconds: list[float] = []  # of each answer
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has no such base
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(_END_OF_HEAD)
        if not separator:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._fail(f"expected status 200, got {self._buffer[:300]!r}")
            return
        at = head.lower().index(_LENGTH) + len(_LENGTH)
        if len(body) >= int(head[at:].split(b"\r\n", 1)[0]):
            now = perf_counter()
            self.seconds.append(now - self._sent)
            self._buffer = b""
            if now < self._until:
                self._send()
            else:
                self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            if error is None and perf_counter() >= self._until:
                self.done.set_result(None)
            else:
                self._fail(f"the connection was closed: {error}")

    def _send(self) -> None:
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        self._sent = perf_counter()
        self._transport.write(request)

    def _fail(self, message: str) -> None:
        if not self.done.done():
            self.done.set_exception(BenchError(message))
        self._transport.abort()


async def closed_loop(
    host: str, port: int, requests: Sequence[bytes], connections: int, seconds: float
) -> list[float]:
    """Seconds that each request took; `connections` at once send for about `seconds`.

    Raises BenchError where an answer is not 200 or a connection breaks.
    """
    loop = asyncio.get_running_loop()
    until = perf_counter() + seconds
    opened: list[_Connection] = []
    for i in range(connections):
        first = i * len(requests) // connections
        make = partial(_Connection, requests, first, until)
        _, connection = await loop.create_connection(make, host, port)
        opened.append(connection)
    await asyncio.gather(*(connection.done for connection in opened))
    return [taken for connection in opened for taken in connection.seconds]
