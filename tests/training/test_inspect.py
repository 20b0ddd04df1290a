"""`crisp inspect`: its quantities against cases computed by hand, and the command on real runs."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import sentences, write_tsv
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import crisp
from training.config import TrainingSettings
from training.finetune import finetune
from training.inspect.layers import compared_pattern, inspect_layers, overlap, rows_of_text
from training.inspect.pairs import match, outcomes
from training.model import load_checkpoint
from training.pattern import AttentionPattern

TOP1 = AttentionPattern("topk", k=1)
TOP2 = AttentionPattern("topk", k=2)
DENSE = AttentionPattern("dense")


def test_a_row_computed_by_hand() -> None:
    scores = torch.log(torch.tensor([[[6.0, 3.0, 1.0], [1.0, 1.0, 1.0], [8.0, 1.0, 1.0]]]))
    found = rows_of_text(scores, DENSE, TOP1)
    expected = -(0.6 * math.log(0.6) + 0.3 * math.log(0.3) + 0.1 * math.log(0.1))
    assert found.entropy.tolist() == pytest.approx([expected, math.log(3), 0.639032], abs=1e-5)
    assert found.effective[1] == pytest.approx(3)
    # The second row ties: all three are kept, so that it has nothing to be separated from.
    assert found.kept_mass.tolist() == pytest.approx([0.6, 1, 0.8], abs=1e-5)
    assert found.stability.separation.tolist() == pytest.approx([math.log(2), math.log(8)])
    summary = found.summary()
    assert summary["effective"][2] == pytest.approx(math.exp(expected), abs=1e-5)
    sparse = rows_of_text(scores, TOP2, TOP2)
    assert sparse.effective[0] == pytest.approx(
        math.exp(-(2 * math.log(2 / 3) + math.log(1 / 3)) / 3)
    )


def test_texts_too_short_to_drop_a_link_have_no_separation() -> None:
    found = rows_of_text(torch.zeros(2, 1, 1), DENSE, TOP1)
    assert found.summary()["separation"] is None
    assert found.summary()["entropy"] == pytest.approx([0] * 5)


def test_what_counts_as_kept() -> None:
    assert compared_pattern(TOP2) == TOP2
    assert compared_pattern(DENSE) == AttentionPattern("topk", density=0.2)


def test_edits_find_their_texts() -> None:
    texts = ["a warm and funny film", "the plot is dull and long", "who made this strange thing"]
    edits = ["the plot is clever and short", "nothing in common at all", "a cold and tired film"]
    assert match(texts, edits) == [(0, 2), (1, 0)]


@given(st.permutations(range(6)))
def test_edits_find_their_texts_in_any_order(order: list[int]) -> None:
    texts = [" ".join(f"word{i}{j}" for j in range(5)) for i in range(6)]
    edits = [f"{texts[i]} edited" for i in order]
    assert match(texts, edits) == [(i, order.index(i)) for i in range(6)]


def test_pairs_counted_by_hand() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    edited, again = np.array([1, 1, 0, 1, 1]), np.array([1, 0, 1, 1, 1])
    found = outcomes(labels, predicted, edited, again).to_dict()
    assert found["pairs"] == 5
    assert found["flipped"]["count"] == 2  # the first rightly, the second the wrong way round
    assert found["both_right"]["count"] == 1
    assert found["flipped"]["of"] == found["both_right"]["of"] == 3
    assert found["stayed"] == found["stayed"] | {"count": 1, "of": 2, "share": 0.5}
    assert found["flipped"]["low"] < 2 / 3 < found["flipped"]["high"]


@pytest.fixture(scope="module")
def runs(
    base: Path, train_tsv: Path, dev_tsv: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A dense and a sparse run that have learned which words are good and which bad."""
    folder = tmp_path_factory.mktemp("runs")
    for name, pattern in (("dense", DENSE), ("sparse", AttentionPattern("topk", density=0.3))):
        settings = TrainingSettings(
            data=(str(train_tsv),),
            dev=(str(dev_tsv),),
            base=str(base),
            attention=pattern,
            epochs=14,
            learning_rate=5e-3,
            max_tokens=24,
            precision="fp32",
        )
        finetune(settings, folder / name)
    return {name: folder / name for name in ("dense", "sparse")}


@pytest.mark.slow
def test_the_command_on_real_runs(runs: dict[str, Path], dev_tsv: Path, tmp_path: Path) -> None:
    swap = {"good": "bad", "great": "dull", "warm": "cold", "fine": "awful"}
    swap |= {bad: good for good, bad in swap.items()}
    rows = sentences(40, 2)
    edited = [(f"{text.rsplit(' ', 1)[0]} {swap[text.split()[-1]]}", 1 - y) for text, y in rows]
    edits = write_tsv(tmp_path / "edits.tsv", edited[::-1])
    out = tmp_path / "pictures"
    arguments = ["inspect", str(runs["sparse"]), "--data", str(dev_tsv)]
    arguments += ["--against", str(runs["dense"]), "--counterfactual", str(edits)]
    arguments += ["--out", str(out), "--sample", "12"]
    shown = CliRunner().invoke(crisp.app, [*arguments, "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads((out / "inspect.json").read_text())
    assert found["kept"] == "topk(density=0.3)"
    assert found["data"]["inspected"] == 12
    for name in map(str, runs.values()):
        layers = found["models"][name]["layers"]
        assert len(layers) == 2
        pairs = found["counterfactual"][name]
        assert pairs["pairs"] > 30
        assert pairs["flipped"]["share"] > 0.8
    for layer in found["overlap"]:
        assert layer["chance"] <= layer["overlap"] <= 1
    pictures = {"layers.png", "overlap.png", "attention-1.png", "attention-2.png"}
    assert {file.name for file in out.iterdir()} == pictures | {"inspect.json"}
    table = CliRunner().invoke(crisp.app, arguments)
    assert "kept links in common" in table.stdout
    assert "prediction flips where it should: " in " ".join(table.stdout.split())


@pytest.mark.slow
def test_layers_of_real_runs(runs: dict[str, Path]) -> None:
    dense, tokenizer, _ = load_checkpoint(runs["dense"])
    sparse, _, pattern = load_checkpoint(runs["sparse"])
    ids = tokenizer(["this film was so very good", "bad"]).input_ids
    full, few = (inspect_layers(model, ids, pattern) for model in (dense, sparse))
    tokens = sum(map(len, ids))
    for one, other in zip(full, few, strict=True):
        assert one.entropy.shape == other.entropy.shape == (2 * tokens,)
        assert (one.effective <= 9 + 1e-6).all()
        assert (other.effective <= pattern.kept(8) + 1e-6).all()
        assert (one.kept_mass <= 1 + 1e-6).all()
    same = overlap(dense, dense, ids, pattern)
    assert [layer["overlap"] for layer in same] == [1, 1]
    assert same[0]["chance"] == pytest.approx((3 / 8 + 1 / 3) / 2)


@pytest.mark.slow
def test_what_is_no_pair_of_runs_or_texts_is_refused(
    runs: dict[str, Path], dev_tsv: Path, tmp_path: Path
) -> None:
    strange = write_tsv(tmp_path / "strange.tsv", [("nowhere", 0), ("nothing", 1)])
    other = tmp_path / "other"
    shutil.copytree(runs["dense"], other)
    config = json.loads((other / "config.json").read_text())
    config["id2label"] = {"0": "positive", "1": "negative"}
    (other / "config.json").write_text(json.dumps(config))
    for extra, complaint in (
        (["--against", str(other), "--counterfactual", str(dev_tsv)], "differ in their labels"),
        (["--against", str(tmp_path)], "no finished run"),
        (["--counterfactual", str(strange)], "looks like an edit"),
    ):
        arguments = ["inspect", str(runs["dense"]), "--data", str(dev_tsv), "--sample", "2"]
        done = CliRunner().invoke(crisp.app, [*arguments, "--out", str(tmp_path / "o"), *extra])
        assert complaint in str(done.exception)
