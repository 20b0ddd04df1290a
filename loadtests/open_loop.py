"""Open-loop load from several processes: requests leave when they are due, whatever the answers do.

A closed loop, where each client waits for its answer, sends less when the server slows down, and so
hides what users would have met. Here the schedule stands before the first request, latency counts
from the time at which a request was due, and the result says where the generator itself could not
keep up (`Measurement.limited_by`).

    with OpenLoop(processes=1) as generator:
        measurement = generator.run(Load(url, variant="sparse", rate=50.0, seconds=10.0))

By itself, against a server that runs:

    python -m loadtests.open_loop --url http://127.0.0.1:3000 --variant sparse --rate 50
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from loadtests.adapters import ADAPTERS
from loadtests.errors import LoadTestError
from loadtests.measurement import Measurement, side_by_side
from loadtests.sender import Load
from loadtests.target import last_lines, stop
from loadtests.workloads import WORKLOADS

_SECONDS_TO_PREPARE = 60.0
_SECONDS_TO_START = 0.05  # from the order to the first request, so that all processes are awake
_SECONDS_TO_STOP = 5.0
# One process sends several times as much on most machines; docs/loadtests.md has figures.
REQUESTS_A_PROCESS = 2000.0


class OpenLoop:
    """Generator processes that wait for loads; none outlives the `with` block, or this process."""

    def __init__(self, processes: int = 1) -> None:
        self._answers: queue.Queue[tuple[int, str]] = queue.Queue()
        self._folder = tempfile.TemporaryDirectory(prefix="crisp-generator-")
        self._log = Path(self._folder.name) / "log"
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        with self._log.open("wb") as log:
            for number in range(processes):
                process = subprocess.Popen(
                    [sys.executable, "-m", "loadtests.sender"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,  # Ctrl-C reaches it through us
                )
                self._processes.append(process)
                reader = threading.Thread(target=self._read, args=(number, process.stdout))
                reader.start()
                self._readers.append(reader)

    def run(
        self,
        load: Load,
        *,
        tick: Callable[[float], None] = lambda _: None,
        keep: Callable[[Measurement], None] = lambda _: None,
    ) -> Measurement:
        """Carries out a load. `tick(seconds)` is called several times a second and may raise, as
        Ctrl-C does: then `keep` gets what was measured until then, marked incomplete.

        Raises LoadTestError where the load makes no sense or a generator process dies.
        """
        of = len(self._processes)
        for index in range(of):
            self._order(index, {"load": load.to_dict(), "index": index, "of": of})
        for answer in self._gather(_SECONDS_TO_PREPARE, tick=lambda: None):
            if "error" in answer:
                self._order_all({"stop": True})
                raise LoadTestError(answer["error"])
        start = time.monotonic() + _SECONDS_TO_START
        self._order_all({"start": start})
        limit = load.seconds + load.timeout + _SECONDS_TO_STOP
        try:
            found = self._gather(limit, tick=lambda: tick(max(0.0, time.monotonic() - start)))
            self._order_all({"stop": True})
        except BaseException:
            self._order_all({"stop": True})
            with suppress(LoadTestError):
                keep(_added(self._gather(_SECONDS_TO_STOP, tick=lambda: None)))
            raise
        return _added(found)

    def __enter__(self) -> OpenLoop:
        return self

    def __exit__(self, *_: object) -> None:
        for process, reader in zip(self._processes, self._readers, strict=True):
            stop(process, seconds=1.0)
            reader.join()
            for stream in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):  # an order that was never read
                    assert stream is not None
                    stream.close()
        self._folder.cleanup()

    def _read(self, number: int, stream: IO[str] | None) -> None:
        assert stream is not None
        for line in stream:
            self._answers.put((number, line))
        self._answers.put((number, ""))  # it has ended

    def _order_all(self, content: dict[str, Any]) -> None:
        for index in range(len(self._processes)):
            self._order(index, content)

    def _order(self, index: int, content: dict[str, Any]) -> None:
        stream = self._processes[index].stdin
        assert stream is not None
        with suppress(BrokenPipeError):  # the answer that is missing will say so
            stream.write(json.dumps(content) + "\n")
            stream.flush()

    def _gather(self, seconds: float, tick: Callable[[], None]) -> list[dict[str, Any]]:
        """One answer of each process."""
        found: dict[int, dict[str, Any]] = {}
        until = time.monotonic() + seconds
        while len(found) < len(self._processes):
            try:
                number, line = self._answers.get(timeout=0.2)
            except queue.Empty:
                tick()
                if time.monotonic() > until:
                    raise LoadTestError(
                        f"a generator process did not answer within {seconds:.0f} s"
                    ) from None
                continue
            if not line:
                raise LoadTestError(f"a generator process ended; {last_lines(self._log)}")
            found[number] = json.loads(line)
        return [found[number] for number in sorted(found)]


def _added(answers: list[dict[str, Any]]) -> Measurement:
    return side_by_side(Measurement.from_dict(answer["measurement"]) for answer in answers)


def main(
    url: Annotated[str, typer.Option(help="A server that runs.")],
    rate: Annotated[float, typer.Option(help="Requests a second, on average.")] = 10.0,
    seconds: Annotated[float, typer.Option(help="How long.")] = 10.0,
    variant: Annotated[str, typer.Option(help="The model that answers.")] = "sparse",
    adapter: Annotated[str, typer.Option(help=f"Kind of server: {', '.join(ADAPTERS)}.")] = "crisp",
    arrivals: Annotated[
        str, typer.Option(help="poisson, bursts, ramp, even or replay:FILE.")
    ] = "poisson",
    workload: Annotated[
        str, typer.Option(help=f"Lengths of the texts: {', '.join(WORKLOADS)}.")
    ] = "sst",
    texts: Annotated[Path | None, typer.Option(help="Send the lines of this file instead.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts in each request.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Generator processes.")] = 1,
    connections: Annotated[int, typer.Option(min=1, help="Most requests under way.")] = 400,
    timeout: Annotated[float, typer.Option(help="Seconds until an answer counts as none.")] = 30.0,
    seed: Annotated[str, typer.Option(help="Seed of texts and arrivals.")] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sends one window of open-loop load and prints what came of it."""
    load = Load(
        url,
        adapter=adapter,
        variant=variant,
        rate=rate,
        seconds=seconds,
        arrivals=arrivals,
        workload=workload,
        texts=texts,
        batch=batch,
        seed=seed,
        timeout=timeout,
        connections=connections,
    )
    shown: list[Measurement] = []
    try:
        with OpenLoop(processes) as generator:
            shown.append(generator.run(load, keep=shown.append))
    except LoadTestError as error:
        sys.exit(f"error: {error}")
    finally:
        for measurement in shown:
            print(json.dumps(measurement.to_dict()) if as_json else _described(measurement))


def _described(found: Measurement) -> str:
    """A few lines for the terminal."""
    rates = [found.planned, found.sent, found.right]
    planned, sent, right = (count / found.seconds if found.seconds else 0.0 for count in rates)
    lines = [
        f"{found.seconds:.1f} s: {planned:.1f} requests/s due, {sent:.1f} sent, {right:.1f} right",
        "latency from when they were due, ms: " + _row(found.latency.percentiles()),
        "from when they were sent, ms:        " + _row(found.service.percentiles()),
        "generator: late by, ms:              "
        + _row(found.lag.percentiles())
        + f"; {100 * found.busy:.0f} % of a core",
    ]
    lines += [f"{times:,} × {fault}" for fault, times in found.faults.most_common()]
    if found.unsent:
        lines.append(f"{found.unsent:,} could not be sent: all connections waited for answers")
    if found.limited_by:
        lines.append(f"The generator may have been the limit: {found.limited_by}.")
    return "\n".join(lines if found.complete else ["stopped early", *lines])


def _row(percentiles: dict[str, float | None]) -> str:
    return "  ".join(f"{k} {v:.1f}" for k, v in percentiles.items() if v is not None) or "none"


if __name__ == "__main__":
    typer.run(main)
