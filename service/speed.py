"""How fast the machine runs a model, from its latest runs: tokens a second.

Old runs fade away with a time constant of busy seconds, so that a host that gets slower, or texts
that get longer, are noticed within a few runs, and one odd run is not.
"""

from __future__ import annotations

from math import exp

_FADES_IN = 1.0  # seconds of runs after which a run counts for 1/e


class Speed:
    """Exponentially weighted tokens over exponentially weighted seconds."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    def ran(self, tokens: int, seconds: float) -> None:
        """Notes a run that took `seconds` of the machine: of its time, where it was alone."""
        kept = exp(-seconds / _FADES_IN)
        self._tokens = kept * self._tokens + tokens
        self._seconds = kept * self._seconds + seconds

    @property
    def tokens_per_second(self) -> float | None:
        """None before the first run."""
        return self._tokens / self._seconds if self._seconds > 0 else None

    def seconds(self, tokens: float) -> float:
        """That `tokens` will take; 0 where nothing is known yet."""
        return tokens * self._seconds / self._tokens if self._tokens else 0.0
