"""What waits for a model and what runs of it: the records that batcher and admission share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, Protocol, TypeVar

from service.fair_queue import FairQueue, Job
from service.speed import Speed

M = TypeVar("M")  # a model
R = TypeVar("R")  # what it says of one text
Ids = Sequence[int]


class Expired(Exception):
    """The deadline passed first; `started` says whether any of its texts had begun to run."""

    def __init__(self, started: bool) -> None:
        super().__init__("the deadline passed " + ("in its run" if started else "in the queue"))
        self.started = started


class Observer(Protocol):
    """Is told what happens, to count it."""

    def queued(self, lane: str, requests: int, tokens: int) -> None: ...
    def waited(self, lane: str, seconds: float) -> None: ...
    def ran(self, lane: str, texts: int, tokens: int, seconds: float, speed: float) -> None: ...


@dataclass(frozen=True)
class Spent:
    """Where the time of a request went, in seconds: waiting for runs, and in them."""

    queue: float
    inference: float


class Lane(Generic[M, R]):
    """A model and what waits for it. `background`: runs only while nothing else waits."""

    def __init__(self, name: str, model: M, quantum: int, background: bool) -> None:
        self.name = name
        self.model = model
        self.background = background
        self.queue = FairQueue[Request[M, R]](quantum)
        self.speed = Speed()
        self.reserved = 0  # tokens that were admitted and are not in the queue yet
        self.users = 0  # requests that were admitted and are not done
        self.retired = False
        self.used = 0.0  # seconds of runs, for the order of the lanes

    @property
    def tokens(self) -> int:
        return self.queue.tokens + self.reserved


class Request(Job, Generic[M, R]):
    """A job with what comes of it."""

    def __init__(self, lane: Lane[M, R], sequences: Sequence[Ids], now: float) -> None:
        super().__init__([len(ids) for ids in sequences])
        self.lane = lane
        self.sequences = sequences
        self.rows: list[R | None] = [None] * len(sequences)
        self.missing = len(sequences)
        self.size = self.tokens  # `tokens` are those that still wait
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.added = now
        self._ran: list[tuple[float, float]] = []  # from when to when, apart from each other
        self.began: float | None = None  # its first run
        self._expiry: asyncio.TimerHandle | None = None

    def ran(self, began: float, ended: float) -> None:
        """Counts a run, to be called as runs end: what was at the same time counts once."""
        while self._ran and self._ran[-1][1] >= began:
            began = min(began, self._ran.pop()[0])
        self._ran.append((began, ended))

    @property
    def running(self) -> float:
        """Seconds in which some of it ran."""
        return sum(ended - began for began, ended in self._ran)

    def fail(self, error: BaseException) -> None:
        self.lane.queue.remove(self)
        if not self.done.done():
            self.done.set_exception(error)

    def expire_at(self, turn: float, deadline: float | None) -> None:
        """Fails with Expired where nothing of it has run at `turn`, or not all at `deadline`, both
        times of the event loop."""
        at = turn if deadline is None else min(turn, deadline)
        self._expiry = self.done.get_loop().call_at(at, self._expire, at, deadline)

    def leave(self) -> None:
        """Nobody waits for it any more."""
        self.lane.queue.remove(self)
        self.done.cancel()
        if self._expiry is not None:
            self._expiry.cancel()

    def _expire(self, at: float, deadline: float | None) -> None:
        self._expiry = None
        started = self.began is not None
        if not started or at == deadline:
            self.fail(Expired(started))
        elif deadline is not None:
            self.expire_at(deadline, deadline)


class Run(Generic[M, R]):
    """Texts of one model that run together: each as its request and position there. While it is
    `open`, more may join."""

    def __init__(
        self, lane: Lane[M, R], texts: list[tuple[Request[M, R], int]], *, open: bool = False
    ) -> None:
        self._open = open
        self._begins = Lock()  # it may begin in another thread, while something joins
        self.lane = lane
        self.texts = texts
        self.tokens = sum(len(request.sequences[position]) for request, position in texts)
        self.wanted = self.tokens  # those that somebody waits for
        self.started: float | None = None  # while it waits for a thread
        self.beside = 1  # runs under way when it began, itself among them

    @property
    def live(self) -> list[tuple[Request[M, R], int]]:
        """The texts that somebody waits for."""
        return [text for text in self.texts if not text[0].done.done()]

    def begin(self) -> list[Ids]:
        """The sequences to run; from now on nothing joins. Whoever runs them calls this first."""
        with self._begins:
            self._open = False
        return [request.sequences[position] for request, position in self.texts]

    def join(self, budget: int) -> None:
        """Adds what waits in its lane, up to `budget` tokens in all, unless it has begun."""
        with self._begins:
            if not self._open or self.tokens >= budget:
                return
            first = len(self.texts)
            self.lane.queue.take(budget - self.tokens, self.texts)
            joined = sum(len(request.sequences[at]) for request, at in self.texts[first:])
            self.tokens += joined
            self.wanted += joined

    def leave(self, request: Request[M, R]) -> None:
        """Nobody waits for the texts of `request` any more."""
        self.wanted -= sum(
            len(each.sequences[position]) for each, position in self.texts if each is request
        )
