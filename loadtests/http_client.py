"""A small, fast HTTP/1.1 client for one server: connections that are kept, and nothing else.

A load generator shares its cores with what it measures, so each microsecond that it needs for a
request is one less for the server. httptools parses, as in uvicorn; requests are bytes that were
made before the clock started. docs/loadtests.md has what this saves against aiohttp.

    async with Client("http://127.0.0.1:3000", connections=256) as client:
        request = client.encoded("/predict", b'{"texts": ["Fine."]}')
        status, body = await client.exchange(request, timeout=30.0)
"""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import cast
from urllib.parse import urlsplit

import httptools

from loadtests.errors import LoadTestError

# Servers close connections that rest (uvicorn after 5 s), and a request may just then be under way.
_SECONDS_OF_REST = 2.0


def checked(url: str) -> str:
    """The URL without a slash at its end. Raises LoadTestError where it is none, or has parts that
    are not sent; reports show URLs, so a password must not come in."""
    example = "a URL such as http://127.0.0.1:3000"
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if "@" in url or "?" in url or "#" in url:
        raise LoadTestError(
            f"expected {example}, without user, password, query and fragment: they would not be "
            "sent, and everybody could read them in the report; leave them out"
        )
    if not whole:
        raise LoadTestError(f"expected {example}, got {url!r}")
    return url.rstrip("/")


class NoAnswer(Exception):
    """The connection failed, or was closed, before the whole answer was there."""


class Client:
    """At most `connections` requests are under way; whoever wants one more waits for a free one."""

    def __init__(self, url: str, *, connections: int) -> None:
        parts = urlsplit(checked(url))
        assert parts.hostname is not None
        self._prefix = parts.path.rstrip("/")
        secure = parts.scheme == "https"
        # Made once: that takes as long as many requests, and the event loop would wait for it.
        self._context = ssl.create_default_context() if secure else None
        self._host = parts.hostname
        self._port = parts.port or (443 if secure else 80)
        self._netloc = parts.netloc
        self._resting: list[_Connection] = []
        self._free = asyncio.Semaphore(connections)

    def encoded(self, path: str, body: bytes) -> bytes:
        """A POST request of JSON as it goes over the wire."""
        head = (
            f"POST {self._prefix}{path} HTTP/1.1\r\nHost: {self._netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    @property
    def full(self) -> bool:
        """All connections are in use."""
        return self._free.locked()

    async def reserve(self, *, until: float) -> bool:
        """Waits until one more request may be sent, at most until that time of the event loop;
        says whether it may. `exchange` gives the place back."""
        if not self.full:
            return await self._free.acquire()
        try:
            async with asyncio.timeout_at(until):
                return await self._free.acquire()
        except TimeoutError:
            return False

    async def exchange(self, request: bytes, *, timeout: float) -> tuple[int, bytes]:
        """Sends a request in a reserved place, and returns status and body of the answer.

        Raises NoAnswer where the connection fails, TimeoutError after `timeout` seconds.
        """
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(timeout):
                connection = self._rested() or await self._connected()
                answer = await connection.exchange(request)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise NoAnswer(error.strerror or type(error).__name__) from None
        finally:
            if connection is not None:
                if connection.reusable:
                    self._resting.append(connection)
                else:
                    connection.close()
            self._free.release()
        return answer

    def _rested(self) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        while self._resting:
            connection = self._resting.pop()  # the last one that was used
            if connection.reusable and now - connection.used < _SECONDS_OF_REST:
                return connection
            connection.close()
        return None

    async def _connected(self) -> _Connection:
        _, made = await asyncio.get_running_loop().create_connection(
            _Connection, self._host, self._port, ssl=self._context
        )
        return made

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for connection in self._resting:
            connection.close()
        self._resting.clear()


class _Connection(asyncio.Protocol):
    """One request at a time. The methods without an underscore below `exchange` are asyncio's and
    the parser's callbacks."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.reusable = False
        self.used = self._loop.time()

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        assert self._transport is not None
        self.reusable = False  # until the whole answer is there
        self._answer = self._loop.create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("the answer is not HTTP")

    def connection_lost(self, _error: Exception | None) -> None:
        self.reusable = False
        self._fail("the server closed the connection before it answered")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        answer = (self._parser.get_status_code(), b"".join(self._body))
        self._body.clear()
        self.reusable = self._parser.should_keep_alive()
        self.used = self._loop.time()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NoAnswer(reason))
