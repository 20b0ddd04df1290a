"""Exchanges the models again and again while they answer, and watches the memory.

    python tests/faults/reloads.py --reloads 12

Prints memory (USS) after each. It rises at first, since old and new models are held side by side
for a moment; fails where it ends at more than --allowed times what one set of models took, or where
an answer changes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from fault_server import TEXTS, Served, good_answer, memory, post, serve

SAID = "other models are in use"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--reloads", type=int, default=12)
    parser.add_argument("--allowed", type=float, default=1.75, help="Times the memory before.")
    asked = parser.parse_args()
    with serve("--shadow", "0.1") as served:
        before = good_answer(served)
        sizes = [used(served)]
        for number in range(1, asked.reloads + 1):
            served.server.process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 60
            while served.log.count(SAID) < number:
                if time.monotonic() > until:
                    raise TimeoutError("no exchange within a minute")
                time.sleep(0.05)
            sizes.append(used(served))
        same = good_answer(served) == before
    print("MiB: " + ", ".join(f"{size / 2**20:.0f}" for size in sizes))
    times = sizes[-1] / sizes[0]
    print(
        f"after {asked.reloads} exchanges {times:.2f} times what it was ({asked.allowed:g} allowed)"
    )
    return int(times > asked.allowed or not same)


def used(served: Served) -> int:
    """Memory after requests of every kind."""
    for _ in range(5):
        post(served, "/predict", {"texts": TEXTS * 8})
        post(served, "/explain", {"texts": TEXTS})
    return memory(served)


if __name__ == "__main__":
    sys.exit(main())
