"""What a load test says beside its figures, each a line that ends in what to do, where there is
something."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.measurement import Measurement


def nothing_right(name: str, found: Measurement) -> str:
    """Of a contender that gave no right answer in its warm-up."""
    if not found.faults:
        return f"{name} answered nothing within {found.seconds:.0f} s; lower --batch"
    fault, times = found.faults.most_common(1)[0]
    total = found.faults.total()
    return f"all {total:,} requests to {name} failed; {times:,} of them so: {fault}"


def unsteady(name: str, rates: Sequence[float]) -> str:
    """Of one whose windows of warming up still differed, in requests/s."""
    return (
        f"{name}: its last windows of warming up carried {rates[-2]:,.1f} and {rates[-1]:,.1f} "
        "requests/s, so it, or the machine, was not steady yet"
    )


def flat(name: str, slo_ms: float) -> str:
    """Of one whose windows pass and fail whatever the rate."""
    return (
        f"{name}: windows pass and fail over a wide range of rates, so {slo_ms:g} ms are close to "
        "what some requests take by themselves; its capacity means little: raise --slo-ms"
    )


def too_slow(name: str, slo_ms: float, rate: float, found: Measurement) -> str:
    """Of one that meets the objective at no rate: what it did at the lowest, for a reader who
    wonders."""
    p99 = found.latency.percentile(99)
    took = "nothing was answered right" if p99 is None else f"99 % took up to {p99:.0f} ms"
    faults = "".join(f"; {n:,} × {fault}" for fault, n in found.faults.most_common(1))
    return (
        f"{name} meets no objective of {slo_ms:g} ms, even at {rate:.2g} requests/s: {took}"
        f"{faults}; raise --slo-ms"
    )


def few_connections(name: str, slo_ms: float, found: Measurement, connections: int) -> str | None:
    """Of a window that failed: whether the generator's connections failed it, and not the server,
    which answered in time once it was asked."""
    due, sent = (times.percentile(99) for times in (found.latency, found.service))
    late = found.unsent > 0 or (due is not None and due > slo_ms)
    if not late or sent is None or sent > slo_ms or found.faults or found.limited_by:
        return None
    return (
        f"{name}: requests waited for one of the generator's {connections} connections while the "
        "service answered in time, so it may carry more: raise --connections"
    )


def busy(load: float | None, cores: int) -> str | None:
    """Of a machine on which somebody else works: its load average before the servers started."""
    if load is None or load <= cores / 2:
        return None
    return f"The machine was busy (load {load:.1f} on {cores} cores); measure when it is idle."
