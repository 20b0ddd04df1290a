"""The plan of a load test and its execution: who carries how much, in windows taken in turn.

Every contender has one window, then every contender the next, so that a machine that slows down
does so for all; who starts changes from round to round. First each is warmed up and saturated, to
know where to look. Then come rounds: in each, a short search for the highest rate at which the
99th percentile stays within the objective and fewer than one request in a thousand fails. Rounds
go on until the ratios are known well enough or the time is up. At last, windows at fixed fractions
of each contender's capacity draw its curve of latency over load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any

import httpx

from loadtests.adapters import ADAPTERS
from loadtests.capacity import Interval, Search, geometric
from loadtests.errors import LoadTestError
from loadtests.measurement import Measurement
from loadtests.open_loop import REQUESTS_A_PROCESS, OpenLoop
from loadtests.sender import Load
from loadtests.target import Target
from loadtests.usage import Usage

MOST_ERRORS = 0.001  # share of requests that may fail in a window that passes
FRACTIONS = (0.25, 0.5, 0.7, 0.85, 0.95, 1.05, 1.2)  # of the capacity, for the curve
_STEPS, _MOST_STEPS = 4, 10  # windows of a search
_REQUESTS = 300  # of a window, or its 99th percentile is a matter of luck
_FEWEST_ROUNDS = 3  # with two, Student's interval says next to nothing
_SATURATING = 8  # connections
_SECONDS_TO_SETTLE = 5.0

Tick = Callable[[str, float], None]


@dataclass(frozen=True)
class Plan:
    """How the load test goes. `slo_ms` bounds the 99th percentile; `seconds` is a window's length,
    which low rates may stretch so many times; `budget` is the time of everything, in seconds;
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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"texts": str(self.texts) if self.texts else None}


@dataclass(frozen=True)
class Contender:
    """A model behind a server. `own` ones are variants of the service under test, the first of them
    the baseline; the others are compared with. `facts` is what is known of the model."""

    name: str
    target: Target
    variant: str
    own: bool = True
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Window:
    """`phase` is warm-up, search or curve; `at` counts seconds from the start of the test."""

    phase: str
    round: int
    contender: str
    rate: float
    at: float
    measurement: Measurement
    passed: bool
    cores: float | None = None
    rss_mib: float | None = None


class Campaign:
    """Carries out a plan. `windows`, `estimates` and `notes` hold what there is at any time, also
    where `run` was interrupted."""

    def __init__(self, plan: Plan, contenders: Sequence[Contender], generator: OpenLoop) -> None:
        self.plan = plan
        self.contenders = list(contenders)
        self.windows: list[Window] = []
        self.estimates: list[dict[str, float]] = []  # by round: requests/s by contender
        self.notes: dict[str, str] = {}
        self.usage = Usage({c.target.url: c.target.processes for c in contenders})
        self._generator = generator
        self._tick: Tick = lambda *_: None
        self._began = time.monotonic()

    def run(self, tick: Tick) -> None:
        """Calls `tick` several times a second with what is done now, and the seconds since the
        start.

        Raises LoadTestError where a server dies, answers nothing right, or none of the contenders
        meets the objective at any rate.
        """
        self._tick = tick
        starts = {contender.name: self._saturation(contender) for contender in self.contenders}
        while True:
            began = self._seconds
            self._round(len(self.estimates) + 1, starts)
            starts = {name: found.value for name, found in self.capacities().items()}
            if not starts:
                raise LoadTestError("; ".join(self.notes.values()))
            now = self._seconds
            late = now + (now - began) + self._curve_seconds > self.plan.budget
            if len(self.estimates) >= _FEWEST_ROUNDS and (late or self._known_well):
                break
        self._curve(starts)

    def capacities(self) -> dict[str, Interval]:
        """Requests/s that each contender carries, by name; those that carry none are left out."""
        found = {}
        for contender in self.contenders:
            each = [e[contender.name] for e in self.estimates if contender.name in e]
            if each:
                found[contender.name] = geometric(each)
        return found

    def ratios(self) -> dict[str, dict[str, Interval]]:
        """How many times more each own variant carries than the baseline and than every peer."""
        own = [c.name for c in self.contenders if c.own]
        others = [c.name for c in self.contenders if not c.own]
        found: dict[str, dict[str, Interval]] = {}
        for name in own:
            against = ([own[0]] if name != own[0] else []) + others
            for other in against:
                each = [e[name] / e[other] for e in self.estimates if name in e and other in e]
                if each:
                    found.setdefault(name, {})[other] = geometric(each)
        return found

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def _curve_seconds(self) -> float:
        return 1.2 * self.plan.seconds * len(self.plan.fractions) * len(self.contenders)

    @property
    def _known_well(self) -> bool:
        ratios = [ratio for against in self.ratios().values() for ratio in against.values()]
        return all(ratio.half_width <= self.plan.precision for ratio in ratios)

    def _saturation(self, contender: Contender) -> float:
        """Requests/s that come out where more than enough are waiting at any time."""
        rate = REQUESTS_A_PROCESS * self.plan.processes
        for number in range(2):  # in the first, caches fill and shapes are met
            window = self._window(
                contender, rate, "warm-up", number, seed="warm-up", connections=_SATURATING
            )
            found = window.measurement
            if not found.right:
                raise LoadTestError(_nothing_right(contender, found))
        return found.right / max(found.seconds, 1e-9)

    def _round(self, number: int, starts: dict[str, float]) -> None:
        # Not always the same rates: what lies between two of them would never be seen.
        scatter = Random(f"{self.plan.seed} {number}").uniform(0.92, 1.08)
        searches = {
            c.name: Search(starts[c.name] * (scatter if number > 1 else 0.8))
            for c in self.contenders
            if c.name in starts
        }
        for step in range(_MOST_STEPS):
            for contender in self._in_turn(number + step):
                search = searches.get(contender.name)
                if search is None or search.hopeless or (step >= _STEPS and not search.open):
                    continue
                seed = f"{number} {step}"
                window = self._window(contender, search.rate, "search", number, seed=seed)
                search.record(passed=window.passed)
        found = {}
        for name, search in searches.items():
            estimate = search.estimate
            if estimate is None:
                self.notes[name] = self._too_slow(name)
            else:
                found[name] = estimate if isfinite(estimate) else search.rate
        self.estimates.append(found)

    def _curve(self, capacities: dict[str, float]) -> None:
        for step, fraction in enumerate(self.plan.fractions):
            for contender in self._in_turn(step):
                if contender.name in capacities:
                    rate = fraction * capacities[contender.name]
                    self._window(contender, rate, "curve", step, seed=f"curve {step}")

    def _in_turn(self, number: int) -> list[Contender]:
        first = number % len(self.contenders)
        return self.contenders[first:] + self.contenders[:first]

    def _window(
        self,
        contender: Contender,
        rate: float,
        phase: str,
        number: int,
        *,
        seed: str,
        connections: int | None = None,
    ) -> Window:
        plan, target = self.plan, contender.target
        load = Load(
            target.url,
            adapter=target.adapter,
            variant=contender.variant,
            rate=rate,
            seconds=min(max(plan.seconds, _REQUESTS / rate), plan.stretch * plan.seconds),
            arrivals=plan.arrivals if connections is None else "even",
            workload=plan.workload,
            texts=plan.texts,
            batch=plan.batch,
            seed=f"{plan.seed} {seed}",
            timeout=plan.timeout,
            connections=connections or plan.connections,
            give_up_ms=plan.slo_ms if phase == "search" else None,
        )
        what = f"{phase} {number}: {contender.name} at {rate:,.0f} requests/s"
        if connections is not None:
            what = f"{phase}: {contender.name}"
        at = self._seconds

        def tick(_: float) -> None:
            self.usage.sample()
            self._tick(what, self._seconds)
            target.alive()

        def keep(measurement: Measurement) -> None:
            window = Window(phase, number, contender.name, rate, at, measurement, passed=False)
            self.windows.append(window)

        with self.usage.window(target.url) as usage:
            keep(self._generator.run(load, tick=tick, keep=keep))
        window = self.windows[-1]
        window.passed = passes(window.measurement, plan.slo_ms)
        window.cores, window.rss_mib = usage.cores, usage.rss_mib
        if window.measurement.faults:
            self._check(contender, window)
        if not window.passed:
            self._settle(contender)
        return window

    def _check(self, contender: Contender, window: Window) -> None:
        try:
            contender.target.check()
        except LoadTestError as error:
            window.measurement.complete = False
            raise LoadTestError(f"{contender.name} went away: {error}") from None

    def _settle(self, contender: Contender) -> None:
        """Waits until the requests that an overloaded server still has are done with."""
        adapter = ADAPTERS[contender.target.adapter]
        body = adapter.body(["Fine."], contender.variant)
        until = time.monotonic() + _SECONDS_TO_SETTLE
        while (now := time.monotonic()) < until:
            try:
                url = contender.target.url + adapter.path
                httpx.post(
                    url, json=body, timeout=_SECONDS_TO_SETTLE, verify=url.startswith("https")
                )
            except httpx.HTTPError:
                time.sleep(0.2)
                continue
            if time.monotonic() - now < self.plan.slo_ms / 2e3:
                break

    def _too_slow(self, name: str) -> str:
        """What the slowest windows of a contender said, for a reader who wonders."""
        mine = [w for w in self.windows if w.contender == name and w.phase == "search"]
        lowest = min(mine, key=lambda window: window.rate)
        found = lowest.measurement
        p99 = found.latency.percentile(99)
        took = "nothing was answered right" if p99 is None else f"99 % took up to {p99:.0f} ms"
        faults = "".join(f"; {n:,} × {fault}" for fault, n in found.faults.most_common(1))
        return (
            f"{name} meets no objective of {self.plan.slo_ms:g} ms, even at {lowest.rate:.2g} "
            f"requests/s: {took}{faults}; raise --slo-ms"
        )


def passes(found: Measurement, slo_ms: float) -> bool:
    """The window's 99th percentile is within the objective, and hardly a request failed."""
    p99 = found.latency.percentile(99)
    whole = found.complete and not found.gave_up and not found.cut
    return whole and p99 is not None and p99 <= slo_ms and found.error_share < MOST_ERRORS


def _nothing_right(contender: Contender, found: Measurement) -> str:
    if not found.faults:
        return f"{contender.name} answered nothing within {found.seconds:.0f} s; lower --batch"
    fault, times = found.faults.most_common(1)[0]
    total = found.faults.total()
    return f"all {total:,} requests to {contender.name} failed; {times:,} of them so: {fault}"
