"""`crisp bench --http`: an option of the export stage's command, which may not import this one."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

Http = Annotated[
    bool,
    typer.Option(
        "--http",
        help="Measure instead what HTTP costs on top of the engine, for 32 connections and for "
        "one, with one worker and with one for each core; takes --model, --seconds and --json.",
    ),
]


def with_http(bench: Callable[..., None]) -> Callable[..., None]:
    """`bench` with the option --http."""

    @wraps(bench)
    def command(*, http: bool, **options: Any) -> None:
        if not http:
            bench(**options)
            return
        run(options.get("model"), options["seconds"], options.get("json_file"))

    signature = inspect.signature(bench, eval_str=True)
    option = inspect.Parameter(
        "http", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Http
    )
    keyword = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in signature.parameters.values()
    ]
    command.__signature__ = signature.replace(parameters=[*keyword, option])  # type: ignore[attr-defined]
    return command


def run(model: list[Path] | None, seconds: float, json_file: str | None) -> None:
    """Measures, and prints what was found."""
    from rich.console import Console
    from rich.progress import Progress

    from export.processors import processors
    from service.bench.client import BenchError
    from service.bench.overhead import measure
    from service.settings import BUNDLED_MODELS

    output = None if json_file in (None, "-") else Path(json_file)
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise typer.BadParameter(
            f"{output} cannot be written: give a file in a folder that exists", param_hint="--json"
        )
    if model and len(model) > 1:
        raise BenchError("--http measures one model: give --model once")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rounds", total=1.0)
        found = measure(
            model[0] if model else BUNDLED_MODELS,
            seconds=seconds,
            workers=sorted({1, processors()}),
            advance=lambda share: progress.update(task, completed=share),
        )
    summaries = [each.summary() for each in found]
    if json_file == "-":
        typer.echo(json.dumps(summaries, indent=1))
        return
    if output is not None:
        temporary = output.with_name(output.name + ".tmp")
        temporary.write_text(json.dumps(summaries, indent=1) + "\n", encoding="utf-8")
        temporary.replace(output)
    for summary in summaries:
        share, (low, high) = summary["share"], summary["share_interval"]
        added, (least, most) = summary["added_ms_median"], summary["added_ms_interval"]
        rounds, workers = summary["rounds"], summary["workers"]
        typer.echo(f"crisp serve --workers {workers}, one text a request, {rounds} rounds:")
        typer.echo(
            f"  {summary['connections']} connections: {100 * share:.0f} % of the engine's batched "
            f"throughput (95 % interval {100 * low:.0f} to {100 * high:.0f})"
        )
        typer.echo(
            f"  one connection: {added:.2f} ms beyond the engine's time (95 % interval {least:.2f} "
            f"to {most:.2f})"
        )
    sys.stdout.flush()
