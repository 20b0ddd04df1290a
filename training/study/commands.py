"""The commands of `crisp study`. Nothing heavy is imported until one runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.study.spaced_lists import SpacedLists

if TYPE_CHECKING:
    from training.study.runs import Run

app = typer.Typer(
    name="study",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Tests the claims of the two papers behind this project, with many seeds and controls.

    Examples:

        crisp study semantic-focus --task even-pairs --length 16 --epochs 20

        crisp study report --runs runs/study --out results/study
    """,
)

Out = Annotated[Path, typer.Option(help="Folder of the runs; what is finished there is kept.")]
Processes = Annotated[int, typer.Option(min=1, help="Runs at the same time.")]


@app.command("semantic-focus", cls=SpacedLists)
def semantic_focus(
    task: Annotated[
        list[str] | None, typer.Option(help="Tasks, one or several. [default: all]")
    ] = None,
    mechanism: Annotated[
        list[str] | None,
        typer.Option(help="Attention mechanisms, e.g. topk-5 band-9-1. [default: all]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Models of each setting.")] = 10,
    first_seed: Annotated[
        int,
        typer.Option(
            min=0, help="Of the seeds; a setting may be divided so, the report joins its runs."
        ),
    ] = 0,
    length: Annotated[
        int | None,
        typer.Option(min=1, help="Symbols of an example, at most. [default: the task's]"),
    ] = None,
    blocks: Annotated[int | None, typer.Option(min=1, help="Layers. [default: the task's]")] = None,
    train: Annotated[int, typer.Option(help="Training examples.")] = 5000,
    held_out: Annotated[int, typer.Option(help="Held-out examples.")] = 2000,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Passes over the data; more than before goes on. [default: the task's]"
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of plain SGD. [default: the task's]")
    ] = None,
    start_symbol: Annotated[
        bool,
        typer.Option(
            help="Begin every example with one more symbol, the same in all, so that a first "
            "global token says nothing of the task."
        ),
    ] = False,
    landscape_steps: Annotated[
        int, typer.Option(help="Points a side at which the loss around a model is measured.")
    ] = 11,
    processes: Processes = 1,
    out: Out = Path("runs/study"),
) -> None:
    """Trains tiny encoders on synthetic tasks: does top-k attention learn faster than full?

    All seeds of a setting are trained as one batched model. Stopped at any moment, the same command
    goes on from its last saved epochs.

    Examples:

        crisp study semantic-focus

        crisp study semantic-focus --task parity --mechanism full topk-5 --length 16
    """
    from training.study.mechanisms import MECHANISMS
    from training.study.semantic_focus import FocusSettings
    from training.study.tasks.registry import TASKS, task_named

    runs = []
    for each in [task_named(name) for name in task or TASKS]:
        for name in mechanism or MECHANISMS:
            settings = FocusSettings(
                task=each.name,
                mechanism=name,
                seeds=tuple(range(first_seed, first_seed + seeds)),
                length=length or each.length,
                blocks=blocks or each.blocks,
                train=train,
                held_out=held_out,
                epochs=epochs or each.epochs,
                learning_rate=each.learning_rate if learning_rate is None else learning_rate,
                decay=each.decay,
                landscape_steps=landscape_steps,
                start_symbol=start_symbol,
            )
            runs.append(settings.run())
    _run_all(out, runs, processes)


@app.command("crisp-attention", cls=SpacedLists)
def crisp_attention(
    data: Annotated[str, typer.Option(help="Training texts, a file or hub name.")],
    dev: Annotated[list[str], typer.Option(help="Held-out texts, one file or several.")],
    sparsity: Annotated[
        list[float] | None,
        typer.Option(help="Shares of the links that top-k drops. [default: 0 0.5 0.7 0.8 0.9]"),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option(
            "--k",
            help="Links of a query that top-k keeps, however long the text: short texts keep a "
            "larger share. [default: none]",
        ),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="Controls of the same density: random, bottomk, band. none: no control. "
            "[default: all]"
        ),
    ] = None,
    control_sparsity: Annotated[float, typer.Option(help="Sparsity of the controls.")] = 0.8,
    dropout: Annotated[
        list[float] | None,
        typer.Option(help="Attention dropouts that dense is tuned over. [default: 0 0.1 0.2 0.3]"),
    ] = None,
    phase_in: Annotated[
        list[float] | None,
        typer.Option(
            help="Shares of the steps over which top-k of --control-sparsity is phased in, as "
            "further settings, e.g. 0.5. [default: none]"
        ),
    ] = None,
    fraction: Annotated[
        list[float] | None,
        typer.Option(help="Shares of the training texts, e.g. 0.1 0.3 1. [default: 1]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each setting.")] = 5,
    base: Annotated[str, typer.Option(help="As for `crisp train`.")] = "minilm",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(help="Texts a batch, at most.")] = 32,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a text; the rest is cut off.")] = 256,
    keep_weights: Annotated[bool, typer.Option(help="Keep each run's checkpoint.")] = False,
    processes: Processes = 1,
    out: Out = Path("runs/study"),
) -> None:
    """Fine-tunes with dense and sparse attention and controls: is sparse more accurate, and why?

    Every dense run is also measured with each sparse pattern at inference only.

    Examples:

        crisp study crisp-attention --sparsity 0 0.5 0.7 0.8 0.9 --seeds 5 --data train.tsv
        --dev dev.tsv

        crisp study crisp-attention --sparsity 0 0.8 --control random --dropout 0.1 --fraction 0.1
        0.3 1 --seeds 3 --data train.tsv --dev dev.tsv
    """
    from training.commands import quieten

    quieten()
    from training.study.sweep import sweep

    runs = sweep(
        data=data,
        dev=dev,
        sparsities=[0, 0.5, 0.7, 0.8, 0.9] if sparsity is None else sparsity,
        links=k or [],
        controls=["random", "bottomk", "band"] if control is None else control,
        control_sparsity=control_sparsity,
        dropouts=[0, 0.1, 0.2, 0.3] if dropout is None else dropout,
        phases=phase_in or [],
        fractions=fraction or [1.0],
        seeds=seeds,
        base=base,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_tokens=max_tokens,
        keep_weights=keep_weights,
    )
    _run_all(out, runs, processes)


def _run_all(out: Path, runs: list[Run], processes: int) -> None:
    from training.study.scheduler import run_all

    failed = run_all(out, runs, processes)
    typer.echo(f"{len(runs) - len(failed)} of {len(runs)} runs are finished in {out}")
    if failed:
        raise typer.Exit(1)


@app.command("report")
def report(
    runs: Annotated[
        Path, typer.Option(help="Folder of the runs, or of the JSON that --collect kept.")
    ] = Path("runs/study"),
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("results/study"),
    collect: Annotated[
        bool, typer.Option(help="Copy the runs' JSON beside the report, under runs/.")
    ] = False,
) -> None:
    """Draws every table and picture anew from the JSON of the finished runs, without training.

    Examples:

        crisp study report --runs runs/study --out results/study

        crisp study report --runs docs/study/runs --out docs/study
    """
    from training.study.report import write_report

    for file in write_report(runs, out, collect=collect):
        typer.echo(file)


@app.command("run", hidden=True)
def run(folder: Annotated[Path, typer.Argument(help="Folder of a prepared run.")]) -> None:
    """Carries out one prepared run: what the other commands start processes with."""
    from training.study.errors import StudyError
    from training.study.runs import SETTINGS_FILE, alone
    from training.study.scheduler import end_with_parent

    end_with_parent()
    try:
        asked = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        study, settings = asked["study"], asked["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(f"{folder} holds no prepared run of a study: {error!r}") from None
    if study == "semantic-focus":
        from training.study.semantic_focus import execute
    else:
        from training.commands import quieten

        quieten()
        from training.study.crisp_attention import execute
    with alone(folder):
        execute(folder, settings)
