"""Sends three and ten times as much as the service can do, and counts what it still does.

    python tests/faults/overload.py

Open loop: requests leave when they are due, whatever happens to those before. The capacity is the
best goodput (right answers a second) of a few windows with more and more load. Fails where the
goodput under overload falls below --keep of that, where a request that was accepted took longer
than --max-wait by far, or where anything but a refusal (429, 503) went wrong.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fault_server import ROOT, Served, serve

sys.path.insert(0, str(Path(ROOT)))
from loadtests.measurement import Measurement
from loadtests.open_loop import OpenLoop
from loadtests.sender import Load

REFUSED = "HTTP 429"
GAVE_UP = "HTTP 503: overloaded"  # its turn did not come as soon as was thought
STEP = 1.6


def window(
    generator: OpenLoop, served: Served, rate: float, asked: argparse.Namespace
) -> Measurement:
    load = Load(
        served.url,
        variant=asked.variant,
        rate=rate,
        seconds=asked.seconds,
        workload=asked.workload,
        connections=asked.connections,
    )
    return generator.run(load)


def goodput(found: Measurement) -> float:
    return found.right / found.seconds


def shown(name: str, rate: float, found: Measurement) -> str:
    refused = sum(n for fault, n in found.faults.items() if fault.startswith(REFUSED))
    gave_up = sum(n for fault, n in found.faults.items() if fault.startswith(GAVE_UP))
    others = found.faults.total() - refused - gave_up
    p99 = found.service.percentile(99)
    limit = (
        f"; the generator may have been the limit: {found.limited_by}" if found.limited_by else ""
    )
    return (
        f"{name}: {rate:.0f} requests/s due, {goodput(found):.1f} right, {refused} refused "
        f"at once, {gave_up} after a wait, {others} other faults, {found.unsent} unsent; p99 of "
        f"answers {p99 or 0:.0f} ms{limit}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--start", type=float, default=20.0, help="Requests/s to begin with.")
    parser.add_argument("--seconds", type=float, default=6.0, help="Of a window.")
    parser.add_argument("--workload", default="imdb")
    parser.add_argument("--variant", default="sparse")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=1, help="Of the generator.")
    parser.add_argument("--times", type=float, nargs="*", default=[3.0, 10.0])
    parser.add_argument("--keep", type=float, default=0.9, help="Share of the best goodput.")
    parser.add_argument("--max-wait", type=float, default=2.0)
    asked = parser.parse_args()
    bad = []
    with (
        serve("--max-wait", str(asked.max_wait)) as served,
        OpenLoop(asked.processes) as generator,
    ):
        window(generator, served, asked.start, asked)  # so that the service knows its own speed
        best, rate = 0.0, asked.start
        while True:
            found = window(generator, served, rate, asked)
            print(shown("capacity", rate, found), flush=True)
            best = max(best, goodput(found))
            if goodput(found) < 0.85 * rate:
                break
            rate *= STEP
        for times in asked.times:
            found = window(generator, served, times * best, asked)
            print(shown(f"{times:g} x", times * best, found), flush=True)
            kept = goodput(found) / best
            print(f"  {100 * kept:.0f} % of the best goodput, {best:.1f} right answers/s")
            if kept < asked.keep:
                bad.append(f"{times:g} x: goodput fell to {100 * kept:.0f} %")
            p99 = found.service.percentile(99)
            if p99 is None or p99 > 1e3 * asked.max_wait * 1.25:
                bad.append(f"{times:g} x: p99 of answers is {p99} ms")
            bad += [f"{times:g} x: {n} x {fault}" for fault, n in found.faults.items()
                    if not fault.startswith((REFUSED, GAVE_UP))]  # fmt: skip
        if "Traceback" in served.log:
            bad.append("the log has a traceback")
    print(*bad, sep="\n")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
