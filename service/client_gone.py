"""A client that goes away before its answer costs nothing more: its request is cancelled.

ASGI tells of it only to whoever asks. So once the body of a request has been read, a task asks;
when it hears that the connection is closed, it cancels the endpoint, and what waits in the queue
goes with it.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class EndsWithClient:
    """ASGI middleware; see above."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        endpoint = asyncio.current_task()
        assert endpoint is not None
        watch: asyncio.Task[Message] | None = None
        answered = gone = False

        def heard(task: asyncio.Task[Message]) -> None:
            nonlocal gone
            if not (answered or task.cancelled() or task.exception()):
                gone = task.result()["type"] == "http.disconnect"
                if gone:
                    endpoint.cancel()

        async def receive_and_watch() -> Message:
            nonlocal watch
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body") and not watch:
                watch = asyncio.ensure_future(receive())
                watch.add_done_callback(heard)
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal answered
            answered = answered or (
                message["type"] == "http.response.body" and not message.get("more_body")
            )
            await send(message)

        try:
            await self.app(scope, receive_and_watch, send_and_note)
        except asyncio.CancelledError:
            if not gone:
                raise
            endpoint.uncancel()
        finally:
            if watch is not None:
                watch.cancel()
