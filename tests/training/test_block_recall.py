"""The recall of block selection: a case by hand, properties, and the command on a tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from training import block_recall
from training.attention.registry import sparse_attention
from training.block_recall import layer_scores, recall
from training.config import TrainingSettings
from training.finetune import finetune
from training.model import load_checkpoint
from training.pattern import AttentionPattern
from training.pruning import TokenPruning

app = typer.Typer()
app.command()(block_recall.main)


def test_a_case_by_hand() -> None:
    """Four tokens in blocks of one, a quarter of the links: everyone prefers key 2 by far, block
    selection finds that too, and adds block 0, the own one, and all of [CLS]'s row."""
    scores = torch.tensor([0.0, 0.0, 5.0, 0.0]).expand(1, 4, 4)
    found = recall(scores, AttentionPattern("blocktopk", size=1, density=0.25))
    assert found.topk == 1
    assert found.computed == (4 + 3 + 2 + 3) / 16  # {all}, {0, 1, 2}, {0, 2}, {0, 2, 3}
    strongest = torch.tensor([0.0, 0.0, 5.0, 0.0]).double().softmax(0)
    a, b = float(strongest[2]), float(strongest[0])
    assert found.topk_mass == pytest.approx(a)
    assert found.mass == pytest.approx((1 + (a + 2 * b) + (a + b) + (a + 2 * b)) / 4)


def test_a_block_whose_mean_hides_its_strongest_key_is_missed() -> None:
    keys = torch.tensor([0.0, 0.0, 5.0, -9.0, 1.0, 1.0])
    found = recall(keys.expand(1, 6, 6), AttentionPattern("blocktopk", size=2, density=0.1))
    # Only [CLS], which sees all, and the block's own two queries find key 2.
    assert found.topk == pytest.approx(3 / 6)


@settings(deadline=None)
@given(
    length=st.integers(1, 20),
    size=st.integers(1, 8),
    density=st.sampled_from([0.1, 0.3, 0.6]),
    seed=st.integers(0, 99),
)
def test_shares_lie_between_0_and_1_and_one_block_misses_nothing(
    length: int, size: int, density: float, seed: int
) -> None:
    scores = torch.randn(2, length, length, generator=torch.Generator().manual_seed(seed))
    found = recall(scores, AttentionPattern("blocktopk", size=size, density=density))
    for share in vars(found).values():
        assert 0 < share <= 1 + 1e-9
    if length <= size:
        assert found.computed == found.topk == 1
        assert found.mass == pytest.approx(1)


@pytest.fixture(scope="module")
def run(
    base: Path, train_tsv: Path, dev_tsv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = TrainingSettings(
        data=(str(train_tsv),),
        dev=(str(dev_tsv),),
        base=str(base),
        pruning=TokenPruning((0.5,), floor=4),
        epochs=1,
        max_tokens=24,
        precision="fp32",
    )
    finetune(settings, out)
    return out


def test_the_scores_are_those_that_attention_uses(run: Path) -> None:
    model, tokenizer, _ = load_checkpoint(run)
    ids = tokenizer("this was a very very good film")["input_ids"]
    model.config.crisp_attention = {"name": "dense"}
    with torch.inference_mode():
        first, second = layer_scores(model, ids)
        layer = model.distilbert.transformer.layer[0]
        hidden = model.distilbert.embeddings(torch.tensor([ids]))
        q, k, v = (
            linear(hidden).unflatten(-1, (2, -1)).transpose(1, 2)
            for linear in (layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin)
        )
        valid = torch.ones(1, len(ids), dtype=torch.bool)
        _, probabilities = sparse_attention(q, k, v, valid, AttentionPattern())
    assert second.shape == (2, len(ids), len(ids))
    torch.testing.assert_close(first.softmax(-1), probabilities[0])


def test_the_command_counts_texts_of_each_length(run: Path, dev_tsv: Path) -> None:
    command = [str(run), "--data", str(dev_tsv), "--size", "2", "--lengths", "5,9,24"]
    done = CliRunner().invoke(app, [*command, "--sample", "3", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [(row["tokens"], row["layer"]) for row in rows] == [(5, 0), (5, 1), (9, 0), (9, 1)]
    assert all(1 <= row["texts"] <= 3 for row in rows)
    table = CliRunner().invoke(app, command)
    assert "blocktopk(density=0.2, size=2)" in table.stdout


def test_what_is_refused(run: Path, dev_tsv: Path, tmp_path: Path) -> None:
    for arguments, complaint in (
        ([str(tmp_path), "--data", str(dev_tsv)], "no finished run"),
        ([str(run), "--data", str(dev_tsv), "--density", "0"], "density must lie in"),
        (
            [str(run), "--data", str(dev_tsv), "--lengths", "many"],
            "such as 128,512, got 'many'",
        ),
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2
        assert complaint in " ".join(done.output.replace("│", " ").split())
