"""Measures ONNX Runtime's session options on one model: what `export.op_library` chose, and why.

    python -m export.bench.session_options service/models/sparse --json options.json

Every setting has a process of its own, so that no session shares threads or memory with another.
Three parts, `--parts` picks some:

- `settings`: threads, spinning, memory arena, memory pattern, graph level, all on each batch in
  turn. Ratios are the time of `make_session`'s options over that of the setting.
- `creation`: seconds and resident memory of opening a session, of the model as exported against the
  graph that ONNX Runtime saved optimised, opened without optimising again.
- `together`: two sessions of two threads each answering at once, against one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import onnxruntime
import psutil
import typer
from tokenizers import Tokenizer

from export.bench.workloads import Batch, Workload, batches, parse_workloads
from export.manifest import ModelFolder
from export.op_library import find_op_library, open_session, session_options
from export.packing import pack
from training.files import write_atomically
from training.machine import environment

PARTS = ("settings", "creation", "together")
WARM_UP, FEWEST = 3, 5  # rounds of a workload that do not count, and that count at least


@dataclass(frozen=True)
class Setting:
    """One way to open a session; the defaults are those of `make_session` on two processors.

    `idle` opens a second session of the same kind, which has run once and then waits.
    """

    threads: int = 2
    spinning: bool = False
    spin_us: int | None = None  # for so long at most; None: as long as ONNX Runtime does
    arena: bool = True
    pattern: bool = True
    level: str = "ENABLE_ALL"  # the end of a name in GraphOptimizationLevel
    idle: bool = False

    def options(self) -> onnxruntime.SessionOptions:
        options = session_options(self.threads, spinning=self.spinning)
        if self.spin_us is not None:
            options.add_session_config_entry("session.intra_op.spin_duration_us", str(self.spin_us))
        options.enable_cpu_mem_arena = self.arena
        options.enable_mem_pattern = self.pattern
        level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{self.level}")
        options.graph_optimization_level = level
        return options

    def open(self, model: Path) -> onnxruntime.InferenceSession:
        return open_session(model, self.options(), find_op_library())


CHOSEN = Setting()
SETTINGS = {
    "chosen": CHOSEN,
    "1 thread": replace(CHOSEN, threads=1),
    "spinning": replace(CHOSEN, spinning=True),
    "spinning for 0.2 ms": replace(CHOSEN, spinning=True, spin_us=200),
    "chosen, idle second session": replace(CHOSEN, idle=True),
    "spinning, idle second session": replace(CHOSEN, spinning=True, idle=True),
    "no arena": replace(CHOSEN, arena=False),
    "no memory pattern": replace(CHOSEN, pattern=False),
    "level basic": replace(CHOSEN, level="ENABLE_BASIC"),
    "level extended": replace(CHOSEN, level="ENABLE_EXTENDED"),
}

Rows = Iterator[dict[str, Any]]  # one for each line that is printed
Ask = Callable[..., Any]  # calls a function in the measuring process, and waits for its result

_sessions: list[onnxruntime.InferenceSession] = []  # of a measuring process


@contextmanager
def measuring_process(model: Path, setting: Setting, sessions: int) -> Iterator[Ask]:
    """A fresh process that holds so many sessions of `model`."""
    with ProcessPoolExecutor(1, get_context("spawn"), _open, (model, setting, sessions)) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def _open(model: Path, setting: Setting, sessions: int) -> None:
    for _ in range(sessions):
        _sessions.append(setting.open(model))
        _sessions[-1].run(["logits"], pack([[0] * 8]))


def _time_run(batch: Batch) -> float:
    """Seconds of one run in the first session."""
    feeds = pack(batch)
    started = perf_counter()
    _sessions[0].run(["logits"], feeds)
    return perf_counter() - started


def _time_pair(pair: tuple[Batch, Batch]) -> tuple[float, float]:
    """Seconds in which two sessions answer a batch each: one after the other, and at once."""
    work = [
        partial(session.run, ["logits"], pack(batch))
        for session, batch in zip(_sessions, pair, strict=True)
    ]
    started = perf_counter()
    for run in work:
        run()
    middle = perf_counter()
    threads = [Thread(target=run) for run in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return middle - started, perf_counter() - middle


def _time_opening(model: Path, setting: Setting) -> tuple[float, int]:
    """Seconds and resident bytes of opening one session."""
    find_op_library()  # loaded once a process, whatever that opens
    before, started = psutil.Process().memory_info().rss, perf_counter()
    _sessions.append(setting.open(model))
    return perf_counter() - started, psutil.Process().memory_info().rss - before


def measure(
    asks: dict[str, Ask], function: Ask, inputs: Iterator[Any], seconds: float
) -> dict[str, list[Any]]:
    """What `function` finds in all processes on the same inputs, in turn, in an order drawn anew
    each round."""
    random = np.random.default_rng(0)
    answers: dict[str, list[Any]] = {name: [] for name in asks}
    played, until = 0, 0.0
    while played < WARM_UP + FEWEST or perf_counter() < until:
        if played == WARM_UP:
            until = perf_counter() + seconds
        given = next(inputs)
        for name in random.permutation(list(asks)):
            found = asks[name](function, given)
            if played >= WARM_UP:
                answers[name].append(found)
        played += 1
    return answers


def settings_part(folder: ModelFolder, workloads: Sequence[Workload], seconds: float) -> Rows:
    with ExitStack() as stack:
        asks = {
            name: stack.enter_context(measuring_process(folder.model, setting, 1 + setting.idle))
            for name, setting in SETTINGS.items()
        }
        for workload in workloads:
            found = measure(asks, _time_run, _supply(folder, workload), seconds)
            for name, times in found.items():
                yield {"workload": workload.name, **_row(name, found["chosen"], times)}


def together_part(folder: ModelFolder, workloads: Sequence[Workload], seconds: float) -> Rows:
    with measuring_process(folder.model, CHOSEN, 2) as ask:
        for workload in workloads:
            supply = _supply(folder, workload)
            pairs = zip(supply, supply, strict=False)
            in_turn, at_once = np.array(measure({"": ask}, _time_pair, pairs, seconds)[""]).T
            yield {"workload": workload.name, **_row("two at once", in_turn, at_once)}


def creation_part(folder: ModelFolder, repeats: int) -> Rows:
    with TemporaryDirectory() as temporary:
        saved = Path(temporary, "optimised.onnx")
        options = CHOSEN.options()
        options.optimized_model_filepath = str(saved)
        open_session(folder.model, options, find_op_library())
        plain = replace(CHOSEN, level="DISABLE_ALL")
        kinds = {"exported": (folder.model, CHOSEN), "saved": (saved, plain)}
        found: dict[str, list[tuple[float, int]]] = {name: [] for name in kinds}
        for _ in range(repeats):
            for name, (file, setting) in kinds.items():
                with measuring_process(file, setting, 0) as ask:
                    found[name].append(ask(_time_opening, file, setting))
        seconds = {name: [pair[0] for pair in pairs] for name, pairs in found.items()}
        for name, (file, _) in kinds.items():
            mebibytes = [added / 2**20 for _, added in found[name]]
            row = _row(name, seconds["exported"], seconds[name])
            yield {**row, "resident_mib": mebibytes, "bytes": file.stat().st_size}


def _supply(folder: ModelFolder, workload: Workload) -> Iterator[Batch]:
    vocabulary = Tokenizer.from_file(str(folder.tokenizer)).get_vocab_size()
    return batches(workload, vocabulary=vocabulary, random=np.random.default_rng(1))


def _row(name: str, reference: Sequence[float], seconds: Sequence[float]) -> dict[str, Any]:
    from training.statistics import ratio_of_medians  # scipy, which no measuring process needs

    ratio = ratio_of_medians(reference, seconds).to_dict()
    ms = [1e3 * float(each) for each in seconds]
    return {"name": name, "n": len(ms), "ratio": ratio, "ms": ms}


def main(
    model: Annotated[Path, typer.Argument(help="Model folder.")] = Path("service/models/sparse"),
    workloads: Annotated[str, typer.Option(help="By comma.")] = "sst-b1,imdb-b1,sst-b32",
    parts: Annotated[str, typer.Option(help="By comma.")] = ",".join(PARTS),
    seconds: Annotated[float, typer.Option(min=0, help="Of each part and workload.")] = 10,
    repeats: Annotated[int, typer.Option(min=1, help="Openings of each kind.")] = 7,
    json_file: Annotated[Path | None, typer.Option("--json", help="Save everything there.")] = None,
) -> None:
    """Measures ONNX Runtime's session options on one model."""
    wanted = parts.split(",")
    if unknown := sorted({*wanted} - {*PARTS}):
        raise typer.BadParameter(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    folder, chosen = ModelFolder.load(model), parse_workloads(workloads)
    record: dict[str, Any] = {"model": folder.shown, "environment": environment(), "parts": {}}
    runs: dict[str, Rows] = {
        "settings": settings_part(folder, chosen, seconds),
        "creation": creation_part(folder, repeats),
        "together": together_part(folder, chosen, seconds),
    }
    for part in wanted:
        record["parts"][part] = []
        for row in runs[part]:
            record["parts"][part].append(row)
            ratio = row["ratio"]
            print(
                f"{part:9} {row.get('workload', ''):8} {row['name']:30}"
                f" {np.median(row['ms']):9.3f} ms  x {ratio['value']:.3f}"
                f" ({ratio['low']:.3f} to {ratio['high']:.3f})  n = {row['n']}"
                + (f"  {np.median(row['resident_mib']):.1f} MiB" if "resident_mib" in row else ""),
                flush=True,
            )
    record["settings"] = {name: asdict(setting) for name, setting in SETTINGS.items()}
    if json_file is not None:
        write_atomically(json_file, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
