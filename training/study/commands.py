"""The commands of `crisp study`. Nothing heavy is imported until one runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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


@app.command("semantic-focus")
def semantic_focus(
    task: Annotated[
        list[str] | None, typer.Option(help="A task; several times for several. [default: all]")
    ] = None,
    mechanism: Annotated[
        list[str] | None,
        typer.Option(help="An attention mechanism, e.g. topk-5 or band-9-1. [default: all]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Models of each setting.")] = 10,
    length: Annotated[
        int | None, typer.Option(help="Symbols of an example, at most. [default: the task's]")
    ] = None,
    blocks: Annotated[int | None, typer.Option(help="Layers. [default: the task's]")] = None,
    train: Annotated[int, typer.Option(help="Training examples.")] = 5000,
    held_out: Annotated[int, typer.Option(help="Held-out examples.")] = 2000,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the data; more than before goes on. [default: the task's]"),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of plain SGD. [default: the task's]")
    ] = None,
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

        crisp study semantic-focus --task parity --mechanism full --mechanism topk-5 --length 12
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
                seeds=tuple(range(seeds)),
                length=length or each.length,
                blocks=blocks or each.blocks,
                train=train,
                held_out=held_out,
                epochs=epochs or each.epochs,
                learning_rate=learning_rate or each.learning_rate,
                decay=each.decay,
                landscape_steps=landscape_steps,
            )
            runs.append(settings.run())
    _run_all(out, runs, processes)


def _run_all(out: Path, runs: list[Run], processes: int) -> None:
    from training.study.scheduler import run_all

    failed = run_all(out, runs, processes)
    typer.echo(f"{len(runs) - len(failed)} of {len(runs)} runs are finished in {out}")
    if failed:
        raise typer.Exit(1)


@app.command("run", hidden=True)
def run(folder: Annotated[Path, typer.Argument(help="Folder of a prepared run.")]) -> None:
    """Carries out one prepared run: what the other commands start processes with."""
    from training.study import semantic_focus as focus
    from training.study.errors import StudyError
    from training.study.runs import SETTINGS_FILE, alone
    from training.study.scheduler import end_with_parent

    end_with_parent()
    try:
        asked = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        execute = {focus.STUDY: focus.execute}[asked["study"]]
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(f"{folder} holds no prepared run of a study: {error!r}") from None
    with alone(folder):
        execute(folder, asked["settings"])
