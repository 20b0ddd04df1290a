"""CPU and memory of the servers under load, sampled while the windows run.

usage = Usage({"crisp": target.processes})
with usage.window("crisp") as window:
    ...                         # usage.sample() several times a second meanwhile
window.cores, window.rss_mib    # mean cores in use, most memory held
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

_SECONDS_BETWEEN_SAMPLES = 1.0


@dataclass
class WindowUsage:
    """`cores` in use on average, `rss_mib` held at most; None where the processes are unknown."""

    cores: float | None = None
    rss_mib: float | None = None


class Usage:
    """Of servers by name; those without processes (a URL elsewhere) are left out."""

    def __init__(self, servers: Mapping[str, Sequence[psutil.Process]]) -> None:
        self._servers = {name: list(processes) for name, processes in servers.items() if processes}
        self._began = self._last = time.monotonic()
        self._cpu = {name: _cpu_seconds(each) for name, each in self._servers.items()}
        # seconds since the start, server, cores in use since the sample before, resident MiB
        self.samples: list[tuple[float, str, float, float]] = []

    def sample(self) -> None:
        """Takes a sample of every server, unless the last one is less than a second ago."""
        now = time.monotonic()
        passed = now - self._last
        if passed < _SECONDS_BETWEEN_SAMPLES:
            return
        for name, processes in self._servers.items():
            cpu = _cpu_seconds(processes)
            cores = (cpu - self._cpu[name]) / passed
            self._cpu[name] = cpu
            at = round(now - self._began, 1)
            self.samples.append((at, name, round(cores, 3), round(_rss_mib(processes), 1)))
        self._last = now

    @contextmanager
    def window(self, name: str) -> Iterator[WindowUsage]:
        """Fills in what the server `name` used until the block ended."""
        found = WindowUsage()
        processes = self._servers.get(name)
        began, cpu = time.monotonic(), _cpu_seconds(processes or ())
        first = len(self.samples)
        try:
            yield found
        finally:
            if processes:
                seconds = max(time.monotonic() - began, 1e-9)
                found.cores = max(_cpu_seconds(processes) - cpu, 0.0) / seconds
                sampled = [rss for _, server, _, rss in self.samples[first:] if server == name]
                found.rss_mib = max([*sampled, _rss_mib(processes)])


def processors() -> int:
    """Those that this process, and what it starts, may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _rss_mib(processes: Sequence[psutil.Process]) -> float:
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 2**20
