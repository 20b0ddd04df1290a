"""The plan of a load test, and how it is cut to the time that there is.

plan = Plan(slo_ms=200, budget=240)
plan.least(contenders=4)                  # seconds below which there is no answer
plan.for_all({"dense": 130.0, ...})       # after the warm-up: windows of one length
plan.cut_to(180.0, {"dense": 130.0, ...}) # the same, and a curve, that fit
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from loadtests.errors import LoadTestError
from loadtests.files import shown

FRACTIONS = (0.25, 0.5, 0.7, 0.85, 0.95, 1.05, 1.2)  # of the capacity, for the curve
FEW_FRACTIONS = (0.3, 0.6, 0.85, 1.05)  # where there is no time for more
FEWEST_ROUNDS = 6  # with fewer windows of each, next to nothing is known
# Windows of each, in which caches fill and shapes are met: so many, and more where they differ.
WARM_UPS, MOST_WARM_UPS = 2, 6
_WARMING = 0.15  # share of the budget, after which nobody gets more than those
_ROUNDS = 20  # for which the time should do, before the curve gets fewer points
_FEW_ROUNDS = 12  # the same, before windows are shortened
_REQUESTS = 300  # of a window, or its 99th percentile is a matter of luck
_SHORTEST = 1.0  # seconds of a window, unless a shorter one was asked for
# Shares of a window's length that are tried.
_STEPS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
_BETWEEN = 0.4  # seconds between windows: texts are made, the last answers awaited
_FULL = 0.8  # share of its length that a window of a search takes: half of them end early
_CAPACITY = 0.7  # of the rate at saturation, before more is known
_NEAR = 0.8  # of the capacity: from here on, windows of the curve fail now and then


@dataclass(frozen=True)
class Plan:
    """How the load test goes. `slo_ms` bounds the 99th percentile; `seconds` is a window's length,
    which a low rate may stretch so many times; `budget` is the time of everything, in seconds;
    `precision` is the half-width of the ratios' intervals that ends it sooner. The other fields
    are those of `Load`."""

    slo_ms: float = 100.0
    seconds: float = 5.0
    stretch: float = 3.0
    budget: float = 600.0
    precision: float = 0.05
    fractions: tuple[float, ...] = FRACTIONS
    arrivals: str = "poisson"
    workload: str = "sst"
    texts: Path | None = None
    batch: int = 1
    seed: int = 0
    processes: int = 1
    connections: int = 400

    @property
    def timeout(self) -> float:
        """Seconds after which an answer is none: far beyond the objective."""
        return max(10.0, 10 * self.slo_ms / 1e3)

    @property
    def shortest(self) -> float:
        """Seconds of the shortest window."""
        return min(_SHORTEST, self.seconds)

    @property
    def warm_up_seconds(self) -> float:
        """Of a window that warms a server up; the budget is not spent on it."""
        return min(self.seconds, 3.0)

    def warming_up(self, contenders: int) -> float:
        """Seconds after which a contender's warm-up gets no further window."""
        return _WARMING * self.budget / contenders

    def least(self, contenders: int) -> float:
        """Seconds that the shortest test of so many contenders takes, about."""
        windows = WARM_UPS + FEWEST_ROUNDS + len(_few(self.fractions))
        return contenders * windows * (self.shortest + _BETWEEN)

    def check(self, contenders: int) -> None:
        """Raises LoadTestError where the budget is too short for so many contenders."""
        least = self.least(contenders)
        if self.budget < least:
            who = "one contender needs" if contenders == 1 else f"{contenders} need"
            raise LoadTestError(
                f"a budget of {self.budget:g} s is too short: {who} {least:.0f} s at least; raise "
                "--budget, or compare fewer"
            )

    def length(self, fraction: float, capacity: float) -> float:
        """Seconds of a window of the curve: as in the search where it tells of the capacity, and
        longer where a low rate would leave it few requests."""
        if fraction >= _NEAR:
            return self.seconds
        wanted = _REQUESTS / (fraction * capacity)
        return min(max(self.seconds, wanted), self.stretch * self.seconds)

    def for_all(self, saturated: Mapping[str, float]) -> Plan:
        """The plan with `seconds` that do for all: the slowest contender has requests enough.

        `saturated` is the rate of each under too much load, in requests/s. All are searched with
        one length, since a short window ends before a backlog has grown, and so makes a capacity
        larger. It is a multiple of what was asked for, so that another run comes to the same one
        and can be compared with.
        """
        slowest = _CAPACITY * min(saturated.values())
        times = max(1, min(ceil(_REQUESTS / slowest / self.seconds), self.stretch))
        return replace(self, seconds=times * self.seconds, stretch=self.stretch / times)

    def cut_to(self, seconds: float, saturated: Mapping[str, float]) -> Plan:
        """The plan `for_all`, with windows, and a curve, for which `seconds` should do.

        What goes first is detail of the curve, then the length of the windows; the search stays.
        """
        plan = whole = self.for_all(saturated)
        rates = [_CAPACITY * rate for rate in saturated.values()]
        for fractions in (self.fractions, _few(self.fractions)):
            plan = replace(whole, fractions=fractions)
            if plan._takes(rates, _ROUNDS) <= seconds:
                return plan
        for share in _STEPS:
            length = max(self.shortest, share * whole.seconds)
            plan = replace(plan, seconds=length, stretch=max(1.0, share * whole.stretch))
            if plan._takes(rates, _FEW_ROUNDS) <= seconds:
                return plan
        return replace(plan, seconds=self.shortest, stretch=1.0)

    def curve_seconds(self, capacities: Iterable[float]) -> float:
        """What the windows take that draw latency over load."""
        lengths = (self.length(f, each) for each in capacities for f in self.fractions)
        return sum(length + _BETWEEN for length in lengths)

    def to_dict(self) -> dict[str, Any]:
        """As reports have it, which leave out folders of the machine."""
        texts = shown(str(self.texts)) if self.texts else None
        return asdict(self) | {"texts": texts, "arrivals": shown(self.arrivals)}

    def _takes(self, rates: list[float], rounds: int) -> float:
        search = len(rates) * rounds * (_FULL * self.seconds + _BETWEEN)
        return search + self.curve_seconds(rates)


def _few(fractions: tuple[float, ...]) -> tuple[float, ...]:
    return fractions if len(fractions) <= len(FEW_FRACTIONS) else FEW_FRACTIONS
