"""One process's share of an open-loop load: requests leave when they are due, however others fare.

The process is started by `loadtests/open_loop.py`, which says there what it is asked to do: lines
of JSON come in, lines of JSON go out.

    in   {"load": {...}, "index": 0, "of": 2}     out  {"ready": 125}, or {"error": "..."}
    in   {"start": 1234.5}, as time.monotonic has it
    in   {"stop": true}, where it is to end early  out  {"measurement": {...}}

The end of its input ends it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import uvloop

from loadtests.adapters import ADAPTERS, Adapter
from loadtests.arrivals import arrivals
from loadtests.errors import LoadTestError
from loadtests.http_client import Client, NoAnswer
from loadtests.measurement import Measurement
from loadtests.workloads import generated_texts, texts_of_file

_TEXTS = 1000  # different ones; a longer test sends them again in another order
_MOST_REQUESTS = 1_000_000  # of a window: its schedule is held in memory
# A failing window ends early once so many more requests failed than would be allowed in all of it.
_HOPELESS = 0.01


@dataclass(frozen=True)
class Load:
    """One window of load. `rate` counts requests a second, each of `batch` texts; `seed` fixes
    texts and arrivals; `connections` bounds the requests that are under way.

    With `give_up_ms`, the window ends as soon as more than 1 % of its requests failed or took
    longer: its 99th percentile cannot be saved any more, and the server need not be tortured.
    """

    url: str
    adapter: str = "crisp"
    variant: str = "sparse"
    rate: float = 10.0
    seconds: float = 5.0
    arrivals: str = "poisson"
    workload: str = "sst"
    texts: Path | None = None
    batch: int = 1
    seed: str = "0"
    timeout: float = 30.0
    connections: int = 400
    give_up_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"texts": str(self.texts) if self.texts else None}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Load:
        return cls(**content | {"texts": Path(content["texts"]) if content["texts"] else None})


class Sender:
    """One process's share of a load: the requests `index`, `index + of`, ... of its schedule.

    Everything that costs time is done here, before the clock starts. Raises LoadTestError for an
    unknown adapter, workload or arrival process, and for a URL that is none.
    """

    def __init__(self, load: Load, *, index: int = 0, of: int = 1) -> None:
        if load.adapter not in ADAPTERS:
            known = ", ".join(ADAPTERS)
            raise LoadTestError(f"unknown adapter {load.adapter!r}; known: {known}")
        if load.rate * load.seconds > _MOST_REQUESTS:
            raise LoadTestError(
                f"{load.rate:g} requests/s for {load.seconds:g} s are more than "
                f"{_MOST_REQUESTS:,} requests; choose a lower rate or a shorter time"
            )
        self.load = load
        self.adapter: Adapter = ADAPTERS[load.adapter]
        seed = f"{load.seed} arrivals"
        schedule = [*arrivals(load.arrivals, rate=load.rate, seconds=load.seconds, seed=seed)]
        self._due = schedule[index::of]
        self._client = Client(load.url, connections=max(1, load.connections // of))
        self._requests = self._encoded(f"{load.seed} {index}")
        # Of all processes' requests: of its own share, two could be more than 1 %.
        self._late_allowed = max(1.0, _HOPELESS * len(schedule))
        self._late = 0
        self._hopeless = asyncio.Event()
        self.found = Measurement(planned=len(self._due))

    async def send(self, start: float, stopped: asyncio.Event) -> Measurement:
        """Sends from `start`, a time of time.monotonic, and waits for the answers; `stopped` ends
        it early."""
        began, cpu = time.monotonic(), time.process_time()
        ending = [asyncio.create_task(event.wait()) for event in (stopped, self._hopeless)]
        sending = asyncio.create_task(self._all(start))
        async with self._client:
            await asyncio.wait({sending, *ending}, return_when=asyncio.FIRST_COMPLETED)
            found, now = self.found, time.monotonic()
            if not sending.done():
                found.complete, found.gave_up = not stopped.is_set(), self._hopeless.is_set()
                found.planned = sum(start + due <= now for due in self._due)
            for task in (sending, *ending):
                task.cancel()
            await asyncio.gather(sending, *ending, return_exceptions=True)
        if sending.done() and not sending.cancelled() and (error := sending.exception()):
            raise error
        found.seconds = min(max(now - start, 0.0), self.load.seconds)
        found.busy = (time.process_time() - cpu) / max(now - began, 1e-3)
        found.cut = found.sent - found.right - found.faults.total()
        return found

    async def _all(self, start: float) -> None:
        end, free_since = start + self.load.seconds, start
        async with asyncio.TaskGroup() as requests:
            for due, request in zip(self._due, self._requests, strict=False):
                wait = start + due - time.monotonic()
                if wait > 0:
                    await asyncio.sleep(wait)
                blocked = self._client.full
                if not await self._client.reserve(until=end):
                    self.found.unsent = self.found.planned - self.found.sent
                    break
                now = time.monotonic()
                if blocked:
                    free_since = now
                self.found.lag.record(1e3 * (now - max(start + due, free_since)))
                self.found.sent += 1
                requests.create_task(self._one(start + due, request))

    async def _one(self, due: float, request: bytes) -> None:
        load, sent = self.load, time.monotonic()
        try:
            status, body = await self._client.exchange(request, timeout=load.timeout)
        except TimeoutError:
            self._failed(f"no answer within {load.timeout:g} s")
            return
        except NoAnswer as error:
            self._failed(f"no answer: {error}")
            return
        done = time.monotonic()
        answer = self.adapter.judge(status, body, load.variant, load.batch)
        if answer.fault is not None:
            self._failed(answer.fault)
            return
        found = self.found
        latency = 1e3 * (done - due)
        found.right += 1
        found.texts += load.batch
        found.tokens += answer.tokens
        found.latency.record(latency)
        found.service.record(1e3 * (done - sent))
        for name, milliseconds in answer.parts.items():
            found.parts[name].record(milliseconds)
        if load.give_up_ms is not None and latency > load.give_up_ms:
            self._is_late()

    def _failed(self, fault: str) -> None:
        self.found.faults[fault] += 1
        if self.load.give_up_ms is not None:
            self._is_late()

    def _is_late(self) -> None:
        self._late += 1
        if self._late > self._late_allowed:
            self._hopeless.set()

    def _encoded(self, seed: str) -> Iterator[bytes]:
        """The requests, endlessly: each text stands in one of them before any comes again."""
        load = self.load
        number = min(len(self._due), max(1, _TEXTS // load.batch))
        texts = iter(_texts(load.workload, load.texts, seed, number * load.batch))
        bodies = [
            self.adapter.body([*islice(texts, load.batch)], load.variant) for _ in range(number)
        ]
        requests = [
            self._client.encoded(self.adapter.path, json.dumps(body, ensure_ascii=False).encode())
            for body in bodies
        ]
        return _again_and_again(requests)


@lru_cache(maxsize=8)
def _stream(workload: str, file: Path | None, seed: str) -> tuple[Iterator[str], list[str]]:
    """An endless stream, and the texts that were already taken from it."""
    stream = generated_texts(workload, seed) if file is None else texts_of_file(file, seed)
    return stream, []


def _texts(workload: str, file: Path | None, seed: str, number: int) -> list[str]:
    """The first `number` texts, which are made once for all who get the same."""
    stream, taken = _stream(workload, file, seed)
    taken.extend(islice(stream, max(0, number - len(taken))))
    return taken[:number]


def _again_and_again(requests: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from requests


async def _serve(orders: asyncio.StreamReader, report: Callable[[dict[str, Any]], None]) -> None:
    while order := await _next(orders):
        if "load" not in order:
            continue  # what was asked of all was too late, or in vain, for this one
        try:
            load = Load.from_dict(order["load"])
            sender = Sender(load, index=order["index"], of=order["of"])
        except LoadTestError as error:
            report({"error": str(error)})
            continue
        report({"ready": sender.found.planned})
        start = await _next(orders)
        if start is None or "start" not in start:
            continue  # stopped before it began
        stopped = asyncio.Event()
        stop = asyncio.create_task(_set_after_next(orders, stopped))
        measurement = await sender.send(start["start"], stopped)
        report({"measurement": measurement.to_dict()})
        await stop  # it always comes, also where it is too late


async def _set_after_next(orders: asyncio.StreamReader, stopped: asyncio.Event) -> None:
    await _next(orders)
    stopped.set()


async def _next(orders: asyncio.StreamReader) -> dict[str, Any] | None:
    line = await orders.readline()
    return json.loads(line) if line else None


async def _main() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    await _serve(orders, lambda content: print(json.dumps(content), flush=True))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it through its parent
    gc.disable()  # a collection would delay what is due; windows are short and leave no cycles
    uvloop.run(_main())  # its clock ticks in milliseconds: a request leaves up to 1 ms late
