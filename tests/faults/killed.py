"""Kills a process that serves, while it is busy.

    python tests/faults/killed.py --workers 2 --kills 3

Prints how many requests were under way and how many failed. Fails where more than those that were
under way did, where a new process does not take over, or where answers are wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
import urllib.error
from dataclasses import dataclass, field

import psutil
from fault_server import TEXTS, Served, good_answer, post, serve

CLIENTS = 8
SECONDS_TO_RECOVER = 60.0


@dataclass
class Load:
    """Clients that ask without pause, and what became of their requests."""

    served: Served
    expected: object
    answered: int = 0
    wrong: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self) -> None:
        while not self.stop.is_set():
            try:
                found = post(self.served, "/predict", {"texts": TEXTS})["predictions"]
                labels = [prediction["label"] for prediction in found]
                with self._lock:
                    self.answered += 1
                    self.wrong += labels != self.expected
            except (OSError, urllib.error.URLError) as error:
                with self._lock:
                    self.failures.append((time.monotonic(), repr(error)))
                time.sleep(0.02)  # as a client does that tries again

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self.client) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()


def serving(served: Served) -> list[psutil.Process]:
    """The processes that accept connections on the service's port."""
    found = []
    for child in psutil.Process(served.server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile, or waits to be buried
            if "service.worker" in child.cmdline():
                found.append(child)
    return found


def kill_one(served: Served, load: Load, count: int) -> tuple[int, float]:
    """Failures that follow a kill, and the seconds until `count` processes answer again."""
    victim = serving(served)[0]
    failed = len(load.failures)
    began = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    until = began + SECONDS_TO_RECOVER
    while time.monotonic() < until:
        alive = serving(served)
        if len(alive) == count and victim.pid not in {process.pid for process in alive}:
            break
        time.sleep(0.05)
    else:
        raise AssertionError(f"no new process after {SECONDS_TO_RECOVER:g} s")
    good_answer(served)
    recovered = time.monotonic() - began
    answered = load.answered
    while load.answered < answered + 5 * CLIENTS and time.monotonic() < until:
        time.sleep(0.05)
    return len(load.failures) - failed, recovered


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    asked = parser.parse_args()
    with serve("--workers", str(asked.workers)) as served:
        expected = [prediction["label"] for prediction in good_answer(served)]
        bad = False
        with Load(served, expected) as load:
            while load.answered < 10 * CLIENTS:
                time.sleep(0.05)
            for _ in range(asked.kills):
                failed, seconds = kill_one(served, load, asked.workers)
                print(f"killed 1 of {asked.workers} under {CLIENTS} clients: {failed} requests "
                      f"failed, all processes were back after {seconds:.1f} s")  # fmt: skip
                bad |= failed > CLIENTS
        print(f"{load.answered} answers, {load.wrong} wrong, {len(load.failures)} failures")
        for _, failure in load.failures[:3]:
            print(f"  such as {failure}")
    return int(bad or load.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
