"""Lets the disk be full while a report, a file of keys or the log is written.

    python tests/faults/disk_full.py

A limit on the size of files (RLIMIT_FSIZE) stands for the full disk: writing fails in the middle.
The log goes to /dev/full.
Fails where an old file is damaged, where half a file is left, where a command shows a traceback, or
where the service stops answering.
"""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from fault_server import ROOT, Served, crisp, free_port, good_answer, running

OLD = "an older report"


def limited(size: int) -> None:
    """In a child before it runs: no file of it may grow beyond `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def run(command: list[str], size: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        cwd=ROOT,
        preexec_fn=lambda: limited(size),
    )


def check(name: str, command: list[str], file: Path, size: int) -> list[str]:
    """What is wrong after `command` failed to write `file`, which was there before."""
    before = file.read_bytes()
    done = run(command, size)
    left = sorted(path.name for path in file.parent.iterdir())
    print(f"{name}: exit code {done.returncode}, {done.stderr.strip().splitlines()[-1:]}")
    wrong = []
    if done.returncode != 2 or "Traceback" in done.stderr:
        wrong.append(f"{name}: exit code {done.returncode}, {done.stderr[-1500:]}")
    if file.read_bytes() != before:
        wrong.append(f"{name}: {file.name} is damaged")
    if left != [file.name]:
        wrong.append(f"{name}: left {left}")
    return wrong


def main() -> int:
    argparse.ArgumentParser(description=__doc__.split("\n", 1)[0]).parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        report.write_text(OLD)
        data = str(ROOT / "examples" / "dev.tsv")
        compare = crisp("compare", "--data", data, "--passes", "1", "--json", str(report))
        wrong += check("crisp compare --json", compare, report, 512)
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        subprocess.run(crisp("keys", "add", "one", "--file", str(keys)), check=True,
                       capture_output=True)  # fmt: skip
        add = crisp("keys", "add", "two", "--file", str(keys))
        wrong += check("crisp keys add", add, keys, 100)
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = crisp("serve", "--port", str(port), "--log-format", "json")
        full = ["bash", "-c", 'exec "$0" "$@" >/dev/full 2>&1', *command]
        with running(full, port, Path(folder) / "log") as server:
            served = Served(server, port)
            before = good_answer(served)
            same = all(good_answer(served) == before for _ in range(200))
    print(
        f"no room for the log: 200 requests later the answers are {'the same' if same else 'not'}"
    )
    if not same:
        wrong.append("the service answers otherwise")
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
