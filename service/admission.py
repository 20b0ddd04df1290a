"""Whether a request is let in: how long it would wait, and how much waits already.

A request that would wait too long is refused at once, before any work goes into it: otherwise an
overloaded service would spend itself on answers that come too late for anyone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from service.lanes import Lane, Run


@dataclass(frozen=True)
class Limits:
    """`batch_tokens` of one run, `queue_tokens` that may wait, `max_wait` in seconds for a turn,
    `runs_at_once` of all models."""

    batch_tokens: int = 2048
    queue_tokens: int = 65_536
    max_wait: float = 2.0
    runs_at_once: int = 1


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
    runs_at_once: int,
) -> float:
    """Seconds until a request of `tokens` that comes now has its first turn in `lane`.

    Before it are those whose turn in the lane is first, and what is left of the runs under way;
    meanwhile other lanes get as much time as this one, if they have work for it.
    """
    own = lane.speed.seconds(lane.queue.tokens_before(tokens) + lane.reserved)
    for run in running:
        spent = now - run.started if run.started else 0.0
        own += max(0.0, run.lane.speed.seconds(run.tokens) - spent)
    others = sum(
        min(other.speed.seconds(other.tokens), own)
        for other in lanes
        if other is not lane and other.tokens and not other.background
    )
    return (own + others) / runs_at_once


def check(lane: Lane[Any, Any], waiting: int, tokens: int, wait: float, limits: Limits) -> None:
    """Raises Refused where there is no room in `lane` for `tokens` more beside those `waiting` in
    all, with `wait` seconds before them. Where nothing waits, anything is let in, however big.
    """
    answer = wait + lane.speed.seconds(min(tokens, limits.batch_tokens))
    if answer > limits.max_wait and wait > 0:
        raise Refused("max_wait", wait, answer - limits.max_wait)
    if waiting and waiting + tokens > limits.queue_tokens:
        excess = waiting + tokens - limits.queue_tokens
        raise Refused("queue_full", wait, lane.speed.seconds(min(excess, waiting)))
