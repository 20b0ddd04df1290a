"""The measurement of throughput: what it measures, not how fast it is."""

from __future__ import annotations

import json

import typer
from typer.testing import CliRunner

from training.study.throughput import main, measure


def test_a_ratio_of_what_is_measured() -> None:
    found = measure(length=8, models=2, name="topk-5", rounds=3, blocks=1)
    assert found["alone_ms"] > 0
    ratio = found["ratio"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert abs(ratio["value"] - found["alone_ms"] / found["together_ms"]) < 1e-6 * ratio["value"]


def test_the_command() -> None:
    app = typer.Typer()
    app.command()(main)
    arguments = ["--length", "8", "--length", "9", "--models", "2", "--rounds", "2"]
    shown = CliRunner().invoke(app, [*arguments, "--blocks", "1"])
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["8", "9"]
    assert "ms among 2: " in lines[0]
    shown = CliRunner().invoke(app, [*arguments, "--blocks", "1", "--json"])
    assert [each["length"] for each in json.loads(shown.stdout)] == [8, 9]
