"""Head and body of an answer go out together, and nothing is held back for long."""

from __future__ import annotations

import asyncio
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from service.joined_writes import JoinedWrites


class Written(list[bytes]):
    """A transport that keeps what is written."""

    closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.append(data)

    def close(self) -> None:
        self.closed = True


async def joined() -> tuple[Written, JoinedWrites]:
    written = Written()
    return written, JoinedWrites(cast(asyncio.Transport, written), asyncio.get_running_loop())


def test_two_writes_are_one() -> None:
    async def scenario() -> Written:
        written, writes = await joined()
        writes.write(b"head")
        writes.write(b"body")
        return written

    assert asyncio.run(scenario()) == [b"headbody"]


def test_a_write_by_itself_goes_out_as_soon_as_the_loop_comes_to_it() -> None:
    async def scenario() -> Written:
        written, writes = await joined()
        writes.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert written == []
        await asyncio.sleep(0)
        return written

    assert asyncio.run(scenario()) == [b"HTTP/1.1 100 Continue\r\n\r\n"]


def test_nothing_is_lost_when_it_is_closed() -> None:
    async def scenario() -> Written:
        written, writes = await joined()
        writes.write(b"head")
        writes.close()
        return written

    written = asyncio.run(scenario())
    assert written == [b"head"]
    assert written.closed


@given(st.lists(st.one_of(st.binary(), st.none())))
def test_all_bytes_arrive_in_order(pieces: list[bytes | None]) -> None:
    """None: the event loop goes round."""

    async def scenario() -> Written:
        written, writes = await joined()
        for piece in pieces:
            if piece is None:
                await asyncio.sleep(0)
            else:
                writes.write(piece)
        writes.close()
        return written

    assert b"".join(asyncio.run(scenario())) == b"".join(piece or b"" for piece in pieces)
