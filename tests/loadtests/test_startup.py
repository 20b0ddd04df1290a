"""How long a service takes to start: the first answer counts, not what is done around it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fake_service import MODELS

from loadtests import startup, target
from loadtests.errors import LoadTestError
from loadtests.target import Target


class Starting:
    """A server, on a clock of its own, that listens after 0.4 s and is ready after 1 s. A question
    takes it 1 ms; each client costs 34 ms, as in httpx."""

    def __init__(self) -> None:
        self.now, self.clients, self.questions = 100.0, 0, 0

    def answer(self, _: httpx.Request) -> httpx.Response:
        self.now += 0.001
        self.questions += 1
        if self.now < 100.4:
            raise httpx.ConnectError("Connection refused")
        return httpx.Response(200 if self.now >= 101.0 else 503)

    def client(self, **_: Any) -> httpx.Client:
        self.clients += 1
        self.now += 0.034
        return httpx.Client(transport=httpx.MockTransport(self.answer))

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Starting:
    server = Starting()
    clock = SimpleNamespace(monotonic=lambda: server.now, sleep=server.sleep)
    monkeypatch.setattr(target, "time", clock)
    fake = SimpleNamespace(Client=server.client, HTTPError=httpx.HTTPError)
    monkeypatch.setattr(target, "httpx", fake)
    return server


def test_the_time_is_that_of_the_first_answer_to_a_hundredth(
    starting: Starting, tmp_path: Path
) -> None:
    ready = target._ready_at("http://x/readyz", lambda: None, tmp_path / "log", timeout=5)
    assert 101.0 <= ready < 101.02
    assert ready == starting.now
    assert starting.clients == 1


def test_a_service_that_is_never_ready_is_given_up(starting: Starting, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("still loading\n")
    with pytest.raises(LoadTestError, match=r"not ready after 0 s; the last lines.*\n.*still load"):
        target._ready_at("http://x/readyz", lambda: None, tmp_path / "log", timeout=0.3)
    assert starting.questions > 10


def test_a_server_that_is_started_says_how_long_it_took(tmp_path: Path) -> None:
    (tmp_path / "health").touch()
    port = target.free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", target.HOST]
    before = time.monotonic()
    with target.started(command, port, "plain", folder=tmp_path) as server:
        assert server.ready_seconds is not None
        assert 0 < server.ready_seconds < time.monotonic() - before


def test_what_follows_the_first_answer_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def started(_: Path | None) -> Iterator[Target]:
        yield Target("http://x", MODELS, alive=lambda: None, ready_seconds=1.25)

    monkeypatch.setattr(startup, "started_service", started)
    monkeypatch.setattr(startup, "send", lambda *_: None)
    monkeypatch.setattr(startup, "rss", lambda _: 0)
    found = startup.one_start(None, requests=50)
    assert found == {"ready_seconds": 1.25, "resident_mib": []}
