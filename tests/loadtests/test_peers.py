"""The peers: what is missing is said; those that are installed answer as the dense model does."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import psutil
import pytest

from loadtests.adapters import ADAPTERS
from loadtests.errors import LoadTestError
from loadtests.peers import launch
from loadtests.peers.launch import PEERS, started_peer

TEXTS = ["A warm, funny film that never talks down to anyone.", "Two dull hours. I left early."]


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


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_an_installed_peer_answers_right_and_is_stopped(name: str) -> None:
    if not (launch.INSTALLED / launch.environment_of(name) / "bin" / "python").exists():
        pytest.skip(f"{name} is not installed: run loadtests/peers/setup.sh")
    with started_peer(name) as contender:
        adapter = ADAPTERS[contender.target.adapter]
        answer = httpx.post(
            contender.target.url + adapter.path,
            json=adapter.body(TEXTS, contender.variant),
            timeout=60,
        )
        judged = adapter.judge(answer.status_code, answer.content, contender.variant, len(TEXTS))
        assert judged.fault is None
        assert answer.text.index("positive") < answer.text.index("negative")
        assert contender.facts["bytes"] > 1e7
    assert psutil.Process().children(recursive=True) == []
