"""Counts kept in this process and told to Prometheus a few times a second.

    tallies = Tallies()
    answered = tallies.counter(metrics.requests.labels("sparse", "ok"))
    answered.inc()
    tallies.tell()                    # at once, and not within INTERVAL seconds

A count that several processes share goes into a file, under a lock, after asking the system which
process this is: a dozen of them for each request took a tenth of the time that it spends in Python.
What has not been told yet is lost where the process is killed.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left

from prometheus_client import Counter, Gauge, Histogram

INTERVAL = 0.25  # seconds


class Tallies:
    """What was counted and not told yet. All calls come from one thread; where an event loop runs
    in it, everything is told within INTERVAL seconds, else at once."""

    def __init__(self) -> None:
        self._changed: list[_Tally] = []

    def counter(self, child: Counter) -> CounterTally:
        return CounterTally(self, child)

    def gauge(self, child: Gauge) -> GaugeTally:
        return GaugeTally(self, child)

    def histogram(self, child: Histogram) -> HistogramTally:
        return HistogramTally(self, child)

    def tell(self) -> None:
        """Tells Prometheus everything."""
        changed, self._changed = self._changed, []
        for tally in changed:
            tally.changed = False
            tally.tell()

    def note(self, tally: _Tally) -> None:
        """Remembers that `tally` has something to tell."""
        tally.changed = True
        self._changed.append(tally)
        if len(self._changed) == 1:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self.tell()
            else:
                loop.call_later(INTERVAL, self.tell)


class _Tally:
    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self.changed = False

    def tell(self) -> None:
        raise NotImplementedError


class CounterTally(_Tally):
    """As `prometheus_client.Counter`."""

    def __init__(self, tallies: Tallies, child: Counter) -> None:
        super().__init__(tallies)
        self._child = child
        self._sum = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self._sum += amount
        if not self.changed:
            self._tallies.note(self)

    def tell(self) -> None:
        self._child.inc(self._sum)
        self._sum = 0.0


class GaugeTally(_Tally):
    """As `prometheus_client.Gauge`; of the values of an interval the last one counts."""

    def __init__(self, tallies: Tallies, child: Gauge) -> None:
        super().__init__(tallies)
        self._child = child
        self._value = 0.0

    def set(self, value: float) -> None:
        self._value = value
        if not self.changed:
            self._tallies.note(self)

    def tell(self) -> None:
        self._child.set(self._value)


class HistogramTally(_Tally):
    """As `prometheus_client.Histogram`."""

    def __init__(self, tallies: Tallies, child: Histogram) -> None:
        super().__init__(tallies)
        self._child = child
        self._bounds: list[float] = list(child._upper_bounds)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value
        if not self.changed:
            self._tallies.note(self)

    def tell(self) -> None:
        # Histogram.observe for many values at once, for which the class has no method.
        for i, count in enumerate(self._counts):
            if count:
                self._child._buckets[i].inc(count)
                self._counts[i] = 0
        self._child._sum.inc(self._sum)
        self._sum = 0.0
