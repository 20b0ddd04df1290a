"""The `crisp bench` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from export.bench.contenders import LineUp, Options
    from export.bench.measure import Rounds
    from export.bench.workloads import Workload
    from export.manifest import ModelFolder
    from training.data import LabelledTexts


# Options that say what is measured on a CPU.
_NOT_ON_CUDA = ("run", "peers", "calibration", "accuracy", "threads", "profile", "plot")


def bench(
    ctx: typer.Context,
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
            help="Run folder that gives stock ONNX Runtime and the peers their weights.",
            show_default="the weights of the first model with dense attention, or of the first",
        ),
    ] = None,
    workloads: Annotated[
        str, typer.Option(help="By comma.", metavar="NAMES")
    ] = "sst-b1,sst-b32,sst-b32-sorted,imdb-b1,imdb-b8,n512-b1,n2048-b1,n4096-b1",
    peers: Annotated[
        str,
        typer.Option(help="Other runtimes, by comma: openvino, torch; or none.", metavar="NAMES"),
    ] = "openvino",
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Texts on which OpenVINO int8 is calibrated; several times for several.",
            show_default="the sentences of examples/, and longer texts made of them",
        ),
    ] = None,
    accuracy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Labelled texts on which every contender's accuracy is measured; several times "
            "for several.",
            show_default="what the models' manifests say",
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1, help="Time to measure for, shared by the workloads; 5 rounds of each at least."
        ),
    ] = 80,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds of each workload.", show_default="what --seconds allows"),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="cpu; or cuda: every model in fp16 on a GPU, against stock ONNX Runtime, torch "
            "and, where installed, flash attention. Not tried on a GPU yet."
        ),
    ] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of every session.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the batches and of the order.")] = 0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show the share of each operator, too.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the speed-ups into a .png or .svg.")
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Save everything; - prints it.")
    ] = None,
) -> None:
    """Measures the engine against stock ONNX Runtime and OpenVINO, fp32 and int8, with the same
    weights.

    The stock graphs are exported by transformers, fused by ONNX Runtime's own optimizer (the faster
    of its two fusions counts) and run on padded batches, as OpenVINO does; the engine runs the same
    texts packed. All live in this process and take turns on every batch, so that the ratios hold on
    a machine that is not quite idle.

    Workloads: lengths as in SST-2 (sst, 4 to 55 tokens) and IMDb (imdb, 24 to 492), or 512, 2048 or
    4096 tokens each (n512, ...), in batches of 1, 8 or 32 (b1, b8, b32) as they arrive, or sorted
    by length. Where texts are longer than the models take, every position table is repeated.

    Examples:

        crisp bench

        crisp bench --model models/sparse --workloads sst-b1,imdb-b1 --profile --json bench.json
    """
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from export.bench import inputs
    from export.bench import workloads as work
    from export.bench.peers import parse_peers
    from export.errors import ExportError
    from export.gpu import library_for
    from export.op_library import find_op_library
    from training.commands import quieten
    from training.files import output_file

    quieten()  # before anything loads transformers
    chosen = work.parse_workloads(workloads)
    others = parse_peers(peers)
    output, picture = output_file(json_file), inputs.plot_file(plot)
    folders = inputs.model_folders(model)
    if device not in ("cpu", "cuda"):
        raise ExportError(f"--device takes cpu or cuda, got {device!r}")
    if device == "cuda":
        _refuse_cpu_options(ctx)
        library = library_for("cuda", "fp16")  # before anything is made of torch
        from export.bench import cuda

        given: dict[str, Any] = {"seconds": seconds, "rounds": rounds, "seed": seed}
        cuda.deliver(
            cuda.measured(folders, chosen, library=library, **given),
            output,
            to_stdout=json_file == "-",
        )
        return
    labelled = inputs.labelled_texts(accuracy, folders)
    texts = inputs.calibration_texts(calibration)
    from export.bench.contenders import Options
    from training.machine import environment

    console = Console(stderr=json_file == "-", markup=False, emoji=False)
    with TemporaryDirectory(prefix="crisp-bench-") as temporary:
        options = Options(
            threads=threads,
            library=find_op_library(),
            longest=work.longest(chosen),
            temporary=Path(temporary),
            run=run,
            peers=others,
            calibration=texts,
        )
        settings = {"threads": threads, "seconds": seconds, "rounds": rounds, "seed": seed}
        result = _report(
            console, folders, options, chosen, labelled, settings, environment(), profile
        )
    _deliver(console, result, output, picture, to_stdout=json_file == "-")


def _refuse_cpu_options(ctx: typer.Context) -> None:
    """Raises ExportError for an option that `--device cuda` would not heed."""
    from export.errors import ExportError

    sources = {name: ctx.get_parameter_source(name) for name in _NOT_ON_CUDA}
    given = [f"--{name}" for name, source in sources.items() if source and source.name != "DEFAULT"]
    if given:
        raise ExportError(f"--device cuda takes no {', '.join(given)}: what is measured is fixed")


def _report(
    console: Console,
    folders: Sequence[ModelFolder],
    options: Options,
    workloads: Sequence[Workload],
    labelled: Sequence[LabelledTexts],
    settings: dict[str, Any],
    measured_on: dict[str, Any],
    profile: bool,
) -> Any:
    """Everything that is measured, in order: peaks, times, accuracies, profiles."""
    from dataclasses import replace
    from datetime import UTC, datetime

    from export.bench.accuracy import accuracies
    from export.bench.contenders import line_up
    from export.bench.profile import profiles
    from export.bench.report import Report
    from export.bench.roofline import measure_peaks
    from export.bench.texts import encoder
    from training.typed import typed

    started = datetime.now(UTC).isoformat(timespec="seconds")
    status = console.status("")

    def progress(what: str) -> None:
        status.update(f"{what} ...")

    with status:
        lined_up = line_up(folders, replace(options, progress=progress))
        progress("measuring the peak of this machine")
        peaks = measure_peaks(options.threads)
    found = _measured(lined_up, workloads, settings, console)
    contenders = lined_up.contenders
    shares = {}
    with status:
        progress("measuring the peak of this machine again")
        peaks = peaks.or_higher(measure_peaks(options.threads))
        if labelled:
            measured = accuracies(contenders, labelled, encoder(folders[0]), progress=progress)
            for name, accuracy in measured.items():
                lined_up.facts[name]["accuracy"] = accuracy
        if profile:
            shares = profiles(
                contenders,
                workloads,
                found,
                vocabulary=lined_up.architecture.vocabulary,
                seed=settings["seed"],
                folder=options.temporary,
                progress=progress,
            )
    return Report(
        contenders=lined_up.facts,
        rounds=found,
        baseline=lined_up.baseline,
        architecture=lined_up.architecture,
        peaks=peaks,
        library=options.library,
        settings=settings,
        command=typed(),
        started=started,
        environment=measured_on,
        profiles=shares,
        missing=lined_up.missing,
    )


def _measured(
    lined_up: LineUp, workloads: Sequence[Workload], settings: dict[str, Any], console: Console
) -> dict[str, Rounds]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    from export.bench.measure import measure

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # Redrawn between rounds alone: a thread that draws would take time from those measured.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("measuring", total=1.0)

        def advance(share: float, what: str) -> None:
            progress.update(bar, completed=share, description=what, refresh=True)

        return measure(
            lined_up.contenders,
            workloads,
            vocabulary=lined_up.architecture.vocabulary,
            seconds=settings["seconds"],
            rounds=settings["rounds"],
            seed=settings["seed"],
            advance=advance,
        )


def _deliver(
    console: Console, result: Any, output: Path | None, picture: Path | None, *, to_stdout: bool
) -> None:
    """Writes what was asked for, as a terminal may be gone, and prints the tables, as a disk may be
    full."""
    import json

    from export.bench import report, tables
    from training.files import write_atomically

    text = json.dumps(report.document(result), indent=2, ensure_ascii=False) + "\n"
    saved: list[Path] = []
    try:
        if output is not None:
            write_atomically(output, text)
            saved.append(output)
    finally:
        try:
            if picture is not None:
                from export.bench import picture as drawing

                drawing.save(result, picture)
                saved.append(picture)
        finally:
            tables.show(console, result)
            for file in saved:
                console.print(f"Saved {file}")
            if to_stdout:
                print(text, end="")
