"""The peers: what is missing is said; those that are installed answer as the dense model does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import crisp
from loadtests.adapters import ADAPTERS
from loadtests.campaign import Contender
from loadtests.errors import LoadTestError
from loadtests.peers import launch
from loadtests.peers.launch import PEERS, started_peer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [
    line.split("\t")[0]
    for file in ("train.tsv", "dev.tsv")
    for line in (ROOT / "examples" / file).read_text().splitlines()[1:]
]
# Of the 80 examples. int8 rounds once more, so that a text on the fence may fall to the other side.
MOST_DIFFERENT = {"fp32": 0, "int8": 4}


def test_every_peer_has_its_pinned_requirements() -> None:
    for name in PEERS:
        file = launch.FOLDER / "requirements" / f"{launch.environment_of(name)}.txt"
        lines = file.read_text().splitlines()
        assert lines
        assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_every_peer_has_an_adapter() -> None:
    assert {peer.adapter for peer in PEERS.values()} <= set(ADAPTERS)


def test_a_peer_that_is_not_installed_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "INSTALLED", tmp_path)
    with (
        pytest.raises(LoadTestError, match=r"litserve is not installed: run .*setup.sh"),
        started_peer("litserve"),
    ):
        pass


def test_a_peer_without_its_weights_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "litserve" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(launch, "INSTALLED", tmp_path)
    monkeypatch.setattr(launch, "MODELS", tmp_path / "models")
    with (
        pytest.raises(LoadTestError, match=r"fp32\.onnx is missing: run .*setup.sh models"),
        started_peer("litserve"),
    ):
        pass


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, python: str = "") -> None:
    """The peer litserve, as it looks from outside, with this script in its interpreter's place."""
    for file in ("litserve/bin/python", "models/fp32.onnx"):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).touch()
    (folder / "litserve/bin/python").write_text(python)
    (folder / "litserve/bin/python").chmod(0o755)
    monkeypatch.setattr(launch, "INSTALLED", folder)
    monkeypatch.setattr(launch, "MODELS", folder / "models")


def test_a_peer_has_as_many_threads_as_there_are_cores_or_as_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two cores, as with taskset."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.delenv("PEER_THREADS", raising=False)
    installed(tmp_path, monkeypatch)
    given: dict[str, Any] = {}

    @contextmanager
    def started(*_: Any, environment: dict[str, str], **options: Any) -> Iterator[None]:
        given.update(environment, **options)
        yield

    monkeypatch.setattr(launch, "started", started)
    with started_peer("litserve"):
        pass
    assert (given["PEER_THREADS"], given["OMP_NUM_THREADS"]) == ("1", "1")
    monkeypatch.setenv("PEER_THREADS", "3")
    with started_peer("litserve"):
        pass
    assert (given["PEER_THREADS"], given["OMP_NUM_THREADS"]) == ("3", "3")
    assert given["shown"].startswith("PEER_THREADS=3 ")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_a_peer_that_breaks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "#!/bin/sh\necho 'no such operator'\nexit 1\n")
    match = r"(?s)the peer litserve ended with exit code 1; .*no such operator"
    with pytest.raises(LoadTestError, match=match), started_peer("litserve"):
        pass


def test_a_missing_peer_and_a_short_budget_are_told_before_any_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "INSTALLED", tmp_path)

    def started(_: Path | None) -> Any:
        raise AssertionError("a server was started")

    monkeypatch.setattr("loadtests.lineup.started_service", started)
    for options, complaint in (
        (["--peers", "litserve"], "the peer litserve is not installed"),
        (["--budget", "10"], "a budget of 10 s is too short"),
    ):
        done = CliRunner().invoke(crisp.app, ["loadtest", "--out", str(tmp_path / "o"), *options])
        assert isinstance(done.exception, LoadTestError)
        assert complaint in str(done.exception)


@pytest.fixture(scope="module")
def dense_labels() -> list[str]:
    """What the bundled dense model says of the examples."""
    command = [sys.executable, "-m", "crisp", "predict", "--variant", "dense", "--json", *EXAMPLES]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    return [json.loads(line)["label"] for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left_running")
@pytest.mark.parametrize("name", PEERS)
def test_an_installed_peer_gives_the_labels_of_the_dense_model_and_is_stopped(
    name: str, dense_labels: list[str]
) -> None:
    if not (launch.INSTALLED / launch.environment_of(name) / "bin" / "python").exists():
        pytest.skip(f"{name} is not installed: run loadtests/peers/setup.sh")
    with started_peer(name) as contender:
        labels = []
        for start in range(0, len(EXAMPLES), 8):
            labels += best_labels(contender, EXAMPLES[start : start + 8])
        assert contender.facts["bytes"] > 1e7
    differ = [text for text, a, b in zip(EXAMPLES, labels, dense_labels, strict=True) if a != b]
    assert len(differ) <= MOST_DIFFERENT[PEERS[name].precision], differ


def best_labels(contender: Contender, texts: list[str]) -> list[str]:
    """What a peer answers, once its answer was judged right."""
    adapter = ADAPTERS[contender.target.adapter]
    answer = httpx.post(
        contender.target.url + adapter.path,
        json=adapter.body(texts, contender.variant),
        timeout=60,
    )
    judged = adapter.judge(answer.status_code, answer.content, contender.variant, len(texts))
    assert judged.fault is None
    content = answer.json()
    predictions = content["data"] if adapter is ADAPTERS["infinity"] else content["predictions"]
    return [
        max(each, key=lambda p: p["score"])["label"] if isinstance(each, list) else each["label"]
        for each in predictions
    ]
