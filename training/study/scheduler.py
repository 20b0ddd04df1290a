"""Spreads the runs of a study over processes, and shows how far they are.

Each run has a process of its own: one that fails, or is killed, is reported and takes no other with
it. The same command goes on where a study was stopped.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from training.files import write_atomically
from training.study.runs import FAILURE_FILE, LOG_FILE, PROGRESS_FILE, RESULT_FILE, Run, progress_of

_POLL = 0.5  # seconds


@dataclass
class _Process:
    run: Run
    folder: Path
    process: subprocess.Popen[bytes]
    log: IO[bytes]


def run_all(root: Path, runs: Sequence[Run], processes: int) -> dict[str, str]:
    """Runs all that are not finished, `processes` at a time; returns why which ones failed.

    Raises StudyError, before any work, where a folder holds a run of other settings.
    """
    waiting = [run for run in runs if run.prepare(root)]
    failed: dict[str, str] = {}
    active: list[_Process] = []
    started = itertools.count()
    ended: list[Run] = [run for run in runs if run not in waiting]
    patience = 0.5 if sys.stderr.isatty() else 30.0
    bar = tqdm(total=round(sum(run.work for run in runs), 2), mininterval=patience, bar_format=_BAR)
    try:
        while waiting or active:
            while waiting and len(active) < processes:
                active.append(_started(waiting.pop(0), root, processes, next(started)))
            time.sleep(_POLL)
            for each in [each for each in active if each.process.poll() is not None]:
                active.remove(each)
                each.log.close()
                ended.append(each.run)
                if not (each.folder / RESULT_FILE).is_file() or each.process.returncode:
                    failed[each.run.name] = _why(each)
                    bar.write(f"{each.run.name} failed: {failed[each.run.name]}", file=sys.stderr)
            done = sum(run.work for run in ended)
            done += sum(each.run.work * progress_of(each.folder) for each in active)
            _show(bar, done, f"{len(ended)} of {len(runs)} runs, {len(failed)} failed")
    finally:
        for each in active:
            each.process.terminate()
        for each in active:
            each.process.wait()
            each.log.close()
        bar.close()
    return failed


_BAR = "{desc}: {percentage:3.0f} %|{bar}| {elapsed}, about {remaining} left"


def _show(bar: tqdm[Any], done: float, text: str) -> None:
    if bar.n == 0 and done > 0:  # what an earlier command did says nothing of today's speed
        bar.initial = bar.n = bar.last_print_n = done
        bar.start_t = bar.last_print_t = time.time()
    bar.set_description_str(text, refresh=False)
    bar.update(max(0.0, done - bar.n))


def _started(run: Run, root: Path, processes: int, number: int) -> _Process:
    folder = run.folder(root)
    for name in (FAILURE_FILE, PROGRESS_FILE):  # of an earlier attempt, or of fewer epochs
        (folder / name).unlink(missing_ok=True)
    log = (folder / LOG_FILE).open("ab")
    command = [sys.executable, "-m", "crisp", "study", "run", str(folder)]
    threads = max(1, (os.cpu_count() or 1) // processes)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={"OMP_NUM_THREADS": str(threads)} | os.environ | _gpu(number),
    )
    return _Process(run, folder, process, log)


def _gpu(number: int) -> dict[str, str]:
    """Which GPU a run sees, in turns, where there are several and nobody has chosen."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    count = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return {"CUDA_VISIBLE_DEVICES": str(number % count)} if count > 1 else {}


def _why(ended: _Process) -> str:
    lines = (ended.folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    code = ended.process.returncode
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    reason = f"{how}; {last} (more in {ended.folder / LOG_FILE})"
    write_atomically(ended.folder / FAILURE_FILE, reason + "\n")
    return reason


def end_with_parent() -> None:
    """Ends this process soon after the one that started it: a study that was killed leaves none
    behind that would be in the way of its successor."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
