"""When the requests of a load test are sent: seeded arrival processes, planned before the first.

Times are seconds from the start, ascending, and end before `seconds`; they depend on nothing that
the server does. Each process has `rate` requests a second on average over these `seconds`, however
few they are: or a window's rate would not be the one that its capacity is searched at.

- `poisson`: independent clients; the gaps are exponential.
- `bursts`: one second in five has half of all requests, the others share the rest (Poisson both).
  Seconds are longer or shorter, so that whole fives fill the time.
- `ramp`: grows in a straight line from nothing to twice the rate (Poisson, thinned).
- `even`: one gap, always the same: only to look for effects of the clock.
- `replay:FILE`: as many gaps of a log as there are requests, from a place that the seed chooses,
  shortened or stretched to fill the time; after its end the log begins again. A line of it starts
  with a time: seconds, or a date and time as in ISO 8601; the rest of the line is ignored.

    times = arrivals("poisson", rate=50.0, seconds=5.0, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from itertools import accumulate, count, cycle, islice, pairwise, takewhile
from math import isfinite
from pathlib import Path
from random import Random

from loadtests.errors import LoadTestError

PROCESSES = ("poisson", "bursts", "ramp", "even")
REPLAY = "replay:"
_PERIOD, _BURST, _BURST_SHARE = 5.0, 1.0, 0.5  # seconds, seconds, share of the requests


def arrivals(process: str, *, rate: float, seconds: float, seed: int | str) -> Iterator[float]:
    """The times of the requests, the same for the same arguments.

    Raises LoadTestError where the process is unknown, its log unusable, or the rate is none.
    """
    if not 0 < rate < float("inf") or not seconds > 0:
        raise LoadTestError(
            f"expected a rate above 0 requests/s and a time above 0 s, got {rate:g} and {seconds:g}"
        )
    random = Random(f"{process} {seed}")
    if process.startswith(REPLAY):
        gaps = log_gaps(Path(process.removeprefix(REPLAY)))
        times = _replayed(random, gaps, rate * seconds, seconds)
    elif process == "poisson":
        times = _poisson(random, rate)
    elif process == "bursts":
        times = _thinned(random, *_bursts(rate, seconds))
    elif process == "ramp":
        times = _thinned(random, lambda t: 2 * rate * t / seconds, 2 * rate)
    elif process == "even":
        times = (number / rate for number in count())
    else:
        known = ", ".join([*PROCESSES, f"{REPLAY}FILE"])
        raise LoadTestError(f"unknown arrivals {process!r}; known: {known}")
    return takewhile(lambda time: time < seconds, times)


@lru_cache
def log_gaps(path: Path) -> tuple[float, ...]:
    """The gaps in seconds between the lines of a time-stamped log.

    Raises LoadTestError where the file cannot be read, has a line without a time, or a time that is
    before the one above it, or fewer than two different times.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise LoadTestError(f"cannot read the log {path}: {reason}") from None
    times: list[float] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        times.append(_time(line.split()[0], f"{path}, line {number}"))
        if len(times) > 1 and times[-1] < times[-2]:
            raise LoadTestError(f"{path}, line {number} is earlier than the one above; sort it")
    if len(times) < 2 or times[0] == times[-1]:
        raise LoadTestError(f"{path} has fewer than two different times, so there is no gap")
    return tuple(after - before for before, after in pairwise(times))


def _time(word: str, where: str) -> float:
    for read in (float, lambda w: datetime.fromisoformat(w).timestamp()):
        try:
            if isfinite(time := float(read(word))):
                return time
        except ValueError:
            continue
    raise LoadTestError(
        f"{where} starts with {word[:40]!r}; expected seconds or a date and time such as "
        "2026-11-25T12:00:00.250"
    )


def _poisson(random: Random, rate: float) -> Iterator[float]:
    time = 0.0
    while True:
        time += random.expovariate(rate)
        yield time


def _thinned(random: Random, rate_at: Callable[[float], float], most: float) -> Iterator[float]:
    """A Poisson process of a rate that changes: of one of rate `most`, each arrival stays with the
    probability that it should (Lewis and Shedler 1979)."""
    for time in _poisson(random, most):
        if random.random() * most < rate_at(time):
            yield time


def _bursts(rate: float, seconds: float) -> tuple[Callable[[float], float], float]:
    period = seconds / max(1, round(seconds / _PERIOD))
    burst = period * _BURST / _PERIOD
    high = rate * period * _BURST_SHARE / burst
    low = rate * period * (1 - _BURST_SHARE) / (period - burst)
    return lambda time: high if time % period < burst else low, high


def _replayed(
    random: Random, gaps: tuple[float, ...], requests: float, seconds: float
) -> Iterator[float]:
    first, number = random.randrange(len(gaps)), int(requests + random.random())
    after = [*accumulate(islice(cycle(gaps), first, first + number))]
    # All at once where the log has no time between them. The last is due at the end: on a circle
    # that is the start, so that none is lost.
    scale = seconds / (after[-1] or 1.0) if after else 0.0
    return iter(sorted(time * scale % seconds for time in after))
