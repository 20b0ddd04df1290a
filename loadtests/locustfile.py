"""The users of a load test, for Locust: each sends one request after the other, without a pause.

By itself, with Locust's web page on http://localhost:8089, against a service that runs:

    locust -f loadtests/locustfile.py --host http://127.0.0.1:3000 --variant sparse

`crisp loadtest` runs it headless, once a variant and round, and reads what it writes to --samples.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from threading import Timer
from time import perf_counter, sleep
from typing import Any

from locust import FastHttpUser, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.answers import judge
from loadtests.workloads import WORKLOADS, generated_texts, texts_of_file

# A failing service is not hammered: a user whose request failed waits so long, in seconds.
_PAUSE_AFTER_FAILURE = 0.2


def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--variant", default="sparse", help="model that answers")
    parser.add_argument("--workload", default="sst", choices=WORKLOADS, help="lengths of the texts")
    parser.add_argument("--texts", default="", help="file of texts, one a line, instead")
    parser.add_argument("--batch", type=int, default=1, help="texts a request")
    parser.add_argument(
        "--seconds",
        type=int,
        default=0,
        include_in_web_ui=False,
        help="stop so long after the last user's start; 0: never",
    )
    parser.add_argument("--text-seed", default="0", help="seed of the texts")
    parser.add_argument(
        "--samples",
        default="",
        include_in_web_ui=False,
        help="write every measurement to this file",
    )


@dataclass
class Samples:
    """The requests that finished between the last user's start and the end of the test."""

    started: float | None = None
    ended: float | None = None
    latencies_ms: list[float] = field(default_factory=list)
    texts: int = 0
    tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    client_saturated: bool = False

    @property
    def measuring(self) -> bool:
        return self.started is not None and self.ended is None

    def write(self, path: Path) -> None:
        now = perf_counter()
        seconds = 0.0 if self.started is None else (self.ended or now) - self.started
        content = {
            "seconds": seconds,
            "latencies_ms": [round(latency, 3) for latency in self.latencies_ms],
            "texts": self.texts,
            "tokens": self.tokens,
            "faults": dict(self.faults),
            "client_saturated": self.client_saturated,
        }
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(path)


_samples = Samples()
_user_numbers = count()


def _on_test_start(**_: Any) -> None:
    # Locust's web page can start several tests in one process.
    global _samples
    _samples = Samples()


def _on_init(environment: Environment, **_: Any) -> None:
    def on_spawning_complete(**_: Any) -> None:
        if _samples.started is not None:
            return  # more users, by Locust's web page
        _samples.started = perf_counter()
        options, runner = environment.parsed_options, environment.runner
        if options is not None and options.seconds and runner is not None:
            # Locust's own --run-time counts from before the users start.
            timer = Timer(options.seconds, runner.quit)
            timer.daemon = True
            timer.start()

    environment.events.spawning_complete.add_listener(on_spawning_complete)  # type: ignore[no-untyped-call]


def _on_cpu_warning(**_: Any) -> None:
    # Locust uses one core; near its limit it measures itself.
    if _samples.measuring:
        _samples.client_saturated = True


def _on_test_stopping(environment: Environment, **_: Any) -> None:
    _samples.ended = perf_counter()
    options = environment.parsed_options
    if options is not None and options.samples:
        _samples.write(Path(options.samples))


class Visitor(FastHttpUser):
    """A client with one request under way at any time."""

    wait_time = constant(0)
    network_timeout = 120.0
    connection_timeout = 10.0

    def on_start(self) -> None:
        options = self.environment.parsed_options
        assert options is not None  # Locust fills it in before any user starts
        self.variant: str = options.variant
        self.batch: int = options.batch
        seed = f"{options.text_seed}/{next(_user_numbers)}"
        self.texts: Iterator[str] = (
            texts_of_file(Path(options.texts), seed)
            if options.texts
            else generated_texts(options.workload, seed)
        )

    @task
    def predict(self) -> None:
        body = {"texts": list(islice(self.texts, self.batch)), "variant": self.variant}
        name = f"/predict {self.variant}"
        with self.client.post("/predict", json=body, name=name, catch_response=True) as response:
            answer = judge(
                response.status_code, response.content, variant=self.variant, texts=self.batch
            )
            if answer.fault is None:
                response.success()
            else:
                response.failure(answer.fault)
        if _samples.measuring:
            if answer.fault is None:
                _samples.latencies_ms.append(float(response.request_meta["response_time"]))
                _samples.texts += self.batch
                _samples.tokens += answer.tokens
            else:
                _samples.faults[answer.fault] += 1
        if answer.fault is not None:
            sleep(_PAUSE_AFTER_FAILURE)  # gevent's: Locust has patched it


for _hook, _listener in (
    (events.init_command_line_parser, _add_options),
    (events.test_start, _on_test_start),
    (events.init, _on_init),
    (events.cpu_warning, _on_cpu_warning),
    (events.test_stopping, _on_test_stopping),
):
    _hook.add_listener(_listener)  # type: ignore[no-untyped-call]
