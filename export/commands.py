"""The export commands: `crisp export` and `crisp bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from export.bench.command import bench
from training.options import (
    Density,
    Globals,
    K,
    Prune,
    PruneFloor,
    Size,
    Window,
    pattern_of,
)


def register(app: typer.Typer) -> None:
    """Adds this stage's commands to `app`."""
    app.command()(export)
    app.command()(bench)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="The model folder to make, e.g. models/sparse.")],
    precision: Annotated[str, typer.Option(help="int8 or fp32; fp16 is for GPUs.")] = "int8",
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Labelled texts on which accuracy is measured; several times for several. "
            "[default: the run's held-out texts]"
        ),
    ] = None,
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            help="Texts on which int8 or fp16 is held against fp32. "
            "[default: some of the training data]"
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="Another attention pattern than that of the run: dense, topk, blocktopk, band or "
            "block. [default: that of the run]"
        ),
    ] = None,
    density: Density = None,
    k: K = None,
    window: Window = None,
    size: Size = None,
    globals_: Globals = None,
    prune: Prune = None,
    prune_floor: PruneFloor = 16,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the folder `out`.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Exports a run to a packed ONNX model folder that `crisp serve` serves.

    Nothing is left behind where the graph differs from torch by more than 1e-4, or int8 or fp16
    from fp32 on more than 1 % of the calibration texts. With --attention or --prune the model gets
    another pattern or schedule than it was trained with; the manifest says so.

    Examples:

        crisp export runs/sparse --out models/sparse

        crisp export runs/dense --out models/pruned --prune 1,1,0.7,0.3,0.1 --prune-floor 8
    """
    from export.errors import ExportError
    from export.manifest import Precision

    if precision not in get_args(Precision):
        raise ExportError(f"--precision takes int8, fp32 or fp16, got {precision!r}")
    numbers = (density, k, window, size, globals_)
    if attention is None and any(number is not None for number in numbers):
        raise ExportError("the numbers of a pattern need its name: give --attention too")
    from training.commands import quieten

    quieten()
    from export.model_folder import export_run
    from training.pruning import TokenPruning

    manifest = export_run(
        run,
        out,
        precision=cast(Precision, precision),
        data=data or [],
        calibration=calibration or [],
        pattern=(
            None if attention is None else pattern_of(attention, density, k, window, size, globals_)
        ),
        pruning=None if prune is None else TokenPruning.parse(prune, prune_floor),
        replace=replace,
    )
    if as_json:
        typer.echo(json.dumps(manifest.model_dump(mode="json"), indent=2))
        return
    size = sum(facts.bytes for facts in manifest.files.values())
    typer.echo(
        f"{out}: {precision}, {size / 1e6:.1f} MB, {manifest.parameters / 1e6:.1f} M weights"
    )
    typer.echo(
        f"  fp32 graph against torch: logits differ by {manifest.parity['fp32_difference']:.1e} at "
        f"most, {manifest.parity['fp32_largest_difference']:.1e} at near ties of top-k"
    )
    if f"{precision}_disagreement" in manifest.parity:
        typer.echo(
            f"  {precision} against fp32: {manifest.parity[f'{precision}_disagreement']:.2%} of "
            f"{manifest.parity[f'{precision}_calibration_texts']:.0f} calibration texts get "
            "another label"
        )
    if f"{precision}_disagreement_held_out" in manifest.parity:
        typer.echo(
            f"  and {manifest.parity[f'{precision}_disagreement_held_out']:.2%} of "
            f"{manifest.parity[f'{precision}_held_out_texts']:.0f} held-out texts"
        )
    for found in manifest.measured:
        typer.echo(
            f"  accuracy on {found.data.name}: {100 * found.accuracy:.2f} % (95 % interval "
            f"{100 * found.low:.2f} to {100 * found.high:.2f}, n = {found.data.rows})"
        )
