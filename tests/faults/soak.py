"""Keeps the service busy for a while with good, bad and broken requests, and watches its memory.

    python tests/faults/soak.py --minutes 30

Prints memory over time (USS: what the processes have for themselves). It rises in steps until ONNX
Runtime has met the largest batches; fails where it still grows by more than --allowed percent
between the last but one third and the last (`plateau.py`), where a good request fails, or where the
log has a traceback. --in-flight is how many good requests are being answered at a time, on average:
0.4 keeps the service busy for 40 % of the time with them. The other clients are paced with it.
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
from plateau import growth, leaks, smallest_leak

WORDS = ("a", "the", "film", "plot", "was", "is", "not", "very", "good", "bad", "warm", "dull")
EVERY = 2.0  # seconds between two looks at the memory
GOOD = 2  # clients


class Soak:
    """Clients of every kind, until they are told to stop."""

    def __init__(self, served: Served, in_flight: float) -> None:
        self.served = served
        self.in_flight = in_flight
        self.stop = threading.Event()
        self.counts = dict.fromkeys(("answered", "refused", "late", "left", "failed"), 0)
        self.failures: list[str] = []

    def good(self, seed: int) -> None:
        """Texts of every length, in batches, at every endpoint; some refused under load."""
        draw = random.Random(seed)
        while not self.stop.is_set():
            texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 300)))
                     for _ in range(draw.choice((1, 1, 1, 2, 8)))]  # fmt: skip
            path = draw.choice(("/predict", "/predict", "/predict", "/compare", "/explain"))
            began = time.monotonic()
            try:
                post(self.served, path, {"texts": texts[:2] if path == "/explain" else texts})
                self.counts["answered"] += 1
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 429:
                        self.counts["refused"] += 1
                    elif error.code == 503 and error.headers["Retry-After"]:
                        self.counts["late"] += 1  # let in, and then there was no turn in time
                    else:
                        self.fail(f"{path}: {error.code} {error.read()[:200]!r}")
            except OSError as error:
                self.fail(f"{path}: {error!r}")
            self.rest(time.monotonic() - began, self.in_flight / GOOD)

    def bad(self, seed: int) -> None:
        """Requests that are refused: bad JSON, unknown paths, made-up names."""
        draw = random.Random(seed)
        while not self.stop.is_set():
            began = time.monotonic()
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
            self.rest(0.05 + time.monotonic() - began, self.in_flight / GOOD)

    def gone(self) -> None:
        """Clients that leave before their answer, or in the middle of their request."""
        body = json.dumps({"texts": [" ".join(WORDS * 20)] * 4}).encode()
        head = (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body))  # fmt: skip
        while not self.stop.is_set():
            began = time.monotonic()
            for sent in (head, head + body[:100], head + body):
                with socket.create_connection((self.served.host, self.served.port)) as connection:
                    connection.sendall(sent)
                self.counts["left"] += 1
            self.rest(0.05 + time.monotonic() - began, self.in_flight / GOOD)

    def rest(self, seconds: float, share: float) -> None:
        """Waits until the `seconds` that something took are `share` of the time."""
        if share < 1:
            self.stop.wait(seconds * (1 / share - 1))

    def fail(self, what: str) -> None:
        self.counts["failed"] += 1
        self.failures.append(what)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, default=0.2, help="Share of it before it counts.")
    parser.add_argument("--allowed", type=float, default=2.0, help="Percent of growth.")
    parser.add_argument("--in-flight", type=float, default=GOOD, help=f"Good ones, to {GOOD}.")
    asked = parser.parse_args()
    with serve("--shadow", "0.05") as served:
        before = good_answer(served)
        soak = Soak(served, asked.in_flight)
        threads = [
            *(threading.Thread(target=soak.good, args=(seed,)) for seed in range(GOOD)),
            threading.Thread(target=soak.bad, args=(2,)),
            threading.Thread(target=soak.gone),
        ]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        samples: list[int] = []
        requests = 0
        try:
            while (passed := time.monotonic() - began) < 60 * asked.minutes:
                time.sleep(EVERY)
                if passed > asked.warm_up * 60 * asked.minutes:
                    requests = requests or sum(soak.counts.values())
                    samples.append(memory(served))
        finally:
            soak.stop.set()
            for thread in threads:
                thread.join()
        processes = psutil.Process(served.server.process.pid).children(recursive=True)
        files = sum(process.num_fds() for process in processes)
        same = good_answer(served) == before
    requests = sum(soak.counts.values()) - requests
    print(f"{asked.minutes:g} minutes: " + ", ".join(f"{n} {k}" for k, n in soak.counts.items()))
    low, high = min(samples) / 2**20, max(samples) / 2**20
    print(
        f"memory {low:.1f} to {high:.1f} MiB over {len(samples)} looks after the warm-up; the last "
        f"third has {growth(samples) / 2**20:+.2f} MiB against the one before ({asked.allowed:g} % "
        f"are allowed: a leak of {smallest_leak(samples, asked.allowed, requests):.0f} bytes a "
        f"request would show); {files} files open at the end"
    )
    step = max(1, len(samples) // 8)
    eighths = [
        statistics.median(samples[i : i + step]) / 2**20 for i in range(0, len(samples), step)
    ]
    print("in eighths: " + ", ".join(f"{mebibytes:.1f}" for mebibytes in eighths[:8]))
    print(*soak.failures[:10], sep="\n")
    grows = leaks(samples, asked.allowed)
    bad = grows or soak.failures or not same or "Traceback" in served.log
    if "Traceback" in served.log:
        print(served.log[-3000:])
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
