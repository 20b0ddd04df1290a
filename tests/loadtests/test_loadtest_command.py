"""`crisp loadtest` as it is typed: against a small server of the test's, and the real service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_service import fake_service
from typer.testing import CliRunner, Result

import crisp
from loadtests.errors import LoadTestError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(crisp.app, ["loadtest", *map(str, arguments)])


def flat(text: str) -> str:
    """The text without the frame and the line breaks that a terminal adds."""
    return " ".join(text.replace("│", " ").split())


def test_a_load_test_prints_a_table_and_saves_everything(tmp_path: Path) -> None:
    output = tmp_path / "load.json"
    texts = tmp_path / "texts.txt"
    texts.write_text("A fine film.\nA dull one.\n")
    with fake_service() as server:
        done = run(
            *("--url", server.url, "--users", 2, "--duration", 1, "--rounds", 1),
            *("--texts", texts, "--json", output, "--plot"),
        )
    assert done.exit_code == 0, done.output
    for words in ("requests/s", "p50, ms", "p99, ms", "failures", "sparse against dense"):
        assert words in done.stdout
    content = json.loads(output.read_text())
    assert (content["complete"], content["stopped_by"]) == (True, None)
    assert content["service"]["models"]["default"] == "sparse"
    assert [turn["variant"] for turn in content["turns"]] == ["dense", "sparse"]
    for name, summary in content["summary"].items():
        latencies = [t["latencies_ms"] for t in content["turns"] if t["variant"] == name]
        assert summary["requests"] == len(latencies[0]) > 0
        assert summary["failures"] == 0
    assert content["ratios"]["sparse"].keys() == {"requests_per_second", "p50", "p95", "p99"}
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert {tuple(r["texts"]) for r in server.requests} == {("A fine film.",), ("A dull one.",)}


def test_a_service_without_right_answers_ends_the_test_with_its_message(
    tmp_path: Path,
) -> None:
    def broken(_: dict[str, Any]) -> tuple[int, Any]:
        return 500, {"error": {"code": "broken", "message": "it broke"}}

    output = tmp_path / "load.json"
    with fake_service(broken) as server:
        done = run("--url", server.url, "--users", 1, "--duration", 1, "--json", output)
    assert isinstance(done.exception, LoadTestError)
    assert "requests of round 1, dense failed" in str(done.exception)
    assert "HTTP 500: broken: it broke" in str(done.exception)
    assert "partial" in done.stdout
    content = json.loads(output.read_text())
    assert not content["complete"]
    assert "it broke" in content["stopped_by"]
    assert list(content["summary"]["dense"]["faults"]) == ["HTTP 500: broken: it broke"]


def test_an_unknown_variant_is_refused_with_those_there_are() -> None:
    with fake_service() as server:
        done = run("--url", server.url, "--variants", "dense,tiny")
        assert isinstance(done.exception, LoadTestError)
        assert "has no variant 'tiny'; it has dense, sparse" in str(done.exception)
        assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workload", "tweets"], "'tweets' is not one of sst, imdb, mixed"),
        (["--url", "http://127.0.0.1:1", "--models", "models"], "has its own models"),
        (["--variants", "dense,dense"], "expected different names"),
        (["--variants", ","], "expected different names"),
        (["--plot"], "needs --json FILE"),
        (["--plot", "--json", "-"], "needs --json FILE"),
        (["--json", "missing/load.json"], "cannot be written"),
        (["--users", "0"], "--users"),
    ],
)
def test_bad_usage_is_refused_before_anything_starts(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert complaint in flat(done.output)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_texts_file_is_refused_before_anything_starts(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n")
    done = run("--texts", texts)
    assert isinstance(done.exception, LoadTestError)
    assert "has no texts" in str(done.exception)


@pytest.mark.slow
def test_a_service_that_cannot_start_shows_its_last_words(tmp_path: Path) -> None:
    done = run("--models", tmp_path)
    assert isinstance(done.exception, LoadTestError)
    assert "the service ended with exit code 2" in str(done.exception)
    assert "holds no model folder" in str(done.exception)


@pytest.mark.slow
def test_the_real_service_is_started_driven_and_stopped(models_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "load.json"
    done = run(
        *("--models", models_dir, "--users", 2, "--duration", 2, "--rounds", 1),
        *("--batch", 3, "--workload", "mixed", "--json", output),
    )
    assert done.exit_code == 0, done.output
    content = json.loads(output.read_text())
    assert content["complete"]
    assert content["service"]["started_with"].startswith("crisp serve --host 127.0.0.1 --port ")
    assert set(content["service"]["models"]["variants"]) == {"dense", "sparse"}
    for summary in content["summary"].values():
        assert summary["failures"] == 0
        assert summary["requests"] > 0
        assert summary["tokens_per_second"] > summary["texts_per_second"]
    assert psutil.Process().children(recursive=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_test_keeps_its_results_and_leaves_nothing_running(
    number: signal.Signals, models_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "load.json"
    command = [sys.executable, "-m", "crisp", "loadtest", "--models", str(models_dir)]
    command += ["--users", "2", "--duration", "600", "--json", str(output)]
    root = Path(crisp.__file__).parent
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=root, stdout=log, stderr=log, env=os.environ)
    family: list[psutil.Process] = []
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        # The last child, Locust, needs a few seconds more until its users have started.
        if any("locust" in " ".join(child.cmdline()) for child in family):
            time.sleep(10)
            break
        time.sleep(0.5)
    assert len(family) >= 2, (tmp_path / "log").read_text()
    process.send_signal(number)
    assert process.wait(60) == 130, (tmp_path / "log").read_text()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    content = json.loads(output.read_text())
    assert not content["complete"]
    assert content["stopped_by"] == "interrupted"
    (turn,) = content["turns"]
    assert not turn["complete"]
    assert turn["requests"] > 0
