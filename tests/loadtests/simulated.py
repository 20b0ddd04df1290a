"""A load test without load: what servers of known limits would have answered."""

from __future__ import annotations

from typing import Any

from fake_service import MODELS

from loadtests.campaign import Contender
from loadtests.measurement import Measurement
from loadtests.open_loop import OpenLoop
from loadtests.sender import Load
from loadtests.target import Target


class Simulated(OpenLoop):
    """In the place of generator processes: what servers with these limits, in requests/s, answer.

    Up to its limit a server takes 20 ms, beyond it 500 ms.
    """

    def __init__(self, limits: dict[str, float], fault: str | None = None) -> None:
        self.limits, self.fault = limits, fault
        self.loads: list[Load] = []

    def run(self, load: Load, **_: Any) -> Measurement:
        self.loads.append(load)
        limit = self.limits[load.variant]
        found = Measurement(planned=1000, sent=1000, seconds=load.seconds)
        if self.fault is not None:
            found.faults[self.fault] = 1000
            return found
        found.right = round(min(max(limit, 1), load.rate) * load.seconds)
        found.latency.record(20.0 if load.rate <= limit else 500.0)
        return found


def nothing(*_: Any) -> None:
    """No progress is shown."""


def contenders(url: str, own: tuple[str, ...], *others: str) -> list[Contender]:
    target = Target(url, MODELS, alive=lambda: None)
    return [Contender(n, target, n, own=n in own) for n in (*own, *others)]
