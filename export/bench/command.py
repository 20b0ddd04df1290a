"""The `crisp bench` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from export.bench.contenders import LineUp
    from export.bench.measure import Rounds
    from export.bench.workloads import Workload
    from export.manifest import ModelFolder

BUNDLED_MODELS = Path(__file__).resolve().parents[2] / "service" / "models"
BUNDLED = ("dense", "sparse")


def bench(
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="A model folder to measure; several times for several.",
            show_default="the bundled models dense and sparse",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder that gives stock ONNX Runtime its weights.",
            show_default="the weights of the first model with dense attention, or of the first",
        ),
    ] = None,
    workloads: Annotated[
        str, typer.Option(help="By comma.", metavar="NAMES")
    ] = "sst-b1,sst-b32,sst-b32-sorted,imdb-b1,imdb-b8,n512",
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Time to measure for, over all workloads.")
    ] = 60,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds of each workload.", show_default="what --seconds allows"),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every session.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the batches and of the order.")] = 0,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Save everything; - prints it.")
    ] = None,
) -> None:
    """Measures the engine against stock ONNX Runtime, fp32 and int8, with the same weights.

    The stock graphs are exported by transformers, fused by ONNX Runtime's own optimizer and run on
    padded batches; the engine runs the same texts packed. All sessions live in this process and
    take turns on every batch, so that the ratios hold on a machine that is not quite idle.

    Workloads: lengths as in SST-2 (sst, 4 to 55 tokens) and IMDb (imdb, 24 to 492), or 512 tokens
    each (n512), in batches of 1, 8 or 32 (b1, b8, b32) as they arrive, or sorted by length.

    Examples:

        crisp bench

        crisp bench --model models/sparse --workloads sst-b1,imdb-b1 --json bench.json
    """
    import json
    import shlex
    import sys
    from datetime import UTC, datetime

    from rich.console import Console

    from export.bench import report
    from export.bench import workloads as work
    from export.op_library import find_op_library
    from training.commands import quieten
    from training.files import output_file, write_atomically
    from training.machine import environment

    chosen = work.parse_workloads(workloads)
    output = output_file(json_file)
    folders = _folders(model)
    work.check_limit(chosen, min(folder.manifest.max_tokens for folder in folders))
    quieten()  # before anything loads transformers
    from export.bench.contenders import line_up

    console = Console(stderr=json_file == "-")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    measured_on = environment()
    library = find_op_library()
    with console.status("") as status:
        lined_up = line_up(
            folders,
            run,
            threads=threads,
            library=library,
            progress=lambda what: status.update(f"{what} ..."),
        )
    found = _measured(lined_up, chosen, seconds, rounds, seed, console)
    result = report.Report(
        contenders=lined_up.facts,
        rounds=found,
        baseline=lined_up.baseline,
        library=library,
        settings={"threads": threads, "seconds": seconds, "rounds": rounds, "seed": seed},
        command=shlex.join(["crisp", *sys.argv[1:]]),
        started=started,
        environment=measured_on,
    )
    report.show(console, result)
    text = json.dumps(report.document(result), indent=2, ensure_ascii=False) + "\n"
    if output is not None:
        write_atomically(output, text)
        console.print(f"Saved {output}", markup=False)
    elif json_file == "-":
        print(text, end="")


def _folders(given: Sequence[Path] | None) -> list[ModelFolder]:
    """The verified folders to measure. Raises ModelFolderError, also where none is bundled."""
    from export.errors import ModelFolderError
    from export.manifest import ModelFolder

    if given:
        return [ModelFolder.load(path) for path in dict.fromkeys(given)]
    paths = [BUNDLED_MODELS / name for name in BUNDLED]
    missing = [path for path in paths if not path.is_dir()]
    if missing:
        raise ModelFolderError(
            f"{missing[0]} is missing, one of the models that come with this project; name another "
            "with --model, which `crisp train` and then `crisp export` make"
        )
    return [ModelFolder.load(path) for path in paths]


def _measured(
    lined_up: LineUp,
    workloads: Sequence[Workload],
    seconds: float,
    rounds: int | None,
    seed: int,
    console: Console,
) -> dict[str, Rounds]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    from export.bench.measure import measure

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # Redrawn between rounds alone: a thread that draws would take time from those measured.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("measuring", total=1.0)

        def advance(share: float) -> None:
            progress.update(bar, completed=share, refresh=True)

        return measure(
            lined_up.contenders,
            workloads,
            vocabulary=lined_up.vocabulary,
            seconds=seconds,
            rounds=rounds,
            seed=seed,
            advance=advance,
        )
