"""A load test's execution: who carries how much, in windows taken in turn.

First each contender is warmed up and saturated, to know where to look. Then come rounds: in each,
every contender has one window, so that a machine that slows down does so for all, and all get the
same texts and arrivals, for the same time; who starts changes from round to round. A window passes
where its 99th percentile stays within the objective and fewer than one request in a thousand fails.
Its rate is chosen from all windows before it (loadtests/capacity.py). Rounds go on until the ratios
are known well enough or the time is up. At last, windows at fixed fractions of each contender's
capacity draw its curve of latency over load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from loadtests import remarks
from loadtests.adapters import ADAPTERS
from loadtests.capacity import Interval, Search, ratio
from loadtests.errors import LoadTestError
from loadtests.measurement import Measurement
from loadtests.open_loop import REQUESTS_A_PROCESS, OpenLoop
from loadtests.plan import FEWEST_ROUNDS, MOST_WARM_UPS, WARM_UPS, Plan
from loadtests.sender import Load
from loadtests.target import Target
from loadtests.usage import Usage

MOST_ERRORS = 0.001  # share of requests that may fail in a window that passes
_FLAT = 0.35  # width, in logarithms of the rate, of an objective that load hardly decides
_SATURATING = 8  # connections
_STEADY = 0.05  # by what two windows of a server that is warm differ, at most
_SECONDS_TO_SETTLE = 5.0

Tick = Callable[[str, float], None]


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
    """`phase` is warm-up, search or curve; `at` counts seconds from the start of the test, `took`
    those until the next window could begin."""

    phase: str
    round: int
    contender: str
    rate: float
    at: float
    measurement: Measurement
    passed: bool
    took: float = 0.0
    cores: float | None = None
    rss_mib: float | None = None


class Campaign:
    """Carries out a plan. `windows`, `searches` and `notes` hold what there is at any time, also
    where `run` was interrupted; `plan` is what became of the one that was given, once it is known
    how long its windows take.

    Raises LoadTestError where the budget is too short for so many contenders.
    """

    def __init__(
        self,
        plan: Plan,
        contenders: Sequence[Contender],
        generator: OpenLoop,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        plan.check(len(contenders))
        self.plan = plan
        self.contenders = list(contenders)
        self.windows: list[Window] = []
        self.searches: dict[str, Search] = {}
        self.rounds = 0
        self.notes: dict[str, str] = {}
        self.usage = Usage({c.target.url: c.target.processes for c in contenders})
        self._generator = generator
        self._tick: Tick = lambda *_: None
        self._clock, self._began = clock, clock()

    def run(self, tick: Tick) -> None:
        """Calls `tick` several times a second with what is done now, and the seconds since the
        start.

        Raises LoadTestError where a server dies, answers nothing right, or none of the contenders
        meets the objective at any rate.
        """
        self._tick = tick
        saturated = {contender.name: self._saturation(contender) for contender in self.contenders}
        self.searches = {name: Search(rate) for name, rate in saturated.items()}
        self._cut(saturated)
        while self._may_go_on:
            self._round()
            if all(search.hopeless for search in self.searches.values()):
                break
        found = self.capacities()
        for name, search in self.searches.items():
            if name not in found:
                mine = [w for w in self.windows if w.contender == name and w.phase == "search"]
                slow = min(mine, key=lambda window: window.rate)
                self.notes[name] = remarks.too_slow(
                    name, self.plan.slo_ms, slow.rate, slow.measurement
                )
            elif search.width > _FLAT:
                self.notes[name] = remarks.flat(name, self.plan.slo_ms)
        if not found:
            raise LoadTestError("; ".join(self.notes[name] for name in self.searches))
        self._curve({name: interval.value for name, interval in found.items()})

    def capacities(self) -> dict[str, Interval]:
        """Requests/s that each contender carries, by name; those that carry none are left out."""
        found = {name: search.capacity for name, search in self.searches.items()}
        return {name: interval for name, interval in found.items() if interval is not None}

    def ratios(self) -> dict[str, dict[str, Interval]]:
        """How many times more each own variant carries than the baseline and than every peer."""
        own = [c.name for c in self.contenders if c.own]
        others = [c.name for c in self.contenders if not c.own]
        found: dict[str, dict[str, Interval]] = {}
        for name in own:
            against = ([own[0]] if name != own[0] else []) + others
            for other in against:
                if name in self.searches and other in self.searches:
                    interval = ratio(self.searches[name], self.searches[other])
                    if interval is not None:
                        found.setdefault(name, {})[other] = interval
        return found

    @property
    def _seconds(self) -> float:
        return self._clock() - self._began

    def _cut(self, saturated: dict[str, float]) -> None:
        """Gives the search one length of windows; shortens what would not fit into the rest of the
        budget, and says so."""
        plan = self.plan.cut_to(self.plan.budget - self._seconds, saturated)
        if plan != self.plan.for_all(saturated):
            self.notes["the budget"] = (
                f"To keep to {plan.budget:g} s for {len(self.contenders)} contenders, windows are "
                f"{plan.seconds:.2g} s long, and up to {plan.stretch * plan.seconds:.2g} s where "
                f"the rate is low; the curve has {len(plan.fractions)} points; raise --budget for "
                "sharper answers."
            )
        self.plan = plan

    @property
    def _may_go_on(self) -> bool:
        """Another round fits into the budget, and would tell something."""
        if self.rounds < FEWEST_ROUNDS:
            return True
        spent = [w.took for w in self.windows if w.phase == "search"]
        round_seconds = sum(spent) / self.rounds
        curve = self.plan.curve_seconds(found.value for found in self.capacities().values())
        if self._seconds + round_seconds + curve > self.plan.budget:
            return False
        return not self._known_well

    @property
    def _known_well(self) -> bool:
        ratios = [ratio for against in self.ratios().values() for ratio in against.values()]
        wanted = ratios or list(self.capacities().values())
        return bool(wanted) and all(i.half_width <= self.plan.precision for i in wanted)

    def _saturation(self, contender: Contender) -> float:
        """Requests/s that come out where more than enough are waiting at any time, once they do not
        become more any more."""
        rate, seconds = REQUESTS_A_PROCESS * self.plan.processes, self.plan.warm_up_seconds
        until = self._seconds + self.plan.warming_up(len(self.contenders))
        rates: list[float] = []
        for number in range(MOST_WARM_UPS):
            window = self._window(
                contender, rate, seconds, "warm-up", number, seed="warm-up", connections=_SATURATING
            )
            found = window.measurement
            if not found.right:
                raise LoadTestError(remarks.nothing_right(contender.name, found))
            rates.append(found.right / max(found.seconds, 1e-9))
            if len(rates) < WARM_UPS:
                continue
            if abs(rates[-1] / rates[-2] - 1) <= _STEADY:
                return rates[-1]
            if self._seconds > until:
                break
        self.notes[f"{contender.name}, warming up"] = remarks.unsteady(contender.name, rates)
        return rates[-1]

    def _round(self) -> None:
        self.rounds += 1
        seconds, seed = self.plan.seconds, f"round {self.rounds}"
        for contender in self._in_turn(self.rounds):
            search = self.searches[contender.name]
            if not search.hopeless:
                self._window(contender, search.rate, seconds, "search", self.rounds, seed=seed)

    def _curve(self, capacities: dict[str, float]) -> None:
        for step, fraction in enumerate(self.plan.fractions):
            for contender in self._in_turn(step):
                if contender.name in capacities:
                    capacity = capacities[contender.name]
                    rate, seconds = fraction * capacity, self.plan.length(fraction, capacity)
                    self._window(contender, rate, seconds, "curve", step, seed=f"curve {step}")

    def _in_turn(self, number: int) -> list[Contender]:
        first = number % len(self.contenders)
        return self.contenders[first:] + self.contenders[:first]

    def _window(
        self,
        contender: Contender,
        rate: float,
        seconds: float,
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
            seconds=seconds,
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
        if phase != "warm-up":
            self._note_connections(window)
            self.searches[contender.name].record(rate, passed=window.passed, label=seed)
        if not window.passed:
            self._settle(contender)
        window.took = self._seconds - at
        return window

    def _note_connections(self, window: Window) -> None:
        name, plan = window.contender, self.plan
        note = remarks.few_connections(name, plan.slo_ms, window.measurement, plan.connections)
        if note is not None and not window.passed:
            self.notes[f"{name}, connections"] = note

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


def passes(found: Measurement, slo_ms: float) -> bool:
    """The window's 99th percentile is within the objective, and hardly a request failed."""
    p99 = found.latency.percentile(99)
    whole = found.complete and not found.gave_up and not found.cut
    return whole and p99 is not None and p99 <= slo_ms and found.error_share < MOST_ERRORS
