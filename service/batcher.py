"""Runs the texts of many requests together: as many in each run as a token budget holds.

    batcher = Batcher(execute, Limits(batch_tokens=2048))
    lane = batcher.lane("sparse", engine)
    with batcher.admitted(lane, about_tokens) as admission:        # or raises Refused, at once
        sequences = tokenize(texts)
    rows, spent = await batcher.submit(lane, sequences, deadline, admission)

What it promises, whatever comes (`tests/service/test_batcher.py` simulates it):

- An idle model never waits: a request that comes alone runs at once. While a run is under way, what
  comes meanwhile is gathered for the next one, until that begins.
- A run holds texts of one model and at most `batch_tokens` tokens, or a single text that is longer.
- Requests have their turns in a fair order (`service/fair_queue.py`), and so have models: the next
  run is that of the model which has used the least time since it has been busy.
- Where a run fails, its halves are tried, and theirs: only a text that fails alone fails its
  request, and no other's.
- A request that is cancelled leaves nothing behind but what runs already, or next.
- Work in the background runs only while nothing else waits.

It lives in one event loop and knows nothing of HTTP, tokenizers or ONNX: `execute` runs a model.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Generic

from service.admission import Admission, Limits, Margin, check, estimated_wait
from service.lanes import Expired, Ids, Lane, M, Observer, R, Request, Run, Spent

_TURNS_IN_A_RUN = 4  # of a request that has many texts: others share the run with it


class Batcher(Generic[M, R]):
    """See above. `execute(model, begin, seconds)` gives a result for each of the sequences that
    `begin()` gives, in order; it calls that when it begins to run them, from any thread, so that
    texts can join until then. `seconds` is how long it may block the event loop, because nobody
    else is there: about what it will take, or None where it must not block at all. `lag` says how
    late the event loop was of late."""

    def __init__(
        self,
        execute: Callable[[M, Callable[[], Sequence[Ids]], float | None], Awaitable[Sequence[R]]],
        limits: Limits,
        observer: Observer | None = None,
        clock: Callable[[], float] = perf_counter,
        lag: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.limits = limits
        self.margin = Margin(limits.max_wait)
        self.lanes: list[Lane[M, R]] = []
        self._execute = execute
        self._observer = observer
        self._clock = clock
        self._lag = lag
        self.running: set[Run[M, R]] = set()
        self._ahead: deque[Run[M, R]] = deque()
        self._again: deque[Run[M, R]] = deque()  # halves of runs that failed
        self._due = False
        self._lanes_clock = 0.0  # the `used` of the lane that ran last, when it began

    def lane(self, name: str, model: M, *, background: bool = False) -> Lane[M, R]:
        """A new queue for `model`, which is as fast as the last one of this name until it ran."""
        quantum = self.limits.turn_tokens or max(1, self.limits.batch_tokens // _TURNS_IN_A_RUN)
        lane: Lane[M, R] = Lane(name, model, quantum, background)
        for other in self.lanes:
            if other.name == name:
                lane.speed = copy.copy(other.speed)
        self.lanes.append(lane)
        return lane

    def retire(self, lane: Lane[M, R]) -> None:
        """Lets go of `lane` and its model as soon as nothing that it has admitted is left."""
        lane.retired = True
        self._leave(lane, 0)

    @contextmanager
    def keeping(self, lane: Lane[M, R]) -> Iterator[None]:
        """Keeps `lane` and its model until the end of the block, even if it is retired."""
        lane.users += 1
        try:
            yield
        finally:
            self._leave(lane, 1)

    # Admission.

    @property
    def waiting(self) -> int:
        """Tokens that wait, or are about to, those in the background aside."""
        tokens = 0  # no generators here: this is asked several times for each request
        for run in self._ahead:
            tokens += run.wanted
        for lane in self.lanes:
            if not lane.background:
                tokens += lane.tokens
        return tokens

    def wait(self, lane: Lane[M, R], tokens: int = 0) -> float:
        """Estimated seconds until a request of `tokens` that comes now has its first turn."""
        runs = (*self.running, *self._ahead, *self._again)
        return estimated_wait(lane, self.lanes, runs, tokens, self._clock())

    @contextmanager
    def admitted(self, lane: Lane[M, R], tokens: int) -> Iterator[Admission]:
        """Keeps room for about `tokens`, which `submit` brings at the end; or raises Refused.

        Where nothing waits, anything is admitted, however big it is.
        """
        admission = self.check(lane, tokens)
        lane.reserved += tokens
        lane.users += 1
        try:
            yield admission
        finally:
            lane.reserved -= tokens
            self._leave(lane, 1)

    def check(self, lane: Lane[M, R], tokens: int = 0) -> Admission:
        """Raises Refused where there is no room for about `tokens` in `lane` now."""
        wait = self.wait(lane, tokens)
        answer = check(lane, self.waiting, tokens, wait, self.margin.seconds, self.limits)
        return Admission(self._clock(), wait, answer)

    def _leave(self, lane: Lane[M, R], users: int) -> None:
        lane.users -= users
        if lane.retired and not lane.users and lane in self.lanes:
            self.lanes.remove(lane)

    # Work.

    async def submit(
        self,
        lane: Lane[M, R],
        sequences: Sequence[Ids],
        deadline: float | None = None,
        admission: Admission | None = None,
    ) -> tuple[list[R], Spent]:
        """What the model says of each sequence, once all have run.

        Raises Expired at `deadline`, a time of the event loop, or earlier where its turn does not
        come soon enough for an answer within `max_wait` of its `admission` after all; and whatever
        `execute` raises where one of the sequences fails by itself.
        """
        if not sequences:
            return [], Spent(0.0, 0.0)
        loop = asyncio.get_running_loop()
        request: Request[M, R] = Request(lane, sequences, self._clock())
        if not lane.background:
            request.expire_at(loop.time() + self._patience(request, admission), deadline)
        if not lane.queue.tokens:  # a model that was idle has saved up no time
            lane.used = max(lane.used, self._lanes_clock)
        lane.users += 1
        lane.queue.add(request)
        self._soon()
        try:
            await request.done
        except Expired:
            self._note(request, admission)
            raise
        finally:
            request.leave()
            if request.missing:
                for run in self._ahead:
                    run.leave(request)
            self._leave(lane, 1)
        self._note(request, admission)
        rows: list[R] = request.rows  # type: ignore[assignment]  # none is missing now
        running = request.running
        return rows, Spent(max(0.0, self._clock() - request.added - running), running)

    def _patience(self, request: Request[M, R], admission: Admission | None) -> float:
        """Seconds from now on within which `request` must have its first turn."""
        most = self.limits.max_wait
        if admission is not None and admission.wait:
            most -= request.added - admission.at
        lane, budget = request.lane, self.limits.batch_tokens
        run = lane.speed.seconds(min(budget, lane.queue.tokens + request.tokens))
        run *= self.limits.runs_at_once
        return most - min(run + self._lag(), self.limits.max_wait / 2)

    def _note(self, request: Request[M, R], admission: Admission | None) -> None:
        """Remembers how late a request was that had to wait: its answer, or the first of the many
        turns of a big one."""
        if admission is None or not admission.wait:
            return
        at, expected = self._clock(), admission.answer
        if request.size > request.lane.queue.quantum:
            at, expected = request.began or at, admission.wait
        late = at - admission.at - expected
        self.margin.answered(late + self._lag())  # before it was let in the loop was as late

    def tell(self) -> None:
        """Tells the observer what waits in every lane."""
        if self._observer:
            for lane in self.lanes:
                if not lane.background:
                    same = [each for each in self.lanes if each.name == lane.name]
                    front = [each for each in same if not each.background]
                    ahead = [run for run in self._ahead if run.lane in front]
                    texts = [text for run in ahead for text in run.live]
                    whole = {request for request, _ in texts if not request.tokens}
                    requests = len(whole) + sum(len(each.queue) for each in front)
                    tokens = sum(run.wanted for run in ahead) + sum(each.tokens for each in front)
                    self._observer.queued(lane.name, requests, tokens)

    @property
    def _free(self) -> bool:
        given = len(self.running) + len(self._ahead)
        return given < self.limits.runs_at_once + self.limits.ahead

    def _soon(self) -> None:
        """Starts what can run when all that the event loop has in hand has been added."""
        if not self._due and (self._free or self._ahead):
            self._due = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._due = False
        for each in self._ahead:
            each.join(self.limits.batch_tokens)
        while self._free and (run := self._next()):
            self._ahead.append(run)
            self._begin()
            alone = len(self.running) == 1 and not self._ahead and not self.waiting
            known = alone and run.lane.speed.tokens_per_second is not None
            seconds = run.lane.speed.seconds(run.tokens) if known else None
            execution = asyncio.ensure_future(self._execute(run.lane.model, run.begin, seconds))
            execution.add_done_callback(partial(self._finished, run))

    def _begin(self) -> None:
        """Notes what has begun now, at the latest: `execute` begins runs in the order given."""
        while self._ahead and len(self.running) < self.limits.runs_at_once:
            run = self._ahead.popleft()
            run.started = self._clock()
            self.running.add(run)
            run.beside = len(self.running)
            for request, _ in run.texts:
                if request.began is None:
                    request.began = run.started
                    if self._observer and not run.lane.background:
                        self._observer.waited(run.lane.name, request.began - request.added)

    def _next(self) -> Run[M, R] | None:
        while self._again:
            run = self._again.popleft()
            if live := run.live:
                return Run(run.lane, live)
        waiting = [lane for lane in self.lanes if lane.queue.tokens]
        front = [lane for lane in waiting if not lane.background]
        if not waiting or (self.running and not front):
            return None
        lane = min(front or waiting, key=lambda lane: lane.used)
        self._lanes_clock = max(self._lanes_clock, lane.used)
        budget = self.limits.batch_tokens
        if lane.background:
            return Run(lane, lane.queue.take(min(budget, lane.queue.quantum)))
        return Run(lane, lane.queue.take(budget), open=True)

    def _finished(self, run: Run[M, R], execution: asyncio.Future[Sequence[R]]) -> None:
        now = self._clock()
        seconds = 0.0 if run.started is None else now - run.started
        if run.started is None:  # it ended before a thread could take it
            self._ahead.remove(run)
        # Of the machine: those beside it took the rest.
        share = 2 * seconds / (run.beside + max(1, len(self.running)))
        self.running.discard(run)
        self._begin()
        run.lane.used += share
        rows, error = _outcome(execution, len(run.texts))
        if error is None:
            run.lane.speed.ran(run.tokens, share)
        elif len(run.texts) > 1:
            middle = len(run.texts) // 2
            self._again.extendleft(
                Run(run.lane, half) for half in (run.texts[middle:], run.texts[:middle])
            )
        self._start()  # the next run first: whoever waits for this one's results can wait for that
        if run.started is not None:
            for request in {request for request, _ in run.texts}:
                request.ran(run.started, now)
        if error is None:
            for (request, position), row in zip(run.texts, rows, strict=True):
                request.rows[position] = row
                request.missing -= 1
                if not request.missing and not request.done.done():
                    request.done.set_result(None)
        elif len(run.texts) == 1:
            run.texts[0][0].fail(error)
        if self._observer:
            speed = run.lane.speed.tokens_per_second or 0.0
            self._observer.ran(run.lane.name, len(run.texts), run.tokens, seconds, speed)
        self.tell()


def _outcome(
    execution: asyncio.Future[Sequence[R]], count: int
) -> tuple[Sequence[R], BaseException | None]:
    if execution.cancelled():
        return (), RuntimeError("the run was cancelled")
    error = execution.exception()
    if error is None and len(execution.result()) != count:
        error = RuntimeError(f"{len(execution.result())} results of a run of {count} texts")
    return (() if error else execution.result()), error
