"""Drives a service with Locust: every variant in every round, one headless Locust each.

Locust patches the standard library for gevent, so it runs in a process of its own. The rounds
interleave the variants, in turns of changing order, so that a machine that slows down or speeds up
does so for all of them; each variant gets the same texts in the same round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from loadtests.errors import LoadTestError
from loadtests.target import Target, last_lines, stop

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
# Requests under way at the end of a round may take so long to finish before the next one starts.
_SECONDS_TO_FINISH = 30
_SECONDS_TO_START = 60


@dataclass(frozen=True)
class Plan:
    """What to drive. `duration` is in seconds, after all users have started, a variant and round;
    `texts` is a file of texts that replaces the generated workload."""

    variants: tuple[str, ...]
    users: int = 8
    spawn_rate: float = 8.0
    duration: int = 20
    rounds: int = 3
    workload: str = "sst"
    texts: Path | None = None
    batch: int = 1
    seed: int = 0

    @property
    def seconds_a_turn(self) -> int:
        """Seconds that one variant is driven in one round, the users' start included."""
        return ceil(self.users / self.spawn_rate) + self.duration

    def order(self, number: int) -> tuple[str, ...]:
        """The variants in the order of round `number` (from 1): each starts in its turn."""
        first = (number - 1) % len(self.variants)
        return self.variants[first:] + self.variants[:first]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"texts": str(self.texts) if self.texts else None}


@dataclass(frozen=True)
class Turn:
    """One variant in one round. `latencies_ms` has the right answers, in the order they came;
    `faults` counts the failed requests, wrong answers among them, by what was wrong.
    `client_saturated`: Locust used more than nine tenths of its core, so it bounds the figures."""

    number: int
    variant: str
    complete: bool
    seconds: float
    latencies_ms: tuple[float, ...]
    texts: int
    tokens: int
    faults: dict[str, int]
    client_saturated: bool = False

    @property
    def failures(self) -> int:
        return sum(self.faults.values())


def drive(
    plan: Plan, target: Target, turns: list[Turn], tick: Callable[[str, float], None]
) -> None:
    """Carries out the plan, and appends each turn to `turns`, also those before an interruption
    and, marked incomplete, the one during it.

    `tick(what, seconds)` is called several times a second with the share of the time that passed.
    Raises LoadTestError where the service is gone or answers nothing right.
    """
    for number in range(1, plan.rounds + 1):
        for variant in plan.order(number):
            _turn(plan, target, number, variant, turns, tick)
            what = f"round {number}, {variant}"
            turn = turns[-1]
            if turn.faults:
                try:
                    target.check()
                except LoadTestError as error:
                    turns[-1] = _incomplete(turn)
                    raise LoadTestError(f"the service went away in {what}: {error}") from None
            if not turn.latencies_ms:
                raise LoadTestError(_nothing_right(turn, what))


def _turn(
    plan: Plan,
    target: Target,
    number: int,
    variant: str,
    turns: list[Turn],
    tick: Callable[[str, float], None],
) -> None:
    with tempfile.TemporaryDirectory(prefix="crisp-locust-") as folder:
        samples, log = Path(folder) / "samples.json", Path(folder) / "locust.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                _command(plan, target.url, number, variant, samples),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Locust reads LOCUST_* variables as options; ours are all on the command line.
                env={k: v for k, v in os.environ.items() if not k.startswith("LOCUST_")},
                start_new_session=True,
            )
        try:
            _watch(process, plan, target, lambda s: tick(f"round {number}, {variant}", s))
        except BaseException:
            stop(process, seconds=_SECONDS_TO_FINISH)
            turns += _read(samples, number, variant, complete=False)
            raise
        finally:
            stop(process)
        if process.returncode != 0 or not samples.is_file():
            raise LoadTestError(
                f"Locust ended with exit code {process.returncode}; {last_lines(log)}"
            )
        turns += _read(samples, number, variant, complete=True)


def _command(plan: Plan, url: str, number: int, variant: str, samples: Path) -> list[str]:
    options = {
        "--locustfile": _LOCUSTFILE,
        "--host": url,
        "--users": plan.users,
        "--spawn-rate": plan.spawn_rate,
        "--seconds": plan.duration,
        "--stop-timeout": _SECONDS_TO_FINISH,
        "--exit-code-on-error": 0,
        "--loglevel": "WARNING",
        "--variant": variant,
        "--workload": plan.workload,
        "--batch": plan.batch,
        "--text-seed": f"{plan.seed}/{number}",
        "--samples": samples,
    }
    if plan.texts is not None:
        options["--texts"] = plan.texts.resolve()
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "locust", "--headless", "--only-summary", *words]


def _watch(
    process: subprocess.Popen[bytes], plan: Plan, target: Target, tick: Callable[[float], None]
) -> None:
    started = time.monotonic()
    limit = _SECONDS_TO_START + plan.seconds_a_turn + 2 * _SECONDS_TO_FINISH
    while True:
        try:
            process.wait(0.25)
            return
        except subprocess.TimeoutExpired:
            passed = time.monotonic() - started
        tick(min(passed, plan.seconds_a_turn))
        target.alive()
        if passed > limit:
            raise LoadTestError(f"Locust did not end within {limit} s")


def _read(samples: Path, number: int, variant: str, *, complete: bool) -> list[Turn]:
    if not samples.is_file():
        return []
    content = json.loads(samples.read_text(encoding="utf-8"))
    content["latencies_ms"] = tuple(content["latencies_ms"])
    return [Turn(number=number, variant=variant, complete=complete, **content)]


def _incomplete(turn: Turn) -> Turn:
    return Turn(**(asdict(turn) | {"complete": False}))


def _nothing_right(turn: Turn, what: str) -> str:
    if not turn.faults:
        return (
            f"no request finished in {turn.seconds:.0f} s of {what}: "
            "raise --duration, or lower --batch or --users"
        )
    fault = max(turn.faults, key=turn.faults.__getitem__)
    return (
        f"all {turn.failures} requests of {what} failed; {turn.faults[fault]} of them so: {fault}"
    )
