"""The `crisp loadtest` command."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadtests.errors import LoadTestError

if TYPE_CHECKING:
    from rich.console import Console

    from loadtests.drive import Plan, Turn
    from loadtests.target import Target

_TERMINATIONS = (signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGTERM,)


def register(app: typer.Typer) -> None:
    """Adds this stage's commands to `app`."""
    app.command()(loadtest)


def loadtest(
    url: Annotated[
        str | None, typer.Option(help="A service that runs; without it, one is started.")
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(help="Models of the started service.", show_default="the bundled models"),
    ] = None,
    variants: Annotated[str, typer.Option(help="Which to drive, by comma.")] = "dense,sparse",
    users: Annotated[int, typer.Option(min=1, help="Clients that send at the same time.")] = 8,
    spawn_rate: Annotated[
        float | None,
        typer.Option(min=0.01, help="Clients started a second.", show_default="all at once"),
    ] = None,
    duration: Annotated[int, typer.Option(min=1, help="Seconds a variant and round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each variant has its turn.")] = 3,
    workload: Annotated[
        str, typer.Option(help="Lengths of the generated texts: sst, imdb or mixed.")
    ] = "sst",
    texts: Annotated[Path | None, typer.Option(help="Send the lines of this file instead.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts in each request.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the texts and their order.")] = 0,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Save everything; - prints it.")
    ] = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw a picture too, a .png beside --json's file.")
    ] = False,
) -> None:
    """Puts each variant under the same load with Locust, in turns, and compares them.

    The service is started for the test and stopped after it, or is one that runs (--url). Wrong
    answers count as failures; the exit code is 1 where there was any.

    Examples:

        crisp loadtest --users 16 --duration 30 --json load.json --plot

        crisp loadtest --url http://127.0.0.1:3000 --workload imdb --batch 4
    """
    from rich.console import Console

    from loadtests import report, workloads
    from loadtests.drive import Plan

    if workload not in workloads.WORKLOADS:
        known = ", ".join(workloads.WORKLOADS)
        raise typer.BadParameter(f"{workload!r} is not one of {known}", param_hint="--workload")
    if url is not None and models is not None:
        raise typer.BadParameter("a service that runs has its own models", param_hint="--models")
    if texts is not None:
        workloads.read_texts(texts)  # complains before anything starts
    environment = report.environment()
    if plot:
        import loadtests.picture  # noqa: F401  likewise, where Matplotlib is missing
    output = _output_file(json_file, plot)
    plan = Plan(
        variants=_names(variants),
        users=users,
        spawn_rate=spawn_rate or float(users),
        duration=duration,
        rounds=rounds,
        workload=workload,
        texts=texts,
        batch=batch,
        seed=seed,
    )
    console = Console(stderr=json_file == "-")
    started = datetime.now(UTC)
    turns: list[Turn] = []
    with _termination_as_interrupt(), _target(url, models, console) as target:
        _check_variants(plan, target)
        stopped_by = _drive(plan, target, turns, console)
        content = report.document(
            turns,
            environment=environment,
            complete=stopped_by is None,
            stopped_by=(str(stopped_by) or "interrupted") if stopped_by else None,
            command=shlex.join(["crisp", *sys.argv[1:]]),
            started=started.isoformat(timespec="seconds"),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            plan=plan.to_dict(),
            service={
                "url": target.url,
                "started_with": target.started_with,
                "models": target.models,
            },
        )
        if turns:
            report.show(console, turns)
        if stopped_by is not None:
            console.print("The test was stopped: what there is, is partial.", style="yellow")
        if output is not None:
            _save(report.dump(content), turns, output, console, plot=plot)
        elif json_file == "-":
            print(report.dump(content), end="")
    if stopped_by is not None:
        raise stopped_by
    if any(turn.faults for turn in turns):
        raise typer.Exit(1)


def _drive(
    plan: Plan, target: Target, turns: list[Turn], console: Console
) -> LoadTestError | KeyboardInterrupt | None:
    """Carries out the plan; returns what stopped it, so that the results are saved first."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from loadtests.drive import drive

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        turns_planned = plan.rounds * len(plan.variants)
        bar = progress.add_task("starting Locust", total=turns_planned * plan.seconds_a_turn)

        def tick(what: str, seconds: float) -> None:
            done = len(turns) * plan.seconds_a_turn + seconds
            progress.update(bar, completed=done, description=what)

        try:
            drive(plan, target, turns, tick)
        except (LoadTestError, KeyboardInterrupt) as stopped_by:
            return stopped_by
    return None


@contextmanager
def _target(url: str | None, models: Path | None, console: Console) -> Iterator[Target]:
    from loadtests.target import running_service, started_service

    if url is not None:
        yield running_service(url)
        return
    with ExitStack() as stack:
        with console.status("Starting the service ..."):
            target = stack.enter_context(started_service(models))
        yield target


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the test as Ctrl-C does: results saved, the service stopped."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _TERMINATIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _names(variants: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in variants.split(",") if name.strip())
    if not names or len(set(names)) < len(names):
        raise typer.BadParameter(
            f"expected different names by comma, got {variants!r}", param_hint="--variants"
        )
    return names


def _check_variants(plan: Plan, target: Target) -> None:
    for name in plan.variants:
        if name not in target.variants:
            known = ", ".join(target.variants)
            raise LoadTestError(
                f"the service at {target.url} has no variant {name!r}; it has {known}: "
                "choose with --variants"
            )


def _output_file(json_file: str | None, plot: bool) -> Path | None:
    path = Path(json_file) if json_file not in (None, "-") else None
    if path is None:
        if plot:
            raise typer.BadParameter("needs --json FILE, beside which it goes", param_hint="--plot")
        return None
    if path.is_dir() or not path.parent.is_dir():
        raise typer.BadParameter(
            f"{path} cannot be written: give a file in a folder that exists", param_hint="--json"
        )
    return path


def _save(text: str, turns: list[Turn], path: Path, console: Console, *, plot: bool) -> None:
    from loadtests import picture, report

    report.write(text, path)
    console.print(f"Saved {path}", markup=False)
    if plot and turns:
        picture.save(turns, path.with_suffix(".png"))
        console.print(f"Saved {path.with_suffix('.png')}", markup=False)
