"""The `crisp loadtest` command, and `crisp loadtest report`."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadtests.errors import LoadTestError

if TYPE_CHECKING:
    from rich.console import Console

    from loadtests.campaign import Campaign, Contender
    from loadtests.plan import Plan

RESULTS = Path("results")
_TERMINATIONS = (signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGTERM,)
_QUICK: dict[str, Any] = {
    "seconds": 2.0,
    "stretch": 1.0,
    "budget": 60.0,
    "fractions": (0.5, 0.9, 1.1),
}

group = typer.Typer(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Adds this stage's commands to `app`."""
    app.add_typer(group, name="loadtest")


@group.callback()
def loadtest(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option(help="A service that runs; without it, one is started.")
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(help="Models of the started service.", show_default="the bundled models"),
    ] = None,
    variants: Annotated[
        str, typer.Option(help="Which to drive, by comma; the first is the baseline.")
    ] = "dense,sparse",
    peers: Annotated[
        str, typer.Option(help="Other servers of the dense weights to start, by comma, or all.")
    ] = "",
    compare_url: Annotated[
        list[str] | None,
        typer.Option(help="Another server that runs: [NAME=]ADAPTER+URL[#MODEL]. Repeatable."),
    ] = None,
    slo_ms: Annotated[
        float, typer.Option(min=0.1, help="What 99 % of the requests may take, ms.")
    ] = 100.0,
    workload: Annotated[
        str, typer.Option(help="Lengths of the generated texts: sst, imdb or mixed.")
    ] = "sst",
    texts: Annotated[Path | None, typer.Option(help="Send the lines of this file instead.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts in each request.")] = 1,
    arrivals: Annotated[
        str, typer.Option(help="poisson, bursts, ramp, even or replay:FILE.")
    ] = "poisson",
    seconds: Annotated[float, typer.Option(min=0.1, help="Of a window of load.")] = 5.0,
    budget: Annotated[float, typer.Option(min=1, help="Seconds for all of it, about.")] = 600.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="An answer within about a minute, less certain.")
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="Processes that send.")] = 1,
    connections: Annotated[int, typer.Option(min=1, help="Most requests under way.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of texts and arrivals.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder in which each run gets one with its results.")
    ] = RESULTS,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Save the results there too.")
    ] = None,
    accuracy: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="JSON of `crisp compare` for the report. Repeatable."),
    ] = None,
) -> None:
    """Finds out how many requests a second each variant carries, and draws a report.

    The service is started for the test and stopped after it, or is one that runs (--url). Requests
    leave at random times, whether or not earlier ones are answered. Wrong answers are failures.

    Examples:

        crisp loadtest --quick

        crisp loadtest --workload mixed --slo-ms 200 --budget 900

        crisp loadtest --url http://127.0.0.1:3000 --compare-url hf+http://127.0.0.1:8080

        crisp loadtest report results/2026-11-25_10-00-00/loadtest.json
    """
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console

    from loadtests import files, lineup, remarks, report, results, workloads
    from loadtests.plan import Plan

    if workload not in workloads.WORKLOADS:
        known = ", ".join(workloads.WORKLOADS)
        raise typer.BadParameter(f"{workload!r} is not one of {known}", param_hint="--workload")
    if url is not None and models is not None:
        raise typer.BadParameter("a service that runs has its own models", param_hint="--models")
    if url is not None and peers:
        message = "peers share this machine with a service that is started here; leave --url out"
        raise typer.BadParameter(message, param_hint="--peers")
    files.check(out, json_file)
    if texts is not None:
        workloads.read_texts(texts)  # complains before anything starts
    _check_arrivals(arrivals)
    compared = report.read_accuracy(accuracy or [])
    settings: dict[str, Any] = {
        "slo_ms": slo_ms,
        "seconds": seconds,
        "budget": budget,
        "arrivals": arrivals,
        "workload": workload,
        "texts": texts,
        "batch": batch,
        "seed": seed,
        "processes": processes,
        "connections": connections,
    }
    if quick:  # what was asked for by itself stays so
        settings |= {name: value for name, value in _QUICK.items() if not _typed(context, name)}
    plan = Plan(**settings)
    names, wanted = lineup.variant_names(variants), lineup.peer_names(peers)
    others = [lineup.other_server(each) for each in compare_url or []]
    plan.check(len(names) + len(wanted) + len(others))
    console = Console(markup=False, emoji=False)
    started, machine = datetime.now(UTC), results.environment()
    with _termination_as_interrupt(), ExitStack() as stack:
        with console.status("Starting the servers ..."):
            contenders = lineup.contenders(stack, url, models, names, wanted, others)
        campaign = _generator(stack, plan, contenders)
        if busy := remarks.busy(machine["load_average_before"], machine["cores"]):
            campaign.notes["the machine"] = busy
        stopped_by = _run(campaign, console)
        content = _document(campaign, started, stopped_by, compared, machine)

    saved: list[Path] = []
    try:
        if campaign.windows:
            _save(content, out / started.strftime("%Y-%m-%d_%H-%M-%S"), json_file, saved)
    except OSError as error:
        where = error.filename or out
        raise LoadTestError(f"cannot write {where}: {error.strerror}") from None
    finally:  # after it is saved: a terminal may be gone
        results.show(console, campaign)
        if stopped_by is not None:
            console.print("The test was stopped: what there is, is partial.", style="yellow")
        for path in saved:
            console.print(f"Saved {path}")
    if stopped_by is not None:
        raise stopped_by


@group.command("report")
def report_command(
    results: Annotated[Path, typer.Argument(help="JSON of `crisp loadtest`.")],
    against: Annotated[
        Path | None,
        typer.Option(help="Older JSON: says what changed, and whether it is more than noise."),
    ] = None,
    accuracy: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="JSON of `crisp compare`. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and its pictures.")
    ] = None,
    fail_on_drop: Annotated[
        bool,
        typer.Option("--fail-on-drop", help="Exit with 1 where a ratio is lower beyond noise."),
    ] = False,
) -> None:
    """Draws the report of a load test anew from its JSON alone: an HTML file and its pictures.

    Examples:

        crisp loadtest report results/2026-11-25_10-00-00/loadtest.json

        crisp loadtest report new.json --against old.json
    """
    from rich.console import Console

    from loadtests import changes, report
    from loadtests import results as stored

    console = Console(markup=False, emoji=False)
    content = stored.load(results)
    older = None if against is None else stored.load(against)
    if accuracy:
        content["accuracy"] = report.read_accuracy(accuracy)
    folder = results.parent if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    for path in report.write(content, folder, source=results, against=older):
        console.print(f"Saved {path}")
    if older is not None:
        found = changes.changes(content, older)
        changes.show(console, found, changes.warnings(content, older))
        if fail_on_drop and any(change.dropped for change in found):
            raise typer.Exit(1)


def _typed(context: typer.Context, name: str) -> bool:
    """The option is in the command line, rather than left to its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_arrivals(process: str) -> None:
    from loadtests.arrivals import arrivals

    arrivals(process, rate=1.0, seconds=1.0, seed=0)  # complains before anything starts


def _generator(stack: ExitStack, plan: Plan, contenders: list[Contender]) -> Campaign:
    from loadtests.campaign import Campaign
    from loadtests.open_loop import OpenLoop

    generator = stack.enter_context(OpenLoop(plan.processes))
    return Campaign(plan, contenders, generator)


def _run(campaign: Campaign, console: Console) -> LoadTestError | KeyboardInterrupt | None:
    """Carries out the plan; returns what stopped it, so that the results are saved first."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("warming up", total=campaign.plan.budget)

        def tick(what: str, seconds: float) -> None:
            progress.update(bar, completed=seconds, description=what)

        try:
            campaign.run(tick)
        except (LoadTestError, KeyboardInterrupt) as stopped_by:
            return stopped_by
    return None


def _document(
    campaign: Campaign,
    started: datetime,
    stopped_by: BaseException | None,
    accuracy: list[dict[str, Any]],
    machine: dict[str, Any],
) -> dict[str, Any]:
    from loadtests import files, results

    return results.document(
        campaign,
        complete=stopped_by is None,
        stopped_by=(str(stopped_by) or "interrupted") if stopped_by else None,
        command=shlex.join(["crisp", *map(files.shown, sys.argv[1:])]),
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=machine,
        accuracy=accuracy,
    )


def _save(content: dict[str, Any], folder: Path, json_file: Path | None, saved: list[Path]) -> None:
    """Writes the results and the report; `saved` gets what is written."""
    from loadtests import files, report, results

    text, file = results.dump(content), folder / "loadtest.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(text, file)
        saved.append(file)
    finally:  # also where the folder is gone by now, or its disk full
        if json_file is not None:
            files.write(text, json_file)
            saved.append(json_file)
    saved += report.write(content, folder, source=file)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the test as Ctrl-C does: results saved, the service stopped. After a
    SIGHUP the terminal is gone, and what is printed goes nowhere.

    A SIGHUP that the caller has ignored, as nohup does, stays so; and so does SIGINT, which shells
    ignore for what they start in the background. SIGTERM always works.
    """

    terminals = [stream for stream in (1, 2) if os.isatty(stream)]  # one that is gone says no

    def interrupt(number: int, _: object) -> None:
        if number != signal.SIGTERM:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in terminals:
                os.dup2(nowhere, stream)
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt)
        for number in _TERMINATIONS
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
