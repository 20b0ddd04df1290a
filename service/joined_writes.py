"""The head of an answer and its body as one write.

uvicorn writes them one after the other, and uvloop makes a system call of each, the second largest
cost of a short answer after its tokens.
"""

from __future__ import annotations

import asyncio


class JoinedWrites:
    """What uvicorn uses of `transport`: a write waits for the next one and goes out with it, or by
    itself as soon as the event loop comes to it (100 Continue, HEAD)."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif data:
            self._held = data
            self._loop.call_soon(self._flush)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            self._transport.write(self._held)
            self._held = b""
