"""Load tests without load: what servers of known limits would have answered, in no time."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from fake_service import MODELS

from loadtests.arrivals import arrivals
from loadtests.campaign import Campaign, Contender
from loadtests.measurement import Measurement
from loadtests.open_loop import OpenLoop
from loadtests.plan import Plan
from loadtests.sender import Load
from loadtests.target import Target


class Simulated(OpenLoop):
    """In the place of generator processes: what servers with these limits, in requests/s, answer.

    Up to its limit a server takes 20 ms, beyond it 500 ms. `clock` goes on by what the windows
    would have taken.
    """

    def __init__(self, limits: dict[str, float], fault: str | None = None) -> None:
        self.limits, self.fault = limits, fault
        self.loads: list[Load] = []
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def run(self, load: Load, **_: Any) -> Measurement:
        self.loads.append(load)
        self.now += load.seconds
        limit = self.limits[load.variant]
        found = Measurement(planned=1000, sent=1000, seconds=load.seconds)
        if self.fault is not None:
            found.faults[self.fault] = 1000
            return found
        found.right = round(min(max(limit, 1), load.rate) * load.seconds)
        found.latency.record(20.0 if load.rate <= limit else 500.0)
        return found


class Queues(Simulated):
    """Servers that work off one request after the other, `limits` of them a second on average.

    One text in five is a review and takes 8.5 times as long as a sentence; lengths vary (gamma).
    The machine is faster in one window than in another (`drift`, of the logarithm), and now and
    then somebody else has it for a moment.
    """

    STALLS, STALL_SECONDS = 0.1, 0.06  # a second, each on average

    def __init__(self, limits: dict[str, float], seed: int, drift: float = 0.04) -> None:
        super().__init__(limits)
        self.drift, self.seed = drift, seed
        self.machine = np.random.default_rng(seed)

    def run(self, load: Load, **_: Any) -> Measurement:
        limit = self.limits[load.variant]
        if load.give_up_ms is None and load.arrivals == "even":  # saturated
            self.now += load.seconds
            return Measurement(right=round(limit * load.seconds), seconds=load.seconds)
        due = np.array(
            [*arrivals(load.arrivals, rate=load.rate, seconds=load.seconds, seed=load.seed)]
        )
        texts = np.random.default_rng(Random(load.seed).getrandbits(63))
        review = texts.random(len(due)) < 0.2
        work = texts.gamma(4, 0.25, len(due)) * np.where(review, 3.4, 0.4) / limit
        work *= np.exp(self.machine.normal(0, self.drift))
        stalls = self.machine.poisson(self.STALLS * load.seconds)
        at = np.concatenate([due, self.machine.uniform(0, load.seconds, stalls)])
        takes = np.concatenate([work, self.machine.exponential(self.STALL_SECONDS, stalls)])
        order = np.argsort(at)
        done = np.cumsum(takes[order])
        done += np.maximum.accumulate(at[order] - (done - takes[order]))
        requests = order < len(due)
        return self._measured(load, (done - at[order])[requests], done[requests])

    def _measured(self, load: Load, latencies: Any, done: Any) -> Measurement:
        found = Measurement(planned=len(done), sent=len(done), seconds=load.seconds)
        if load.give_up_ms is not None:
            late = np.sort(done[1e3 * latencies > load.give_up_ms])
            allowed = int(max(1.0, 0.01 * len(done)))
            if len(late) > allowed:
                found.seconds, found.gave_up = min(load.seconds, late[allowed]), True
                latencies = latencies[done <= late[allowed]]
        found.right = len(latencies)
        for latency in latencies:
            found.latency.record(1e3 * latency)
        self.now += found.seconds + 0.3
        return found


def nothing(*_: Any) -> None:
    """No progress is shown."""


def contenders(url: str, own: tuple[str, ...], *others: str) -> list[Contender]:
    target = Target(url, MODELS, alive=lambda: None)
    return [Contender(n, target, n, own=n in own) for n in (*own, *others)]


def simulated_campaign(
    plan: Plan, generator: Simulated, url: str = "http://127.0.0.1:9", peers: tuple[str, ...] = ()
) -> Campaign:
    """Ready to be run, on the simulation's clock."""
    own = tuple(name for name in generator.limits if name not in peers)
    return Campaign(plan, contenders(url, own, *peers), generator, clock=generator.clock)
