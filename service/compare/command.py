"""The `crisp compare` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from service.compare.measure import Runs
    from service.engine import Engine
    from training.data import LabelledTexts


def compare(
    data: Annotated[
        str, typer.Option(help="Labelled texts: .tsv, .csv, .jsonl, .parquet, or a hub data set.")
    ],
    variants: Annotated[
        str, typer.Option(help="By comma; the first is what the others are compared with.")
    ] = "dense,sparse",
    models: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a model folder for each variant.", show_default="the bundled models"
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many texts, drawn at random (seeded).")
    ] = None,
    passes: Annotated[
        int, typer.Option(min=1, help="Times that all texts are answered and timed.")
    ] = 3,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of one run of a model.", show_default="every core"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of texts and variants.")] = 0,
    split: Annotated[str, typer.Option(help="Split of a hub data set.")] = "validation",
    text_column: Annotated[
        str | None, typer.Option(help="Column of the texts.", show_default="sentence, text, ...")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of the labels.", show_default="label, ...")
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Save everything; - prints it.")
    ] = None,
) -> None:
    """Compares variants on labelled texts: accuracy, agreement, latency, throughput, size.

    All run in this process, interleaved, with the engine that the service uses. Accuracies come
    with 95 % intervals, differences with McNemar's exact test, speed-ups with bootstrap intervals.

    Examples:

        crisp compare --data reviews.tsv

        crisp compare --data reviews.tsv --models models --json comparison.json
    """
    import json
    from datetime import UTC, datetime

    from rich.console import Console

    from service.compare import analysis, measure, report
    from training.data import read_examples
    from training.files import output_file, write_atomically
    from training.machine import environment
    from training.typed import typed

    names = _names(variants)
    output = output_file(json_file)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    measured_on = environment()
    engines = _engines(models, names, threads)
    texts = read_examples(
        data,
        split=split,
        label_names=engines[names[0]].manifest.labels,
        text_column=text_column,
        label_column=label_column,
    )
    if limit is not None:
        texts = _drawn(texts, limit, seed)
    console = Console(stderr=json_file == "-", markup=False, emoji=False)
    runs = _measured(engines, texts, passes, seed, console)
    truth = [texts.label_names[example.label] for example in texts.examples]
    figures = {name: analysis.figures(engines[name], runs[name], truth) for name in names}
    found = report.Report(
        data=texts,
        figures=figures,
        runs=runs,
        comparisons=analysis.compare(runs, figures, truth),
        library=engines[names[0]].library,
        settings={
            "passes": passes,
            "seed": seed,
            "limit": limit,
            "threads": threads,
            "batch": measure.BATCH,
        },
        command=typed(),
        started=started,
        environment=measured_on,
    )
    text = json.dumps(report.document(found), ensure_ascii=False) + "\n"
    try:  # first: a terminal may be gone
        if output is not None:
            write_atomically(output, text)
    finally:  # all the same: a disk may be full
        report.show(console, found)
    if output is not None:
        console.print(f"Saved {output}")
    elif json_file == "-":
        print(text, end="")


def _names(variants: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in variants.split(",") if name.strip())
    if len(names) < 2 or len(set(names)) < len(names):
        raise typer.BadParameter(
            f"expected at least two different names by comma, got {variants!r}",
            param_hint="--variants",
        )
    return names


def _engines(models: Path | None, names: tuple[str, ...], threads: int | None) -> dict[str, Engine]:
    """Raises ModelsError where a variant is missing, or where their labels differ."""
    from export.op_library import find_op_library
    from service.engine import Engine
    from service.errors import ModelsError
    from service.model_folders import model_folders
    from service.settings import BUNDLED_MODELS

    where = models or BUNDLED_MODELS
    folders = model_folders(where)
    for name in names:
        if name not in folders:
            raise ModelsError(
                f"{where} has no variant {name!r}; it has {', '.join(folders)}: choose with "
                "--variants, or make one with `crisp export`"
            )
    library = find_op_library()
    engines = {name: Engine.load(folders[name], threads=threads, library=library) for name in names}
    labels = {name: engine.manifest.labels for name, engine in engines.items()}
    for name in names[1:]:
        if set(labels[name]) != set(labels[names[0]]):
            raise ModelsError(
                f"variants with different labels cannot be compared: {names[0]} has "
                f"{', '.join(labels[names[0]])}; {name} has {', '.join(labels[name])}"
            )
    return engines


def _drawn(texts: LabelledTexts, limit: int, seed: int) -> LabelledTexts:
    """`limit` examples at random, in the order of the data."""
    from dataclasses import replace
    from random import Random

    count = len(texts)
    kept = sorted(Random(seed).sample(range(count), min(limit, count)))
    return replace(texts, examples=tuple(texts.examples[i] for i in kept))


def _measured(
    engines: dict[str, Engine], texts: LabelledTexts, passes: int, seed: int, console: Console
) -> dict[str, Runs]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from service.compare import measure

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        total = passes * measure.work(len(engines), len(texts))
        bar = progress.add_task("texts", total=total)
        return measure.measure(
            engines,
            [example.text for example in texts.examples],
            passes=passes,
            seed=seed,
            advance=lambda number: progress.advance(bar, number),
        )
