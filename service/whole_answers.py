"""An answer that is there as a whole goes out as a whole: head and body in one write.

uvicorn writes them one after the other, each a system call, and looks at every header with two
regular expressions: the second largest cost of a short answer after its tokens. What comes in
several parts, or is anything else than a plain answer, is left to uvicorn.
"""

from __future__ import annotations

import re
from typing import Any

from uvicorn.protocols.http import httptools_impl

_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # in a head, line ends aside
_NOT_PLAIN = frozenset({b"connection", b"transfer-encoding"})


class WholeAnswers(httptools_impl.RequestResponseCycle):
    """uvicorn's cycle of a request and its answer. As ASGI asks, the head waits for the body."""

    _head: Any = None

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        head = self._head
        if head is None:
            if message["type"] == "http.response.start" and not self.response_started:
                self._head = message
            else:
                await super().send(message)
            return
        self._head = None
        answer = None if message.get("more_body") else self._whole(head, message.get("body", b""))
        if answer is None:
            await super().send(head)
            await super().send(message)
            return
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(answer)
        self.message_event.set()
        self.on_response()

    def _whole(self, head: Any, body: bytes) -> bytes | None:
        """The bytes of a plain answer to a client that is there and reads; None for any other."""
        if self.disconnected or self.flow.write_paused or self.access_log or not self.keep_alive:
            return None
        if self.scope["method"] == "HEAD":
            return None
        headers = [*self.default_headers, *head.get("headers", ())]
        lines, length = [httptools_impl.STATUS_LINE[head["status"]]], b""
        for given, value in headers:
            name = given.lower()
            if name == b"content-length":
                length = value
            elif name in _NOT_PLAIN:
                return None
            lines += (name, b": ", value, b"\r\n")
        text = b"".join(lines)
        ends = len(headers) + 1
        clean = text.count(b"\n") == text.count(b"\r") == ends and not _FORBIDDEN.search(text)
        if not clean or length != b"%d" % len(body):
            return None
        return text + b"\r\n" + body


def install() -> None:
    """Lets uvicorn in this process use it; it names the class in one place only."""
    httptools_impl.RequestResponseCycle = WholeAnswers  # type: ignore[misc]
