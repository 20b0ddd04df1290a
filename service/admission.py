"""Whether a request is let in: when it would be answered, and how much waits already.

A request that would be answered too late is refused at once, before any work goes into it:
otherwise an overloaded service would spend itself on answers that come too late for anyone.

What is known of a request when it comes is an estimate. What that leaves out, above all the texts
that come later and share its run, and an event loop that is late because it refuses so many others,
is measured: `Margin` is how late the latest answers were against their estimates.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from service.lanes import Lane, Run


@dataclass(frozen=True)
class Limits:
    """`batch_tokens` of one run, `turn_tokens` of a request in its turn (where None, a quarter
    of a run), `queue_tokens` that may wait, `max_wait` in seconds for an answer
    where others are before it, `runs_at_once` of all models, and `ahead`: runs that wait for the
    end of one of those, so that nobody waits for the event loop then."""

    batch_tokens: int = 2048
    queue_tokens: int = 65_536
    max_wait: float = 2.0
    runs_at_once: int = 1
    ahead: int = 0
    turn_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let in `at` a time of the batcher's clock, and how many seconds after that
    its first turn (`wait`) and its answer (`answer`) were expected, the margin aside."""

    at: float
    wait: float
    answer: float


class Margin:
    """Seconds by which all but one in a hundred of the latest answers were later than expected, and
    a sixteenth of `max_wait` for what is not seen here: the answer's way to the client.

    At most half of `max_wait`, so that there is always room for somebody.
    """

    _KEPT = 256  # answers: a few seconds of overload
    _RENEWED = 16  # answers after which it is computed anew

    def __init__(self, max_wait: float) -> None:
        self._way, self._most = max_wait / 16, max_wait / 2
        self._late: deque[float] = deque(maxlen=self._KEPT)
        self._new = 0
        self.seconds = self._way

    def answered(self, seconds_late: float) -> None:
        """Notes an answer that had to wait; one that came early counts as well."""
        self._late.append(seconds_late)
        self._new += 1
        if self._new >= self._RENEWED:
            self._new = 0
            ordered = sorted(self._late)
            latest = ordered[math.ceil(0.99 * len(ordered)) - 1]
            self.seconds = min(self._way + max(0.0, latest), self._most)


class Refused(Exception):
    """There is no room for the request: `reason` is max_wait or queue_full, `retry_after` the
    seconds, at least 1, after which there may be."""

    def __init__(self, reason: str, wait: float, retry_after: float) -> None:
        super().__init__(f"{reason}: estimated wait {wait:.2f} s")
        self.reason = reason
        self.wait = wait
        self.retry_after = max(1, math.ceil(retry_after))


def estimated_wait(
    lane: Lane[Any, Any],
    lanes: Iterable[Lane[Any, Any]],
    running: Iterable[Run[Any, Any]],
    tokens: int,
    now: float,
) -> float:
    """Seconds until a request of `tokens` that comes now has its first turn in `lane`.

    Before it are those whose turn in the lane is first, and what is left of the runs under way;
    meanwhile other lanes get as much time as this one, if they have work for it.
    """
    own = lane.speed.seconds(lane.queue.tokens_before(tokens) + lane.reserved)
    for run in running:
        spent = 0.0 if run.started is None else (now - run.started) / run.beside
        own += max(0.0, run.lane.speed.seconds(run.tokens) - spent)
    others = 0.0
    for other in lanes:
        if other is not lane and other.tokens and not other.background:
            others += min(other.speed.seconds(other.tokens), own)
    return own + others


def check(
    lane: Lane[Any, Any], waiting: int, tokens: int, wait: float, margin: float, limits: Limits
) -> float:
    """The seconds until a request of `tokens` is answered, or has had its first turn if it is big,
    with `wait` seconds until that turn. Raises Refused where that, and `margin`, is too long, or
    where there is no room for it beside the tokens `waiting` in all. Where nothing waits, anything
    is let in, however big.
    """
    answer = wait + lane.speed.seconds(min(tokens, limits.batch_tokens)) * limits.runs_at_once
    if answer + margin > limits.max_wait and wait > 0:
        raise Refused("max_wait", wait, answer + margin - limits.max_wait)
    if waiting and waiting + tokens > limits.queue_tokens:
        excess = waiting + tokens - limits.queue_tokens
        raise Refused("queue_full", wait, lane.speed.seconds(min(excess, waiting)))
    return answer
