"""Plain answers go out in one write, and every answer is what uvicorn would send, by the byte."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.whole_answers import WholeAnswers

UVICORNS = WholeAnswers.__bases__[0]


class Written(list[bytes]):
    """A transport that keeps what is written."""

    closed = False

    def write(self, data: bytes) -> None:
        self.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def sent(
    kind: type[RequestResponseCycle],
    messages: list[dict[str, Any]],
    *,
    method: str = "POST",
    keep_alive: bool = True,
) -> tuple[Written, bool, bool]:
    """What is written for `messages`, whether the answer is complete, and whether that was told."""
    written, told = Written(), list[bool]()
    transport = cast(asyncio.Transport, written)
    logger = logging.getLogger("uvicorn.error")

    async def scenario() -> bool:
        cycle = kind(
            scope=cast(Any, {"type": "http", "method": method}),
            transport=transport,
            flow=FlowControl(transport),
            logger=logger,
            access_logger=logger,
            access_log=False,
            default_headers=[(b"date", b"today")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=lambda: told.append(True),
        )
        for message in messages:
            await cycle.send(cast(Any, dict(message)))
        return cycle.response_complete

    return written, asyncio.run(scenario()), bool(told)


def answer(body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> list[dict[str, Any]]:
    return [
        {"type": "http.response.start", "status": status, "headers": list(headers)},
        {"type": "http.response.body", "body": body},
    ]


LENGTH = (b"content-length", b"4")


def test_a_plain_answer_is_one_write() -> None:
    written, complete, told = sent(WholeAnswers, answer(b"body", LENGTH))
    assert written == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 4\r\n\r\nbody"]
    assert (complete, told) == (True, True)


names = st.sampled_from(
    [b"x-one", b"content-type", b"content-length", b"connection", b"Connection", b"X-Two"]
)
values = st.sampled_from([b"a", b"4", b"close", b"keep-alive", b"text/plain; charset=utf-8"])


@given(
    body=st.sampled_from([b"", b"body"]),
    headers=st.lists(st.tuples(names, values), max_size=4),
    status=st.sampled_from([200, 204, 304, 413, 503]),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    keep_alive=st.booleans(),
    parts=st.booleans(),
)
def test_every_answer_is_what_uvicorn_sends(
    body: bytes,
    headers: list[tuple[bytes, bytes]],
    status: int,
    method: str,
    keep_alive: bool,
    parts: bool,
) -> None:
    messages = answer(body, *headers, status=status)
    if parts:
        messages[1:] = [messages[1] | {"more_body": True}, {"type": "http.response.body"}]

    def outcome(kind: type[RequestResponseCycle]) -> Any:
        try:
            written, *rest = sent(kind, messages, method=method, keep_alive=keep_alive)
        except Exception as error:
            return type(error), str(error)
        return b"".join(written), written.closed, rest

    assert outcome(WholeAnswers) == outcome(UVICORNS)


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
def test_no_header_smuggles_in_a_line(value: bytes) -> None:
    with pytest.raises(RuntimeError, match="Invalid HTTP header value"):
        sent(WholeAnswers, answer(b"body", LENGTH, (b"x-one", value)))


def test_a_head_that_no_body_follows_is_not_sent() -> None:
    written, complete, told = sent(WholeAnswers, answer(b"body", LENGTH)[:1])
    assert (written, complete, told) == ([], False, False)
