"""The real Locust with our users: headless, and spread over a master and two workers."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_service import FakeService, fake_service, right

from loadtests.target import free_port

LOCUSTFILE = Path(__file__).resolve().parents[2] / "loadtests" / "locustfile.py"


def locust(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("LOCUST_")},
    )


def headless(server: FakeService, folder: Path) -> tuple[object, ...]:
    return (
        *("--headless", "--host", server.url, "--users", 4, "--spawn-rate", 4),
        *("--run-time", "2s", "--csv", folder / "load", "--exit-code-on-error", 0),
    )


def counted(folder: Path) -> tuple[int, int]:
    """Requests and failures as Locust counted them."""
    with (folder / "load_stats.csv").open(newline="") as stream:
        total = next(row for row in csv.DictReader(stream) if row["Name"] == "Aggregated")
    return int(total["Request Count"]), int(total["Failure Count"])


@pytest.mark.slow
def test_wrong_answers_are_failures(tmp_path: Path) -> None:
    def sometimes_wrong(request: dict[str, Any]) -> tuple[int, Any]:
        if len(server.requests) % 3 == 0:
            return 200, {"variant": "dense", "predictions": []}
        return right(request)

    with fake_service(sometimes_wrong) as server:
        process = locust(*headless(server, tmp_path), "--batch", 2, "--workload", "mixed")
        shown = process.communicate(timeout=60)[0]
    assert process.returncode == 0, shown
    requests, failures = counted(tmp_path)
    assert 0 < failures < requests
    assert "asked for variant 'sparse', 'dense' answered" in shown
    assert {len(request["texts"]) for request in server.requests} == {2}


@pytest.mark.slow
def test_a_master_and_two_workers_share_the_users_and_send_different_texts(tmp_path: Path) -> None:
    port = free_port()
    with fake_service() as server:
        workers = [locust("--worker", "--master-port", port) for _ in range(2)]
        options = ("--master", "--expect-workers", 2, "--master-bind-port", port)
        try:
            master = locust(*headless(server, tmp_path), *options)
            shown = master.communicate(timeout=90)[0]
            assert master.returncode == 0, shown
        finally:
            for worker in workers:
                worker.terminate()
                worker.communicate(timeout=20)
    requests, failures = counted(tmp_path)
    assert requests > 0
    assert failures == 0
    firsts = [request["texts"][0] for request in server.requests[:4]]
    assert len(set(firsts)) == 4
