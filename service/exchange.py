"""One request and its answer: the ASGI application around the endpoints.

- The client that goes away before its answer costs nothing more: the endpoint is cancelled, and
  what waits in the queue goes with it. ASGI tells of it only to whoever asks, which takes a task of
  its own for each request: here the connection tells (`service/protocol.py`).
- The answer says where the time went (`service/server_timing.py`).
- While the service stops, every answer closes its connection: a client that keeps connections open
  would else send its next request just when the server closes.

Endpoints with a plain path are called directly. Starlette's own way to them passes two dozen calls,
for things that `service/front.py` has done already; it is kept for all else.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from service import server_timing

Endpoint = Callable[[Request], Awaitable[Response]]

CONNECTION = "crisp.connection"  # the ASGI extension that is a Connection
_CLOSE = (b"connection", b"close")


class Connection(Protocol):
    """What the server tells of the client of a request."""

    on_lost: Callable[[], None] | None
    """Called when the client goes after its request has come whole."""

    @property
    def has_body(self) -> bool:
        """The body of the request has come whole."""
        ...


def connection_of(scope: Scope) -> Connection | None:
    """Where the server tells of it."""
    connection: Connection | None = scope.get("extensions", {}).get(CONNECTION)
    return connection


class Exchange:
    """Serves the routes of `app`; `is_stopping` says whether the service is about to end."""

    def __init__(self, app: Starlette, is_stopping: Callable[[], bool]) -> None:
        self.app = app
        self._is_stopping = is_stopping
        self._endpoints: dict[tuple[str, str], Endpoint] = {
            (method, route.path): route.endpoint
            for route in app.routes
            if isinstance(route, Route) and inspect.iscoroutinefunction(route.endpoint)
            if not route.param_convertors
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        endpoint = self._endpoints.get((scope["method"], scope["path"]))
        if endpoint is None:
            await self.app(scope, receive, _closing(send) if self._is_stopping() else send)
            return
        stopping = self._is_stopping()
        token, timings = server_timing.begin()
        client = _Client(scope)
        try:
            response = await endpoint(Request(scope, receive))
            if timings:
                response.raw_headers.append(server_timing.header(timings))
            if stopping:
                response.raw_headers.append(_CLOSE)
            await response(scope, receive, send)
        except asyncio.CancelledError:
            if not client.gone:
                raise
            client.task.uncancel()
        finally:
            client.forget()
            server_timing.end(token)


class _Client:
    """Cancels the task that it is made in when the client of `scope` goes."""

    def __init__(self, scope: Scope) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[Any] = task
        self.gone = False
        self._connection = connection_of(scope)
        if self._connection is not None:
            self._connection.on_lost = self._leave

    def forget(self) -> None:
        if self._connection is not None:
            self._connection.on_lost = None

    def _leave(self) -> None:
        self.gone = True
        self.task.cancel()


def _closing(send: Send) -> Send:
    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), _CLOSE]
        await send(message)

    return closing
