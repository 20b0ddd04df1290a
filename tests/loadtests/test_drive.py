"""Rounds driven by the real Locust against a small server that behaves as each test says."""

from __future__ import annotations

import socket
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_service import FakeService, fake_service, right

from loadtests.drive import Plan, Turn, drive
from loadtests.errors import LoadTestError
from loadtests.target import running_service, started_service


def run(server: FakeService, plan: Plan, **options: Any) -> list[Turn]:
    turns: list[Turn] = []
    drive(plan, running_service(server.url), turns, lambda *_: None, **options)
    return turns


def no_locust_left() -> bool:
    return not any("locust" in " ".join(p.cmdline()) for p in psutil.Process().children(True))


def test_every_variant_starts_a_round_in_its_turn() -> None:
    plan = Plan(("dense", "sparse", "tiny"))
    assert [plan.order(number) for number in (1, 2, 3, 4)] == [
        ("dense", "sparse", "tiny"),
        ("sparse", "tiny", "dense"),
        ("tiny", "dense", "sparse"),
        ("dense", "sparse", "tiny"),
    ]


def test_variants_get_the_same_texts_and_wrong_answers_count_as_failures() -> None:
    numbers = count()

    def sometimes_wrong(request: dict[str, Any]) -> tuple[int, Any]:
        if request["variant"] == "sparse" and next(numbers) % 3 == 0:
            return 200, {"variant": "dense", "predictions": []}
        return right(request)

    with fake_service(sometimes_wrong) as server:
        plan = Plan(("dense", "sparse"), users=1, spawn_rate=1, duration=1, rounds=1, batch=2)
        dense, sparse = run(server, plan)
    assert (dense.variant, dense.complete, dense.failures) == ("dense", True, 0)
    assert dense.latencies_ms
    assert dense.texts == 2 * len(dense.latencies_ms)
    assert dense.tokens == 7 * dense.texts
    assert set(sparse.faults) == {"asked for variant 'sparse', 'dense' answered"}
    assert sparse.latencies_ms
    # The same user sends the same stream of texts to either variant.
    sent = {
        name: [r["texts"] for r in server.requests if r["variant"] == name]
        for name in ("dense", "sparse")
    }
    shared = min(len(texts) for texts in sent.values())
    assert shared > 1
    assert sent["dense"][:shared] == sent["sparse"][:shared]
    assert no_locust_left()


def test_a_service_that_dies_half_way_leaves_partial_results() -> None:
    def dies(request: dict[str, Any]) -> tuple[int, Any] | None:
        server.gone = len(server.requests) > 20
        return right(request)

    turns: list[Turn] = []
    plan = Plan(("dense", "sparse"), users=2, spawn_rate=2, duration=1, rounds=1)
    with (
        fake_service(dies) as server,
        pytest.raises(LoadTestError, match="went away in round 1, dense"),
    ):
        drive(plan, running_service(server.url), turns, lambda *_: None)
    (turn,) = turns
    assert not turn.complete
    assert turn.latencies_ms
    assert set(turn.faults) == {"no answer: the connection failed"}


def test_an_interruption_keeps_what_was_measured_and_leaves_no_locust() -> None:
    under_way: list[float] = []

    def interrupt(_what: str, seconds: float) -> None:
        if len(server.requests) > 20:
            under_way.append(seconds)
        if under_way and seconds > under_way[0] + 1.5:
            raise KeyboardInterrupt

    turns: list[Turn] = []
    plan = Plan(("dense", "sparse"), users=2, spawn_rate=2, duration=60, rounds=1)
    with fake_service() as server, pytest.raises(KeyboardInterrupt):
        drive(plan, running_service(server.url), turns, interrupt)
    (turn,) = turns
    assert not turn.complete
    assert turn.latencies_ms
    assert 0 < turn.seconds < 60
    assert no_locust_left()


@pytest.mark.slow
def test_a_started_service_that_is_killed_ends_the_test_and_leaves_no_worker(
    models_dir: Path,
) -> None:
    family: list[psutil.Process] = []

    def kill(_what: str, seconds: float) -> None:
        if seconds > 8 and not family:
            services = [p for p in psutil.Process().children() if "serve" in p.cmdline()]
            family.extend([*services, *services[0].children(recursive=True)])
            services[0].kill()

    turns: list[Turn] = []
    plan = Plan(("dense", "sparse"), users=2, spawn_rate=2, duration=60, rounds=1)
    with (
        pytest.raises(LoadTestError, match=r"the service ended with exit code -9; the last lines"),
        started_service(models_dir) as target,
    ):
        drive(plan, target, turns, kill)
    assert [turn.complete for turn in turns] == [False]
    assert len(family) > 1, "BentoML is meant to have workers"
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_where_nothing_listens_the_message_says_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(LoadTestError, match=r"no service answers at .*`crisp serve`"):
        running_service(url)


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://localhost", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(LoadTestError, match="expected a URL such as"):
        running_service(url)


@pytest.mark.parametrize("models", [[], {}, {"variants": {}}, b"<html>hello</html>"])
def test_what_is_no_crisp_service_is_refused(models: Any) -> None:
    with (
        fake_service(models=models) as server,
        pytest.raises(LoadTestError, match="not a Crisp service"),
    ):
        running_service(server.url)
