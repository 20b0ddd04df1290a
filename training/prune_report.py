"""Runs a search for a pruning schedule on a run folder, and what it leaves: its JSON, which an
interrupted search goes on from, its table, and its picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from training.batches import Encodings
from training.config import RunRecord
from training.errors import RunError
from training.files import whole_or_not_at_all, write_atomically
from training.finetune import encode
from training.model import fastest_precision, load_checkpoint
from training.prune_search import Point, Searcher, pareto_front
from training.pruning import TokenPruning


def search_run(
    run: Path,
    sources: Sequence[str],
    within: float,
    sample: int,
    max_tokens: int,
    output: Path | None,
    plot: Path | None,
) -> None:
    """Searches on at most `sample` texts of each source, cut to `max_tokens`; see `Searcher`.
    Multiplies in bfloat16 where the processor does that in hardware.

    Raises RunError where `run` is not finished or `output` is another search's, DataError where a
    source cannot be read.
    """
    sets = RunRecord.load(run).read(sources, "validation")
    model, tokenizer, pattern = load_checkpoint(run)
    if model.config.n_layers < 2:
        raise RunError(f"{run} has one layer: there is none after it that would read fewer tokens")
    limit = min(max_tokens, model.config.max_position_embeddings)
    encoded = {t.name: _sample(encode(t, tokenizer, limit), sample) for t in sets}
    header = {
        "run": str(run),
        "attention": pattern.to_dict(),
        "data": [{"name": t.name, "sha256": t.sha256} for t in sets],
        "texts": {name: len(texts) for name, texts in encoded.items()},
        "mean_tokens": {
            name: round(float(np.mean(texts.lengths)), 2) for name, texts in encoded.items()
        },
        "within": within,
        "max_tokens": limit,
        "precision": fastest_precision(model.device.type),
    }
    with tqdm(desc="schedules", unit="schedule") as bar:

        def measured(point: Point) -> None:
            bar.update()
            bar.set_postfix_str(str(point.pruning))
            if output is not None:
                write(output, header, list(searcher.points.values()), [])

        known = {} if output is None else read_known(output, header)
        searcher = Searcher(model, encoded, known=known, measured=measured)
        with torch.autocast(
            model.device.type, torch.bfloat16, enabled=header["precision"] == "bf16"
        ):
            trace = searcher.search(within)
    points = list(searcher.points.values())
    if output is not None:
        write(output, header, points, trace)
    print_fronts(points, trace)
    if plot is not None:
        draw(plot, points, trace)


def _sample(texts: Encodings, most: int) -> Encodings:
    chosen = np.sort(np.random.default_rng(0).permutation(len(texts))[:most]).tolist()
    return Encodings([texts.input_ids[i] for i in chosen], [texts.labels[i] for i in chosen])


def read_known(file: Path, header: dict[str, Any]) -> dict[TokenPruning, Point]:
    """The points in `file`, none where there is no file.

    Raises RunError where it is no search's, or that of another model or other texts.
    """
    if not file.exists():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        found = {key: values[key] for key in header}
        points = [Point.from_dict(entry) for entry in values["points"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} holds no search of `crisp prune-search`: {error!r}") from None
    differing = [key for key in header if found[key] != json.loads(json.dumps(header[key]))]
    if differing:
        raise RunError(f"{file} holds a search with another {differing[0]}; give another --json")
    return {point.pruning: point for point in points}


def write(
    file: Path, header: dict[str, Any], points: Sequence[Point], trace: Sequence[Point]
) -> None:
    """Writes every point, which of them the search passed through, and where it ended."""
    values = header | {
        "chosen": trace[-1].pruning.to_dict() if trace else None,
        "trace": [point.pruning.to_dict() for point in trace],
        "points": [point.to_dict() for point in points],
    }
    write_atomically(file, json.dumps(values, indent=1) + "\n")


def print_fronts(points: Sequence[Point], trace: Sequence[Point]) -> None:
    """Prints the Pareto front of each data set, then the schedule that was chosen."""
    console = Console(markup=False, emoji=False)
    for name in trace[0].found:
        table = Table(title=f"{name}: no schedule is both better and cheaper", title_justify="left")
        for column in ("cost", "accuracy, %", "schedule"):
            table.add_column(column, justify="left" if column == "schedule" else "right")
        for point in pareto_front(list(points), name):
            found = point.found[name]
            table.add_row(f"{found.cost:.3f}", f"{100 * found.accuracy:.2f}", str(point.pruning))
        console.print(table)
    first, chosen = trace[0], trace[-1]
    for name, found in chosen.found.items():
        console.print(
            f"{name}: {100 * found.accuracy:.2f} % at {found.cost:.3f} of the multiply-adds "
            f"({100 * first.found[name].accuracy:.2f} % without pruning)"
        )
    shares = ",".join(f"{share:g}" for share in chosen.pruning.keep)
    console.print(f"crisp train --prune {shares} --prune-floor {chosen.pruning.floor} ...")


def draw(file: Path, points: Sequence[Point], trace: Sequence[Point]) -> None:
    """Writes a PNG: accuracy over cost of every schedule measured, a panel for each data set."""
    from matplotlib.figure import Figure

    names = list(trace[0].found)
    figure = Figure(figsize=(5 * len(names), 4), dpi=144, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        found = [point.found[name] for point in points]
        axes.plot([f.cost for f in found], [100 * f.accuracy for f in found], ".", color="0.7")
        front = [point.found[name] for point in pareto_front(list(points), name)]
        axes.step(
            [f.cost for f in front],
            [100 * f.accuracy for f in front],
            where="post",
            label="no schedule is both better and cheaper",
        )
        chosen = trace[-1].found[name]
        axes.plot(chosen.cost, 100 * chosen.accuracy, "o", color="C1", label="chosen")
        axes.set(xlabel="multiply-adds, relative to no pruning", ylabel="accuracy, %", title=name)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    with whole_or_not_at_all(file) as temporary:
        figure.savefig(temporary, format="png")
