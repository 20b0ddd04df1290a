"""Open-loop load against a small server that behaves as each test says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_service import fake_service, right
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.errors import LoadTestError
from loadtests.http_client import Client
from loadtests.measurement import Histogram, Measurement, side_by_side
from loadtests.open_loop import OpenLoop
from loadtests.sender import Load, Sender

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generator() -> Iterator[OpenLoop]:
    with OpenLoop(processes=2) as started:
        yield started
    assert not senders()


def senders() -> list[psutil.Process]:
    """Generator processes that this one has started and that still run."""
    children = psutil.Process().children(recursive=True)
    return [p for p in children if "loadtests.sender" in " ".join(p.cmdline())]


def answering_with(status: int, content: Any) -> Any:
    return lambda _: (status, content)


def test_every_request_of_the_schedule_is_sent_once_and_its_answer_counted(
    generator: OpenLoop,
) -> None:
    with fake_service() as server:
        load = Load(server.url, rate=60, seconds=1.0, batch=2, workload="mixed")
        found = generator.run(load)
    assert found.complete
    assert found.planned == found.sent == found.right == len(server.requests) > 30
    assert (found.failures, found.cut, found.unsent) == (0, 0, 0)
    assert found.texts == 2 * found.right
    assert found.tokens == 7 * found.texts
    assert found.latency.count == found.service.count == found.lag.count == found.right
    assert 0 < found.busy < 1
    assert found.seconds == pytest.approx(1.0, abs=0.1)


def test_the_same_seed_sends_the_same_texts_to_either_variant(generator: OpenLoop) -> None:
    with fake_service() as server:
        for variant in ("dense", "sparse"):
            generator.run(Load(server.url, variant=variant, rate=30, seconds=0.5, seed="3"))
    sent = {
        name: sorted(r["texts"][0] for r in server.requests if r["variant"] == name)
        for name in ("dense", "sparse")
    }
    assert len(set(sent["dense"])) > 5
    assert sent["dense"] == sent["sparse"]


def test_a_server_that_stalls_is_charged_for_those_who_came_meanwhile(
    generator: OpenLoop,
) -> None:
    """A closed loop of as many clients would have seen one slow answer each, and sent no more;
    nor were most of them slow once they were sent (`test_sender.py` has them one by one)."""
    stalled = threading.Event()

    def stalls_once(request: dict[str, Any]) -> tuple[int, Any]:
        if len(server.requests) > 20:
            stalled.wait(1.0)
            stalled.set()
        return right(request)

    with fake_service(stalls_once) as server:
        load = Load(server.url, rate=60, seconds=2.0, arrivals="even", connections=2)
        found = generator.run(load)
    late, slow = found.latency.percentile(75), found.service.percentile(75)
    assert late is not None
    assert slow is not None
    assert late > 300
    assert late > 3 * slow
    assert found.planned == 120
    assert found.sent + found.unsent == found.planned


@pytest.mark.parametrize(
    ("status", "content", "fault"),
    [
        (429, {"error": {"code": "overloaded", "message": "later"}}, "HTTP 429: overloaded: later"),
        (503, {"error": {"code": "starting"}}, "HTTP 503: starting"),
        (500, b"<html>", "HTTP 500, and the body is not JSON"),
        (200, {"variant": "sparse", "predictions": []}, "asked for 1 predictions, got 0"),
    ],
)
def test_refusals_and_wrong_answers_are_failures(
    generator: OpenLoop, status: int, content: Any, fault: str
) -> None:
    with fake_service(answering_with(status, content)) as server:
        found = generator.run(Load(server.url, rate=40, seconds=0.5))
    assert found.right == 0
    assert dict(found.faults) == {fault: found.sent}
    assert found.error_share == 1
    assert found.latency.count == 0


def test_connections_that_are_dropped_or_refused_are_failures(generator: OpenLoop) -> None:
    with fake_service(lambda _: None) as server:
        found = generator.run(Load(server.url, rate=40, seconds=0.5))
    assert set(found.faults) == {"no answer: the server closed the connection before it answered"}
    found = generator.run(Load(server.url, rate=40, seconds=0.5))  # nobody listens any more
    assert set(found.faults) == {"no answer: Connection refused"}


def test_an_answer_that_takes_too_long_is_a_failure(generator: OpenLoop) -> None:
    asleep = threading.Event()

    def sleeps(request: dict[str, Any]) -> tuple[int, Any]:
        asleep.wait(1)
        return right(request)

    with fake_service(sleeps) as server:
        found = generator.run(Load(server.url, rate=20, seconds=0.3, timeout=0.2))
        asleep.set()
    assert set(found.faults) == {"no answer within 0.2 s"}


def test_a_hopeless_window_ends_early(generator: OpenLoop) -> None:
    def slow(request: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.05)
        return right(request)

    with fake_service(slow) as server:
        found = generator.run(Load(server.url, rate=40, seconds=60, give_up_ms=10))
    assert found.gave_up
    assert found.complete
    assert found.seconds < 60
    assert found.sent == found.right + found.failures + found.cut


@pytest.mark.parametrize("of", [1, 4])
def test_a_window_is_hopeless_at_the_same_number_of_late_requests_with_any_processes(
    of: int,
) -> None:
    load = Load("http://127.0.0.1:9", rate=92, seconds=5, arrivals="even", give_up_ms=10)
    for index in range(of):
        sender = Sender(load, index=index, of=of)
        for _ in range(4):  # of 460, fewer than 1 %
            sender._is_late()
        assert not sender._hopeless.is_set()
        sender._is_late()
        assert sender._hopeless.is_set()


def test_certificates_are_loaded_once_and_only_for_https(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[object] = []
    used: list[object] = []

    def load_certificates() -> object:
        contexts.append(object())
        return contexts[-1]

    async def connect_twice(client: Client) -> None:
        async def create_connection(*_: Any, ssl: object) -> tuple[None, None]:
            used.append(ssl)
            return None, None

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "create_connection", create_connection)
        await client._connected()
        await client._connected()

    monkeypatch.setattr(ssl, "create_default_context", load_certificates)
    asyncio.run(connect_twice(Client("http://127.0.0.1:9", connections=2)))
    assert (contexts, used) == ([], [None, None])
    client = Client("https://127.0.0.1:9", connections=2)
    assert len(contexts) == 1  # before the clock starts
    asyncio.run(connect_twice(client))
    assert used[2:] == 2 * contexts


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rate": 0.0}, "expected a rate above 0"),
        ({"rate": 1e9}, "more than 1,000,000 requests"),
        ({"adapter": "soap"}, "unknown adapter 'soap'; known: crisp"),
        ({"arrivals": "tides"}, "unknown arrivals"),
        ({"workload": "tweets"}, "unknown workload"),
        ({"url": "localhost:3000"}, "expected a URL such as"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused_and_the_next_is_not(
    generator: OpenLoop, changes: dict[str, Any], complaint: str
) -> None:
    with fake_service() as server:
        with pytest.raises(LoadTestError, match=complaint):
            generator.run(Load(**{"url": server.url, **changes}))
        assert generator.run(Load(server.url, rate=20, seconds=0.3)).failures == 0


def test_an_interruption_keeps_what_was_measured(generator: OpenLoop) -> None:
    kept: list[Measurement] = []

    def interrupt(seconds: float) -> None:
        if seconds > 0.5:
            raise KeyboardInterrupt

    with fake_service() as server:
        with pytest.raises(KeyboardInterrupt):
            generator.run(Load(server.url, rate=50, seconds=60), tick=interrupt, keep=kept.append)
        assert generator.run(Load(server.url, rate=20, seconds=0.3)).complete
    (found,) = kept
    assert not found.complete
    assert found.right > 0
    assert found.planned < 50 * 60


def test_a_generator_process_that_dies_is_an_error_and_leaves_none() -> None:
    before = {process.pid for process in senders()}
    with fake_service() as server, OpenLoop(processes=2) as generator:
        generator.run(Load(server.url, rate=20, seconds=0.2))  # now both are what they became
        own = [process for process in senders() if process.pid not in before]
        with pytest.raises(LoadTestError, match="a generator process ended"):
            generator.run(Load(server.url, rate=20, seconds=30), tick=lambda _: own[0].kill())
    assert len(own) == 2
    assert psutil.wait_procs(own, timeout=5)[1] == []


def test_generators_end_where_their_parent_is_killed() -> None:
    script = (
        "import os, signal; from loadtests.open_loop import OpenLoop\n"
        "with OpenLoop(2) as g:\n"
        "    print(*(p.pid for p in g._processes), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    left = [psutil.Process(pid) for pid in map(int, done.stdout.split()) if psutil.pid_exists(pid)]
    assert psutil.wait_procs(left, timeout=10)[1] == []


def test_the_command_prints_what_came_of_it() -> None:
    command = [sys.executable, "-m", "loadtests.open_loop", "--rate", "40", "--seconds", "0.5"]
    with fake_service() as server:
        for more in ([], ["--json"]):
            done = subprocess.run(
                [*command, "--url", server.url, *more],
                cwd=ROOT,
                env=os.environ | {"COLUMNS": "100"},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            if more:
                assert Measurement.from_dict(json.loads(done.stdout)).right > 0
            else:
                assert "requests/s due" in done.stdout
                assert "of a core" in done.stdout


def test_measurements_survive_json_and_add_up() -> None:
    one = Measurement(
        planned=3, sent=2, unsent=1, right=1, texts=1, tokens=7, seconds=2.0, busy=0.2
    )
    one.latency.record(1.5)
    one.faults["late"] = 1
    one.parts["queue"].record(0.25)
    again = Measurement.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again.to_dict() == one.to_dict()
    both = side_by_side([one, again])
    assert (both.planned, both.failures, both.seconds, both.busy) == (6, 4, 2.0, 0.2)
    assert both.latency.count == 2
    assert both.latency.percentile(99) == pytest.approx(1.5, rel=2e-3)
    assert both.parts["queue"].mean == pytest.approx(0.25, rel=2e-3)
    assert both.error_share == pytest.approx(4 / 6)


def test_a_window_without_a_single_request_is_no_busy_generator(generator: OpenLoop) -> None:
    with fake_service() as server:
        found = generator.run(Load(server.url, rate=0.01, seconds=1, arrivals="poisson", seed="0"))
    assert found.planned == 0
    assert found.busy < 1
    assert found.limited_by is None


def test_a_generator_at_its_limit_says_so() -> None:
    fine = Measurement(busy=0.4)
    for _ in range(100):
        fine.latency.record(50.0)
        fine.lag.record(1.0)
    assert fine.limited_by is None
    fine.busy = 0.95
    assert fine.limited_by == "the generator used 95 % of its core"
    fine.busy = 0.4
    for _ in range(10):
        fine.lag.record(30.0)
    assert "left more than 30.0 ms late" in str(fine.limited_by)


@given(st.lists(st.floats(0.001, 1e5), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
def test_the_mean_is_that_of_the_library_and_of_the_times(times: list[float]) -> None:
    histogram = Histogram()
    for milliseconds in times:
        histogram.record(milliseconds)
    assert histogram.mean == pytest.approx(histogram._counts.get_mean_value() / 1e3)
    assert histogram.mean == pytest.approx(sum(times) / len(times), rel=1e-3, abs=1e-3)


def test_an_empty_histogram_has_no_figures() -> None:
    empty = Histogram()
    assert (empty.count, empty.mean, empty.percentile(50)) == (0, None, None)
