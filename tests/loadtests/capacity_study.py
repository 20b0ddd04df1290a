"""How well a load test finds the ratio of two simulated servers, and how often it is right.

    python tests/loadtests/capacity_study.py

Servers whose limits are known, with random lengths, a machine that drifts from window to window and
stalls now and then (`Queues`), are put through whole load tests on a simulated clock. Compared are
the search of `loadtests/capacity.py`, and what it replaced: in each round a bisection of four
windows or more, and Student's t over the rounds. First it prints what the capacities are in windows
of other lengths.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp, log, sqrt
from statistics import fmean, median, stdev
from unittest import mock

import typer
from scipy.stats import t
from simulated import Queues, nothing, simulated_campaign

from loadtests.campaign import Campaign, passes
from loadtests.plan import Plan
from loadtests.sender import Load

LIMITS = {"dense": 140.0, "sparse": 195.0}
PLAN = Plan(slo_ms=200, precision=0).for_all(LIMITS)
BUDGETS = (60, 120, 240, 600)
LENGTHS = (1.0, 2.5, 5.0, 15.0)  # seconds of windows


def windows_pass(name: str, rate: float, seconds: float, *, times: int = 120) -> float:
    """The share of windows at `rate` that pass."""
    queues = Queues(LIMITS, seed=0)
    return fmean(_pass(queues, name, rate, f"{name} {rate} {i}", seconds) for i in range(times))


def _pass(queues: Queues, name: str, rate: float, seed: str, seconds: float = PLAN.seconds) -> bool:
    load = Load("", variant=name, rate=rate, seconds=seconds, seed=seed, give_up_ms=PLAN.slo_ms)
    return passes(queues.run(load), PLAN.slo_ms)


def true_capacity(name: str, seconds: float = PLAN.seconds) -> float:
    """Requests/s at which half of the windows pass, within about 1 %."""
    low, high = 0.3 * LIMITS[name], 1.2 * LIMITS[name]
    for _ in range(8):
        middle = sqrt(low * high)
        if windows_pass(name, middle, seconds) > 0.5:
            low = middle
        else:
            high = middle
    return sqrt(low * high)


def searched(budget: float, seed: int, precision: float = 0) -> tuple[float, float]:
    """Logarithm of the ratio, and half of its interval, as `crisp loadtest` finds it."""
    queues = Queues(LIMITS, seed)
    plan = replace(PLAN, budget=budget, seed=seed, precision=precision)
    campaign = simulated_campaign(plan, queues)
    with mock.patch.object(Campaign, "_settle"):
        campaign.run(nothing)
    found = campaign.ratios()["sparse"]["dense"]
    assert found.high is not None
    return log(found.value), log(found.high / found.value)


def bisected(budget: float, seed: int) -> tuple[float, float]:
    """The same by bisections, in the time that the budget leaves beside warm-up and curve."""
    queues = Queues(LIMITS, seed)
    starts, logs = dict(LIMITS), []
    until = budget - 4 * 3 - PLAN.curve_seconds(LIMITS.values())
    began = 0.0
    while len(logs) < 3 or queues.now + (queues.now - began) < until:
        began = queues.now
        found = {name: _bisection(queues, name, starts[name], len(logs), seed) for name in LIMITS}
        logs.append(log(found["sparse"] / found["dense"]))
        starts = found
    half = float(t.ppf(0.975, len(logs) - 1)) * stdev(logs) / sqrt(len(logs))
    return fmean(logs), half


def _bisection(queues: Queues, name: str, rate: float, number: int, seed: int) -> float:
    passed = failed = None
    factor = 1.15
    for step in range(10):
        if step >= 4 and passed and failed:
            break
        if _pass(queues, name, rate, f"{seed} {number} {step}"):
            passed = rate
        else:
            failed = rate
        if passed and failed:
            rate = sqrt(passed * failed)
        else:
            rate = rate * factor if passed else rate / factor
            factor **= 1.5
    return rate


def main(times: int = 50) -> None:
    """Prints what a capacity is by the length of windows, and a table."""
    for seconds in LENGTHS:
        dense, sparse = (true_capacity(name, seconds) for name in LIMITS)
        print(f"windows of {seconds:g} s: {dense:.0f} and {sparse:.0f}, {sparse / dense:.2f} to 1")
    truth = log(true_capacity("sparse") / true_capacity("dense"))
    print(f"the ratio is {exp(truth):.3f}; {times} load tests each; figures in %")
    print(
        "budget, s  search     typical error  half of interval  (worst of ten)  interval is right"
    )
    for budget in BUDGETS:
        for search in (bisected, searched):
            found = [search(budget, seed) for seed in range(times)]
            error = sqrt(fmean((value - truth) ** 2 for value, _ in found))
            halves = sorted(100 * (exp(half) - 1) for _, half in found)
            right = fmean(abs(value - truth) <= half for value, half in found)
            print(
                f"{budget:9}  {search.__name__:9}  {100 * error:13.1f}  {median(halves):16.1f}  "
                f"{halves[int(0.9 * len(halves))]:14.1f}  {100 * right:17.0f}"
            )


if __name__ == "__main__":
    typer.run(main)
