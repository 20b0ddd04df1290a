"""What a sender measures, request by request, on a clock that jumps to what happens next."""

from __future__ import annotations

import asyncio
import json
import selectors
from types import SimpleNamespace
from typing import Any

import pytest
from fake_service import right

from loadtests import sender as module
from loadtests.http_client import Client
from loadtests.measurement import Histogram, Measurement
from loadtests.sender import Load, Sender

START = 100.0  # of the load, in the clock's seconds


class _NoWaiting(selectors.DefaultSelector):
    """Waits for nothing: the loop's time goes on by as much instead."""

    loop: JumpingLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            self.loop.now += max(0.0, timeout or 0.0)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time moves only where nothing is left to do before the next timer, and then at once."""

    def __init__(self) -> None:
        self.now = START - 1
        selector = _NoWaiting()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class Server(Client):
    """In the place of a client and its server: answers after 10 ms, but the request `stalls` after
    two seconds. Notes when each request was sent."""

    def __init__(self, connections: int, stalls: int) -> None:
        super().__init__("http://127.0.0.1:9", connections=connections)
        self.stalls = stalls
        self.sent: list[float] = []

    async def exchange(self, request: bytes, *, timeout: float) -> tuple[int, bytes]:  # noqa: ARG002
        asked = json.loads(request.partition(b"\r\n\r\n")[2])
        status, content = right(asked)
        number = len(self.sent)
        self.sent.append(asyncio.get_running_loop().time())
        await asyncio.sleep(2.0 if number == self.stalls else 0.01)
        self._free.release()
        return status, json.dumps(content).encode()


class Kept(Histogram):
    """Every time, in the order of the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[float] = []

    def record(self, milliseconds: float) -> None:
        self.all.append(milliseconds)
        super().record(milliseconds)


def measured(
    load: Load, connections: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Measurement, list[float], list[float]]:
    """What is found where the sixth request stalls, when each was due, and when it was sent."""
    sender = Sender(load)
    server = Server(connections, stalls=5)
    sender._client = server
    sender.found.latency, sender.found.service, sender.found.lag = Kept(), Kept(), Kept()
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        clock = SimpleNamespace(monotonic=runner.get_loop().time, process_time=lambda: 0.0)
        monkeypatch.setattr(module, "time", clock)
        runner.run(sender.send(START, asyncio.Event()))
    return sender.found, [START + due for due in sender._due], server.sent


def test_latency_counts_from_when_a_request_was_due_and_service_from_when_it_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Load("http://127.0.0.1:9", rate=20, seconds=4, arrivals="even")
    found, due, sent = measured(load, 1, monkeypatch)
    assert len(due) == len(sent) == found.sent == found.right == 80
    late = [1e3 * (left - then) for left, then in zip(sent, due, strict=True)]
    assert max(late) == pytest.approx(1950)  # the one that was due 50 ms after the stall began
    assert sum(each > 100 for each in late) > 20
    latency, service, lag = found.latency, found.service, found.lag
    assert isinstance(latency, Kept)
    assert isinstance(service, Kept)
    assert isinstance(lag, Kept)
    assert service.all == pytest.approx([2000 if i == 5 else 10 for i in range(80)])
    waited = [one - other for one, other in zip(latency.all, service.all, strict=True)]
    assert waited == pytest.approx(late)
    # Meanwhile its only connection was in use: none of that was the generator's delay.
    assert lag.all == pytest.approx([0.0] * 80, abs=1e-6)


def test_who_could_not_be_sent_before_the_end_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load("http://127.0.0.1:9", rate=20, seconds=1, arrivals="even")
    found, _, sent = measured(load, 1, monkeypatch)
    assert (len(sent), found.right, found.unsent) == (6, 6, 14)


def test_where_there_is_another_connection_nobody_is_sent_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Load("http://127.0.0.1:9", rate=20, seconds=1, arrivals="even")
    found, due, sent = measured(load, 2, monkeypatch)
    assert sent == pytest.approx(due)
    assert (found.right, found.unsent) == (20, 0)
