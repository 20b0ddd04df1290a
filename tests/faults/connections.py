"""Holds many connections open that say nothing, or say it very slowly, and asks beside them.

    python tests/faults/connections.py --idle 10000 --slow 1000

Prints how long others wait meanwhile, what a connection costs in memory, and when the server ended
them. Fails where a request of somebody else fails, or where a connection outlives --header-timeout
by far.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import statistics
import sys
import time
from typing import Any

from fault_server import Served, good_answer, memory, serve

SPARE_FILES = 200
SLACK = 20.0  # seconds that a busy machine may be late


async def opened(served: Served, most: int) -> list[tuple[Any, Any]]:
    """`most` connections, or as many as this machine lets one process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = min(most, hard - SPARE_FILES)
    found: list[tuple[Any, Any]] = []
    while len(found) < wanted:
        batch = min(200, wanted - len(found))
        more = (asyncio.open_connection(served.host, served.port) for _ in range(batch))
        found += await asyncio.gather(*more)
    return found


async def waits(served: Served, seconds: float) -> list[float]:
    """Seconds that good requests take, one after the other; raises where one fails."""
    found: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        await asyncio.to_thread(good_answer, served)
        found.append(time.monotonic() - began)
    return found


def told(found: list[float]) -> str:
    ordered = sorted(found)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    median = 1e3 * statistics.median(ordered)
    return f"p50 {median:.1f} ms, p99 {1e3 * p99:.1f} ms (n={len(ordered)})"


async def ended(connections: list[tuple[Any, Any]], began: float, timeout: float) -> float:
    """Seconds from `began` until the server has closed all of them."""

    async def read_out(reader: Any) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass

    async with asyncio.timeout(timeout + SLACK):
        await asyncio.gather(*(read_out(reader) for reader, _ in connections))
    for _, writer in connections:
        writer.close()
    return time.monotonic() - began


async def drip(connections: list[tuple[Any, Any]], every: float) -> None:
    """A header that never ends, a few bytes at a time."""
    for _, writer in connections:
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    while True:
        await asyncio.sleep(every)
        for _, writer in connections:
            if not writer.is_closing():
                writer.write(b"a")


async def measure(served: Served, asked: argparse.Namespace) -> None:
    seconds, timeout = asked.seconds, asked.timeout
    alone = await waits(served, seconds)
    print(f"alone: {told(alone)}")
    before = memory(served)
    began = time.monotonic()
    connections = await opened(served, asked.idle)
    kilobytes = (memory(served) - before) / len(connections) / 1024
    print(f"{len(connections)} connections that say nothing: {kilobytes:.1f} KiB each")
    print(f"beside them: {told(await waits(served, seconds))}")
    print(f"the last of them was closed after {await ended(connections, began, timeout):.1f} s "
          f"(--header-timeout {timeout:g})")  # fmt: skip

    began = time.monotonic()
    connections = await opened(served, asked.slow)
    dripping = asyncio.create_task(drip(connections, 0.5))
    found = await waits(served, seconds)
    print(
        f"beside {len(connections)} that send a byte of a header every half second: {told(found)}"
    )
    last = await ended(connections, began, timeout)
    dripping.cancel()
    print(f"the last of them was closed after {last:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="Of each measurement.")
    parser.add_argument("--timeout", type=float, default=30.0, help="--header-timeout.")
    asked = parser.parse_args()
    with serve("--header-timeout", str(asked.timeout), "--max-connections", "20000") as served:
        before = good_answer(served)
        asyncio.run(measure(served, asked))
        same = good_answer(served) == before
    if not same or "Traceback" in served.log:
        print("the service answers otherwise than before, or its log has a traceback")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
