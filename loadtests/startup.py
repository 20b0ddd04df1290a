"""How long `crisp serve` takes until it is ready, and how much memory it then holds.

    python -m loadtests.startup --starts 5 --json startup.json

Starts the service anew each time, reads its ready time off the clock, sends 50 requests with texts
of mixed lengths to its variants in turn, and asks the system for the resident memory of each of its
processes: the largest of them serves, the others only watch over it.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import psutil
import typer

from loadtests import files
from loadtests.errors import LoadTestError
from loadtests.results import environment
from loadtests.target import Target, started_service
from loadtests.workloads import generated_texts

BATCHES = (1, 1, 1, 8, 32)  # texts of the requests, over and over


def main(
    models: Annotated[
        Path | None, typer.Option(help="Models to serve.", show_default="the bundled models")
    ] = None,
    starts: Annotated[int, typer.Option(min=1, help="Times that the service is started.")] = 3,
    requests: Annotated[int, typer.Option(min=1, help="Requests before memory is read.")] = 50,
    json_file: Annotated[Path | None, typer.Option("--json", help="Save everything there.")] = None,
) -> None:
    """Measures how long the service takes to start, and its memory."""
    machine, found = environment(), []
    for number in range(starts):
        try:
            found.append(one_start(models, requests, seed=number))
        except LoadTestError as error:
            raise typer.BadParameter(str(error)) from None
        seconds, resident = found[-1]["ready_seconds"], found[-1]["resident_mib"]
        held = ", ".join(f"{value:.0f}" for value in resident)
        print(f"ready after {seconds:.2f} s; resident MiB of each process: {held}", flush=True)
    ready = median(start["ready_seconds"] for start in found)
    serving = max(start["resident_mib"][0] for start in found)
    print(
        f"median of {starts}: ready after {ready:.2f} s; serving process: at most {serving:.0f} MiB"
    )
    if json_file is not None:
        record = {"environment": machine, "requests": requests, "starts": found}
        files.write(json.dumps(record, indent=1) + "\n", json_file)


def one_start(models: Path | None, requests: int, seed: int = 0) -> dict[str, Any]:
    """Seconds from the start of the process to the first answer of /readyz; resident memory in MiB
    of its processes after `requests`, largest first. Raises LoadTestError as `started_service`."""
    with started_service(models) as target:
        send(target, requests, seed)
        resident = sorted((rss(process) for process in target.processes), reverse=True)
        return {
            "ready_seconds": target.ready_seconds,
            "resident_mib": [each / 2**20 for each in resident],
        }


def send(target: Target, requests: int, seed: int) -> None:
    """Requests of mixed sizes and lengths, the variants in turn; raises LoadTestError where one is
    not answered."""
    texts = generated_texts("mixed", seed)
    with httpx.Client(base_url=target.url, timeout=60) as client:
        for i in range(requests):
            variant = target.variants[i % len(target.variants)]
            batch = list(islice(texts, BATCHES[i % len(BATCHES)]))
            response = client.post("/predict", json={"texts": batch, "variant": variant})
            if not response.is_success:
                raise LoadTestError(f"/predict gave HTTP {response.status_code}: {response.text}")


def rss(process: psutil.Process) -> int:
    """Resident bytes of a process; 0 where it has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


if __name__ == "__main__":
    typer.run(main)
