"""What HTTP costs on top of the engine: both measured in one run, in turns of half a second.

Two questions. With many connections, what share of the engine's own batched throughput arrives at
the clients? With one, how many milliseconds does a request take beyond the engine's own time? Both
are asked of a service of one process, whose runs have all cores, and of one with a process for each
core. The engine runs in this process, the services in theirs, and never two at once. A round asks
each of them each question, in an order drawn anew, so that a machine that slows down does so for
all; ratios and differences are taken round by round, and their medians come with a bootstrap
interval.

The texts are pairs of the sentences in examples/, about as long as a sentence of a film review.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import uvloop

from service.bench.client import BenchError, closed_loop, predict_request
from service.engine import Engine
from service.model_folders import default_of, model_folders

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples" / "train.tsv"

_WARM_UP_SECONDS = 1.0
_SECONDS_TO_START, _SECONDS_TO_STOP = 120.0, 90.0


@dataclass
class Engines:
    """One number a round of the engine alone: texts a second in batches of as many as there are
    connections, and the milliseconds of a single text, the median of a turn."""

    throughput: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)


@dataclass
class Overhead:
    """The same over HTTP, of a service of `workers` processes, one text a request: throughput with
    `connections`, milliseconds with one."""

    workers: int
    connections: int
    engine: Engines
    throughput: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)

    @property
    def shares(self) -> list[float]:
        """HTTP's share of the engine's throughput, round by round."""
        pairs = zip(self.throughput, self.engine.throughput, strict=True)
        return [http / engine for http, engine in pairs]

    @property
    def added_ms(self) -> list[float]:
        """Milliseconds of a request beyond the engine's, round by round."""
        return [http - engine for http, engine in zip(self.ms, self.engine.ms, strict=True)]

    def summary(self) -> dict[str, Any]:
        """Medians, and 95 % intervals of them."""
        return {
            **asdict(self),
            "rounds": len(self.shares),
            "share": median(self.shares),
            "share_interval": interval(self.shares),
            "added_ms_median": median(self.added_ms),
            "added_ms_interval": interval(self.added_ms),
        }


def interval(values: Sequence[float], resamples: int = 2000) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the median."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (resamples, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return float(low), float(high)


def measure(
    models: Path,
    *,
    seconds: float,
    workers: Sequence[int],
    connections: int = 32,
    turn: float = 0.5,
    advance: Callable[[float], None] = lambda _: None,
) -> list[Overhead]:
    """Of a service with each number of `workers`: rounds of turns of `turn` seconds each, as many
    as fit into `seconds`, 3 at least.

    Raises BenchError where a service does not start or answer.
    """
    texts = pairs_of_examples()
    folders = model_folders(models)
    variant = default_of(folders)
    engine = Engine.load(folders[variant])
    engine.warm_up()
    requests = [predict_request(text, variant) for text in texts]
    alone = Engines()
    found = [Overhead(each, connections, alone) for each in workers]
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(served(models, each)) for each in workers]
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))

        def http(port: int, count: int, length: float) -> list[float]:
            return runner.run(closed_loop("127.0.0.1", port, requests, count, length))

        def throughput(of: Overhead, port: int) -> None:
            began = perf_counter()
            answered = len(http(port, connections, turn))
            of.throughput.append(answered / (perf_counter() - began))

        def latency(of: Overhead, port: int) -> None:
            of.ms.append(1e3 * median(http(port, 1, turn)))

        turns: list[Callable[[], None]] = [
            lambda: alone.throughput.append(_rate(engine, texts, connections, turn)),
            lambda: alone.ms.append(_engine_ms(engine, texts, turn)),
        ]
        for of, port in zip(found, ports, strict=True):
            turns += [partial(throughput, of, port), partial(latency, of, port)]
            http(port, connections, _WARM_UP_SECONDS)
        order = random.Random(0)
        rounds = max(3, int(seconds / (len(turns) * turn)))
        for number in range(rounds):
            for take in order.sample(turns, len(turns)):
                take()
            advance((number + 1) / rounds)
    return found


def pairs_of_examples() -> list[str]:
    lines = EXAMPLES.read_text(encoding="utf-8").splitlines()[1:]
    sentences = [line.split("\t")[0] for line in lines]
    return [f"{a} {b}" for a, b in zip(sentences, reversed(sentences), strict=True)]


@contextlib.contextmanager
def served(models: Path, workers: int = 1) -> Iterator[int]:
    """The port of a `crisp serve` of `models` that is ready; it is ended with the context, and
    where SIGTERM ends this process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ["--models", str(models.absolute()), "--port", str(port), "--no-access-log"]
    options += ["--workers", str(workers)]
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    process = subprocess.Popen(
        [sys.executable, "-m", "crisp", "serve", *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_until_ready(process, port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        signal.signal(signal.SIGTERM, before)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < until:
        if process.poll() is not None:
            raise BenchError(f"the service ended with code {process.returncode} at its start")
        with (
            contextlib.suppress(urllib.error.URLError, TimeoutError, ConnectionError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5),
        ):
            return
        time.sleep(0.05)
    raise BenchError(f"the service was not ready after {_SECONDS_TO_START:g} seconds")


def _rate(engine: Engine, texts: list[str], batch: int, seconds: float) -> float:
    began, done = perf_counter(), 0
    while perf_counter() - began < seconds:
        engine.predict([texts[(done + i) % len(texts)] for i in range(batch)])
        done += batch
    return done / (perf_counter() - began)


def _engine_ms(engine: Engine, texts: list[str], seconds: float) -> float:
    until, times = perf_counter() + seconds, list[float]()
    while (began := perf_counter()) < until:
        engine.predict([texts[len(times) % len(texts)]])
        times.append(perf_counter() - began)
    return 1e3 * median(times)
