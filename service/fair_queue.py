"""The order in which texts that wait are run, such that big and small requests can live together.

    queue = FairQueue(quantum=512)
    queue.add(job)                    # a job: the texts of one request, tokenised
    batch = queue.take(2048)          # texts of at most 2,048 tokens, in the order of their turns
    queue.remove(job)                 # its client has gone

Small requests, of at most `quantum` tokens, run first come, first served. The others have their
turns in a circle, `quantum` tokens each (deficit round robin: Shreedhar and Varghese, 1996). While
there are both, small ones get three tokens for each one that the big ones get; what either does not
need, the other has. So a small request does not wait for the big ones before it to end, big ones
have a quarter of the machine however many small ones come, and a huge one does not hold up others.

Nothing here knows of time, threads or models: see `service/batcher.py`.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

SMALL_FOR_ONE_BIG = 3  # tokens


class Job:
    """The texts of one request that have not run yet, as numbers of tokens, first to last."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.waiting = deque(enumerate(lengths))  # (position in the request, tokens)
        self.tokens = sum(lengths)  # of what waits
        self.allowance = 0  # tokens that it may still run in this turn
        self.in_turn = False


J = TypeVar("J", bound=Job)


class FairQueue(Generic[J]):
    """Jobs in the order of their turns; see above."""

    def __init__(self, quantum: int) -> None:
        if quantum < 1:
            raise ValueError(f"quantum must be at least 1, got {quantum}")
        self.quantum = quantum
        self._small: OrderedDict[J, None] = OrderedDict()
        self._big: OrderedDict[J, None] = OrderedDict()
        self._small_tokens = self._big_tokens = 0  # that wait
        self._big_turns = 0  # tokens of one turn of each big job
        self._credit = 0.0  # tokens that the big jobs may run before the small ones go on

    @property
    def tokens(self) -> int:
        """That wait."""
        return self._small_tokens + self._big_tokens

    def tokens_before(self, tokens: int) -> float:
        """About how many run before a job of `tokens` that is added now has its first turn."""
        if tokens <= self.quantum:
            share = self._small_tokens / SMALL_FOR_ONE_BIG
            return self._small_tokens + min(self._big_tokens, share)
        return self._big_turns + min(self._small_tokens, self._big_turns * SMALL_FOR_ONE_BIG)

    def __len__(self) -> int:
        return len(self._small) + len(self._big)

    def __iter__(self) -> Iterator[J]:
        yield from self._small
        yield from self._big

    def add(self, job: J) -> None:
        """Lets `job` wait; one without texts never does."""
        if not job.waiting:
            return
        if job.tokens <= self.quantum:
            self._small[job] = None
            self._small_tokens += job.tokens
        else:
            self._big[job] = None
            self._count_big(job.tokens, self.quantum)

    def remove(self, job: J) -> None:
        """Takes `job` out with all that waits of it; nothing happens where it isn't in."""
        if job in self._small:
            del self._small[job]
            self._small_tokens -= job.tokens
        elif job in self._big:
            del self._big[job]
            self._count_big(-job.tokens, -min(job.tokens, self.quantum))

    def take(self, budget: int, taken: list[tuple[J, int]] | None = None) -> list[tuple[J, int]]:
        """The next texts, each as its job and position there: at most `budget` tokens in all, or a
        single text that is longer. Empty only where nothing waits. Where there is `taken`, they are
        added to it, and none is longer than the budget."""
        taken = [] if taken is None else taken
        if not self._big:
            self._credit = 0.0  # nothing is saved up for jobs that come later
        left = self._take_big(taken, budget, self._credit)
        self._credit -= budget - left
        waiting = bool(self._big)
        before = left
        left = self._take_small(taken, left)
        if waiting:
            self._credit += (before - left) / SMALL_FOR_ONE_BIG
        if not self._small:
            self._take_big(taken, left, math.inf)
        return taken

    def _take_small(self, taken: list[tuple[J, int]], left: int) -> int:
        """Takes small jobs until the next text does not fit; returns what is left of the budget."""
        while self._small:
            job = next(iter(self._small))
            while job.waiting:
                position, tokens = job.waiting[0]
                if tokens > left and taken:
                    return left
                left -= self._run(taken, job, position, tokens)
                self._small_tokens -= tokens
            del self._small[job]
        return left

    def _take_big(self, taken: list[tuple[J, int]], left: int, allowed: float) -> int:
        """The same with the turns of the big jobs, for at most `allowed` tokens of them."""
        while self._big:
            job = next(iter(self._big))
            position, tokens = job.waiting[0]
            if tokens > allowed or (tokens > left and taken):
                return left
            if not job.in_turn:
                job.in_turn = True
                job.allowance += self.quantum
            if tokens > job.allowance:
                job.in_turn = False
                self._big.move_to_end(job)
                continue
            turn = min(job.tokens, self.quantum)
            job.allowance -= tokens
            allowed -= tokens
            left -= self._run(taken, job, position, tokens)
            self._count_big(-tokens, min(job.tokens, self.quantum) - turn)
            if not job.waiting:
                del self._big[job]
        return left

    def _run(self, taken: list[tuple[J, int]], job: J, position: int, tokens: int) -> int:
        job.waiting.popleft()
        job.tokens -= tokens
        taken.append((job, position))
        return tokens

    def _count_big(self, tokens: int, turn: int) -> None:
        self._big_tokens += tokens
        self._big_turns += turn
