"""Keeps the service busy for a while with good, bad and broken requests, and watches its memory.

    python tests/faults/soak.py --minutes 30

Prints memory over time (USS: what the processes have for themselves). It rises in steps until ONNX
Runtime has met the largest batches; fails where it still grows by more than --allowed percent
between the last but one third and the last, where a good request fails, or where the log has a
traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import socket
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request

import psutil
from fault_server import Served, good_answer, memory, post, serve

WORDS = ("a", "the", "film", "plot", "was", "is", "not", "very", "good", "bad", "warm", "dull")
EVERY = 2.0  # seconds between two looks at the memory


class Soak:
    """Clients of every kind, until they are told to stop."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.stop = threading.Event()
        self.counts = dict.fromkeys(("answered", "refused", "left", "failed"), 0)
        self.failures: list[str] = []

    def good(self, seed: int) -> None:
        """Texts of every length, in batches, at every endpoint; some refused under load."""
        draw = random.Random(seed)
        while not self.stop.is_set():
            texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 300)))
                     for _ in range(draw.choice((1, 1, 1, 2, 8)))]  # fmt: skip
            path = draw.choice(("/predict", "/predict", "/predict", "/compare", "/explain"))
            try:
                post(self.served, path, {"texts": texts[:2] if path == "/explain" else texts})
                self.counts["answered"] += 1
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 429:
                        self.counts["refused"] += 1
                    else:
                        self.fail(f"{path}: {error.code} {error.read()[:200]!r}")
            except OSError as error:
                self.fail(f"{path}: {error!r}")

    def bad(self, seed: int) -> None:
        """Requests that are refused: bad JSON, unknown paths, made-up names."""
        draw = random.Random(seed)
        while not self.stop.is_set():
            connection = http.client.HTTPConnection(self.served.host, self.served.port, timeout=60)
            with contextlib.closing(connection), contextlib.suppress(ConnectionError):
                for _ in range(20):
                    path = draw.choice(("/predict", f"/{draw.random()}", "/models", "/docs.json"))
                    body = draw.choice(("{", '{"texts": []}', json.dumps({str(draw.random()): 1})))
                    headers = {"Content-Type": "application/json",
                               "X-Request-ID": str(draw.random())}  # fmt: skip
                    connection.request("POST", path, body, headers)
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status >= 500:
                        self.fail(f"{path} {body}: {answer.status}")
                    self.counts["refused"] += 1
            self.stop.wait(0.05)

    def gone(self) -> None:
        """Clients that leave before their answer, or in the middle of their request."""
        body = json.dumps({"texts": [" ".join(WORDS * 20)] * 4}).encode()
        head = (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body))  # fmt: skip
        while not self.stop.is_set():
            for sent in (head, head + body[:100], head + body):
                with socket.create_connection((self.served.host, self.served.port)) as connection:
                    connection.sendall(sent)
                self.counts["left"] += 1
            self.stop.wait(0.05)

    def fail(self, what: str) -> None:
        self.counts["failed"] += 1
        self.failures.append(what)


def growth(samples: list[int]) -> float:
    """Percent by which the median of the last third exceeds that of the one before."""
    third = max(1, len(samples) // 3)
    before = statistics.median(samples[-2 * third : -third] or samples[:third])
    return 100 * (statistics.median(samples[-third:]) / before - 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, default=0.2, help="Share of it before it counts.")
    parser.add_argument("--allowed", type=float, default=2.0, help="Percent of growth.")
    asked = parser.parse_args()
    with serve("--shadow", "0.05") as served:
        before = good_answer(served)
        soak = Soak(served)
        threads = [
            *(threading.Thread(target=soak.good, args=(seed,)) for seed in range(2)),
            threading.Thread(target=soak.bad, args=(2,)),
            threading.Thread(target=soak.gone),
        ]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        samples: list[int] = []
        try:
            while (passed := time.monotonic() - began) < 60 * asked.minutes:
                time.sleep(EVERY)
                if passed > asked.warm_up * 60 * asked.minutes:
                    samples.append(memory(served))
        finally:
            soak.stop.set()
            for thread in threads:
                thread.join()
        processes = psutil.Process(served.server.process.pid).children(recursive=True)
        files = sum(process.num_fds() for process in processes)
        same = good_answer(served) == before
    found = growth(samples)
    print(f"{asked.minutes:g} minutes: " + ", ".join(f"{n} {k}" for k, n in soak.counts.items()))
    low, high = min(samples) / 2**20, max(samples) / 2**20
    print(
        f"memory {low:.0f} to {high:.0f} MiB over {len(samples)} looks after the warm-up; the last "
        f"third is {found:+.1f} % against the one before; {files} files open at the end"
    )
    step = max(1, len(samples) // 8)
    eighths = [
        statistics.median(samples[i : i + step]) / 2**20 for i in range(0, len(samples), step)
    ]
    print("in eighths: " + ", ".join(f"{mebibytes:.0f}" for mebibytes in eighths[:8]))
    print(*soak.failures[:10], sep="\n")
    bad = found > asked.allowed or soak.failures or not same or "Traceback" in served.log
    if "Traceback" in served.log:
        print(served.log[-3000:])
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
