"""What one window of load found, in bounded memory: counts and HdrHistograms that can be added up.

Latency counts from the time at which a request was due, whether or not it could be sent then: a
server that stalls is charged for those who would have come meanwhile (what leaving them out hides
is known as coordinated omission). `service` counts from the moment it was sent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

_LONGEST_US = 600_000_000  # ten minutes
_DIGITS = 3
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
# Above this share of its core the generator cannot keep its times.
_BUSY = 0.9
# A request that leaves late looks slow: so much of the 99th percentile may be the generator's.
_LAG_SHARE, _LAG_MS = 0.1, 2.0


class Histogram:
    """Times in milliseconds, to a thousandth or three digits, in constant memory."""

    def __init__(self, encoded: str | None = None) -> None:
        self._counts = (
            HdrHistogram(1, _LONGEST_US, _DIGITS)
            if encoded is None
            else HdrHistogram.decode(encoded)
        )

    def record(self, milliseconds: float) -> None:
        self._counts.record_value(min(max(round(milliseconds * 1e3), 1), _LONGEST_US))

    def add(self, other: Histogram) -> None:
        self._counts.add(other._counts)

    @property
    def count(self) -> int:
        return int(self._counts.get_total_count())

    @property
    def mean(self) -> float | None:
        """In milliseconds; None where nothing was recorded."""
        if not self.count:
            return None
        # The library's own mean walks through every empty count, for a tenth of a second.
        counts, value = self._counts.counts, self._counts.get_value_from_index
        middle = self._counts._hdr_median_equiv_value
        filled = map(int, np.flatnonzero(np.ctypeslib.as_array(counts)))
        return float(sum(counts[i] * middle(value(i)) for i in filled)) / self.count / 1e3

    def percentile(self, percent: float) -> float | None:
        """The smallest time that `percent` % do not exceed; None where nothing was recorded."""
        if not self.count:
            return None
        return float(self._counts.get_value_at_percentile(percent)) / 1e3

    def percentiles(self) -> dict[str, float | None]:
        """By name, as in `p99` and `p99.9`."""
        return {f"p{percent:g}": self.percentile(percent) for percent in PERCENTILES}

    def encoded(self) -> str:
        """HdrHistogram's own compressed format in base64."""
        return str(self._counts.encode().decode())


@dataclass
class Measurement:
    """One window, or several added up.

    `planned` requests were due; `sent` of them left; `unsent` could not leave before the window
    ended, since all connections waited for answers; `cut` were under way when the window was ended
    early. Of the others `right` were answered right, `faults` counts what was wrong with the rest.
    `lag` is the delay of those that left late though a connection was free: the generator's own.
    `busy` is the share of its core that the busiest generator process used.
    """

    planned: int = 0
    sent: int = 0
    unsent: int = 0
    cut: int = 0
    right: int = 0
    texts: int = 0
    tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    busy: float = 0.0
    gave_up: bool = False
    complete: bool = True
    latency: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    parts: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))

    @property
    def failures(self) -> int:
        """Requests without a right answer; those that an early end cut off are neither."""
        return self.faults.total() + self.unsent

    @property
    def error_share(self) -> float:
        finished = self.right + self.failures
        return self.failures / finished if finished else 0.0

    @property
    def limited_by(self) -> str | None:
        """Why the generator, rather than the server, may have set the figures; None: it did not."""
        if self.busy > _BUSY:
            return f"the generator used {100 * self.busy:.0f} % of its core"
        lag, latency = self.lag.percentile(99), self.latency.percentile(99)
        if lag is not None and latency is not None and lag > max(_LAG_MS, _LAG_SHARE * latency):
            return f"1 % of the requests left more than {lag:.1f} ms late"
        return None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `from_dict` reads it back."""
        plain = {name: value for name, value in vars(self).items() if name not in _HISTOGRAMS}
        return plain | {
            "faults": dict(self.faults.most_common()),
            "parts": {name: histogram.encoded() for name, histogram in self.parts.items()},
            **{name: getattr(self, name).encoded() for name in _HISTOGRAMS},
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Measurement:
        histograms = {name: Histogram(content[name]) for name in _HISTOGRAMS}
        parts = defaultdict(Histogram, {k: Histogram(v) for k, v in content["parts"].items()})
        return cls(**content | histograms | {"parts": parts, "faults": Counter(content["faults"])})


_HISTOGRAMS = ("latency", "service", "lag")
_SUMS = ("planned", "sent", "unsent", "cut", "right", "texts", "tokens", "faults")


def side_by_side(measurements: Iterable[Measurement]) -> Measurement:
    """The sum of what several processes measured at the same time."""
    total = Measurement()
    for each in measurements:
        for name in _SUMS:
            setattr(total, name, getattr(total, name) + getattr(each, name))
        for name in _HISTOGRAMS:
            getattr(total, name).add(getattr(each, name))
        for name, histogram in each.parts.items():
            total.parts[name].add(histogram)
        total.seconds = max(total.seconds, each.seconds)
        total.busy = max(total.busy, each.busy)
        total.gave_up |= each.gave_up
        total.complete &= each.complete
    return total
