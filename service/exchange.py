"""One request and its answer: the ASGI application around the endpoints.

- The client that goes away before its answer costs nothing more: the endpoint is cancelled, and
  what waits in the queue goes with it. ASGI tells of it only to whoever asks, so once the body has
  been read, a task asks.
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
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from service import server_timing

Endpoint = Callable[[Request], Awaitable[Response]]

_CLOSE = (b"connection", b"close")


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
        client = _Client(receive, send)
        stopping = self._is_stopping()
        token, timings = server_timing.begin()

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start" and (timings or stopping):
                headers = message["headers"] = list(message.get("headers", ()))
                if timings:
                    headers.append(server_timing.header(timings))
                if stopping:
                    headers.append(_CLOSE)
            await client.send(message)

        try:
            endpoint = self._endpoints.get((scope["method"], scope["path"]))
            if endpoint is None:
                await self.app(scope, client.receive, completed)
            else:
                response = await endpoint(Request(scope, client.receive))
                await response(scope, client.receive, completed)
        except asyncio.CancelledError:
            if not client.gone:
                raise
            client.task.uncancel()
        finally:
            client.stop_watching()
            server_timing.end(token)


class _Client:
    """`receive` and `send` of a request; cancels the task that it was made in when the client goes
    after its request and before its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[Any] = task
        self.gone = False
        self._receive = receive
        self._send = send
        self._answered = False
        self._watch: asyncio.Future[Message] | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        whole = message["type"] == "http.request" and not message.get("more_body")
        if whole and self._watch is None:
            self._watch = asyncio.ensure_future(self._receive())
            self._watch.add_done_callback(self._heard)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._answered = True
        await self._send(message)

    def stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    def _heard(self, watch: asyncio.Future[Message]) -> None:
        if self._answered or watch.cancelled() or watch.exception():
            return
        if watch.result()["type"] == "http.disconnect":
            self.gone = True
            self.task.cancel()
