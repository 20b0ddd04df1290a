"""Counts that are told to Prometheus later: nothing is lost, and nothing told twice."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service import tally
from service.tally import Tallies

BOUNDS = (0.1, 1.0, 10.0)
VALUES = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 100))


class Counted:
    """A counter, a gauge and a histogram in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counter = Counter("asked", "", ["of"], registry=self.registry).labels("x")
        self.gauge = Gauge("waiting", "", ["of"], registry=self.registry).labels("x")
        self.histogram = Histogram(
            "seconds", "", ["of"], registry=self.registry, buckets=BOUNDS
        ).labels("x")

    def samples(self) -> list[str]:
        lines = generate_latest(self.registry).decode().splitlines()
        return [line for line in lines if "_created" not in line]


@given(st.lists(st.tuples(st.sampled_from(["count", "set", "observe", "tell"]), VALUES)))
def test_what_is_told_is_what_prometheus_would_have_counted(
    calls: list[tuple[str, float]],
) -> None:
    told, direct = Counted(), Counted()

    async def scenario() -> None:
        tallies = Tallies()
        counter, gauge = tallies.counter(told.counter), tallies.gauge(told.gauge)
        histogram = tallies.histogram(told.histogram)
        for name, value in calls:
            whole = round(value)  # sums of these are exact in any order
            if name == "count":
                counter.inc(whole)
                direct.counter.inc(whole)
            elif name == "set":
                gauge.set(value)
                direct.gauge.set(value)
            elif name == "observe":
                observed = value if value in BOUNDS[1:] else float(whole)
                histogram.observe(observed)
                direct.histogram.observe(observed)
            else:
                tallies.tell()
        tallies.tell()
        tallies.tell()

    asyncio.run(scenario())
    assert told.samples() == direct.samples()


def test_in_an_event_loop_it_is_told_within_the_interval() -> None:
    counted = Counted()

    async def scenario() -> tuple[float, float]:
        counter = Tallies().counter(counted.counter)
        counter.inc()
        counter.inc(2)
        before = counted.registry.get_sample_value("asked_total", {"of": "x"})
        await asyncio.sleep(1.5 * tally.INTERVAL)
        after = counted.registry.get_sample_value("asked_total", {"of": "x"})
        assert before is not None
        assert after is not None
        return before, after

    assert asyncio.run(scenario()) == (0, 3)


def test_without_an_event_loop_it_is_told_at_once() -> None:
    counted = Counted()
    histogram = Tallies().histogram(counted.histogram)
    histogram.observe(2)
    assert counted.registry.get_sample_value("seconds_sum", {"of": "x"}) == 2
