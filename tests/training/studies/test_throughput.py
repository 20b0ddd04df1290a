"""The measurement of throughput: what it measures, not how fast it is."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from training.study.throughput import main, measure, trainer


def test_a_ratio_of_what_is_measured() -> None:
    found = measure(length=8, models=2, name="topk-5", rounds=3, blocks=1)
    assert found["alone_ms"] > 0
    assert found["at_most"] > 0
    for which in ("batched", "fused"):
        ratio = found[which]
        assert ratio["low"] <= ratio["value"] <= ratio["high"]
        assert ratio["value"] == pytest.approx(found["alone_ms"] / found[f"{which}_ms"])


def test_the_command() -> None:
    app = typer.Typer()
    app.command()(main)
    arguments = ["--length", "8", "--length", "9", "--models", "2", "--rounds", "2"]
    shown = CliRunner().invoke(app, [*arguments, "--blocks", "1"])
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["8", "9"]
    assert "among 2 by torch" in lines[0]
    assert "fused" in lines[0]
    shown = CliRunner().invoke(app, [*arguments, "--blocks", "1", "--json"])
    assert [each["length"] for each in json.loads(shown.stdout)] == [8, 9]


def test_operations_are_those_of_the_matrix_products() -> None:
    length, batch, width = 8, 25, 64
    tokens = batch * length
    layers = 2 * tokens * 6 * width * width + 2 * 2 * batch * length * length * width
    pooling_and_head = 2 * batch * (length * width + 2 * width)
    # Forward, and twice as much backward, but for the gradient of the pooling's fixed weights.
    expected = 3 * (layers + pooling_and_head) - 2 * batch * length * width
    for models in (1, 3):
        counted = trainer(length, models, "full", blocks=1).operations_a_model_step()
        assert counted == pytest.approx(expected, rel=0.01)  # one held-out text is counted too
