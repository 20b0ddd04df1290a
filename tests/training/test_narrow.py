"""Narrower feed-forward networks: the choice of neurons against trying each one, and whole runs
that are narrowed, saved, loaded, trained on and exported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import sentences, write_tsv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from typer.testing import CliRunner

import crisp
from export.model_folder import export_run
from training import narrow
from training.attention.registry import attention_of
from training.config import RunRecord, TrainingSettings
from training.errors import DataError, RunError
from training.evaluate import evaluate_run
from training.finetune import finetune
from training.model import load_base, load_checkpoint
from training.narrow import narrow_run
from training.narrow_model import NarrowDistilBert, feed_forward_of
from training.neurons import gram_of, keep_neurons
from training.pattern import AttentionPattern


def squared_error(gram: Tensor, weight: Tensor, bias: Tensor, kept: list[int]) -> float:
    """Of the best outputs that the neurons in `kept` can give, by least squares."""
    whole = torch.cat([weight.T, bias[None]]).double()
    chosen = [*kept, len(gram) - 1]
    fitted = torch.linalg.lstsq(gram[chosen][:, chosen], gram[chosen] @ whole).solution
    difference = whole.clone()
    difference[chosen] -= fitted
    return float((difference * (gram @ difference)).sum())


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), neurons=st.integers(2, 8))
def test_the_neuron_that_goes_is_the_one_whose_loss_costs_least(seed: int, neurons: int) -> None:
    random = torch.Generator().manual_seed(seed)
    activations = torch.randn(64, neurons, generator=random)
    weight, bias = torch.randn(3, neurons, generator=random), torch.randn(3, generator=random)
    gram = gram_of(activations)
    index, _, _ = keep_neurons(gram, weight, bias, neurons - 1)
    found = squared_error(gram, weight, bias, index.tolist())
    others = [[i for i in range(neurons) if i != gone] for gone in range(neurons)]
    least = min(squared_error(gram, weight, bias, kept) for kept in others)
    assert found <= 1.02 * least + 1e-9  # damping can turn a close choice


def test_neurons_that_say_what_others_say_go_without_a_trace() -> None:
    torch.manual_seed(0)
    some = torch.randn(200, 5)
    activations = torch.cat([some, some[:, :3] * 2, some[:, :1] - some[:, 1:2]], dim=1)
    weight, bias = torch.randn(4, 9), torch.randn(4)
    index, fitted, new_bias = keep_neurons(gram_of(activations), weight, bias, 5)
    before = activations @ weight.T + bias
    after = activations[:, index] @ fitted.T + new_bias
    assert (after - before).abs().max() < 0.02 * before.abs().max()


def test_constant_neurons_become_bias() -> None:
    torch.manual_seed(0)
    activations = torch.cat([torch.randn(200, 3), torch.full((200, 2), 0.7)], dim=1)
    weight, bias = torch.randn(4, 5), torch.randn(4)
    index, fitted, new_bias = keep_neurons(gram_of(activations), weight, bias, 3)
    assert index.tolist() == [0, 1, 2]
    assert torch.allclose(new_bias, bias + 0.7 * weight[:, 3:].sum(dim=1), atol=0.02)
    assert torch.allclose(fitted, weight[:, :3], atol=0.02)


@pytest.mark.parametrize("width", [0, 4])
def test_a_width_that_is_none_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        keep_neurons(torch.eye(4, dtype=torch.float64), torch.zeros(2, 3), torch.zeros(2), width)


@pytest.fixture(scope="module")
def run(
    base: Path, train_tsv: Path, dev_tsv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of the tiny base, 32 wide, that has learned its texts."""
    out = tmp_path_factory.mktemp("runs") / "dense"
    finetune(
        TrainingSettings(
            data=(str(train_tsv),),
            dev=(str(dev_tsv),),
            base=str(base),
            epochs=12,
            learning_rate=5e-3,
            max_tokens=24,
            attention_dropout=0.0,
        ),
        out,
    )
    return out


def accuracy(run: Path) -> float:
    (found,) = evaluate_run(run, RunRecord.load(run).settings.dev, split="validation")
    return found.accuracy


def test_a_narrow_run_says_what_the_run_says(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "narrow"
    record = narrow_run(run, out, (12, 20), epochs=8)
    model, _, pattern = load_checkpoint(out)
    assert isinstance(model, NarrowDistilBert)
    assert feed_forward_of(model) == (12, 20)
    assert pattern == attention_of(model.config)
    assert accuracy(run) > 0.9
    assert accuracy(out) >= accuracy(run) - 0.05
    (entry,) = record.history
    (measured,) = (found for name, found in entry.items() if name != "epoch")
    assert measured["accuracy"] == accuracy(out)
    saved = RunRecord.load(out)
    assert saved.settings.feed_forward == (12, 20)
    assert (saved.settings.base, saved.settings.teachers) == (str(run), (str(run),))
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in run.iterdir())


def test_a_width_that_stays_changes_nothing(run: Path, tmp_path: Path) -> None:
    narrow_run(run, tmp_path / "same", (32, 32), epochs=1)
    before, after = (load_checkpoint(folder)[0].state_dict() for folder in (run, tmp_path / "same"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_killed_it_goes_on_and_comes_to_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow_run(run, tmp_path / "whole", (12, 20), epochs=2)
    fit = narrow._fit
    fitted = []

    def killed(*given: object) -> None:
        if len(fitted) == 1:
            raise KeyboardInterrupt
        fitted.append(given[4])
        fit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(narrow, "_fit", killed)
    with pytest.raises(KeyboardInterrupt):
        narrow_run(run, tmp_path / "killed", (12, 20), epochs=2)
    with pytest.raises(RunError, match="feed_forward"):
        narrow_run(run, tmp_path / "killed", (12, 21), epochs=2)
    with pytest.raises(RunError, match=r"tokens: 300000 there, 500 now"):
        narrow_run(run, tmp_path / "killed", (12, 20), epochs=2, tokens=500)
    monkeypatch.setattr(narrow, "_fit", lambda *given: (fitted.append(given[4]), fit(*given)))
    narrow_run(run, tmp_path / "killed", (12, 20), epochs=2)
    assert fitted == [0, 1]
    whole, killed_one = (
        load_checkpoint(tmp_path / name)[0].state_dict() for name in ("whole", "killed")
    )
    assert all(torch.equal(whole[name], killed_one[name]) for name in whole)


def test_without_dev_the_texts_held_out_of_the_training_are_measured(
    base: Path, tmp_path: Path
) -> None:
    """And the networks are not fitted to them; another seed of `narrow_run` changes neither."""
    file = write_tsv(tmp_path / "train.tsv", sentences(60, 1))
    run, out = tmp_path / "run", tmp_path / "narrow"
    asked = TrainingSettings(data=(str(file),), base=str(base), epochs=1, max_tokens=24, seed=2)
    before = finetune(asked, run)
    record = narrow_run(run, out, (12, 20), epochs=1, seed=3)
    (dev,) = before.dev
    assert dev.rows == 3
    assert record.dev == before.dev
    assert record.data == before.data
    assert record.history[-1].keys() == {"epoch", dev.name}
    manifest = export_run(out, tmp_path / "model", precision="fp32")
    assert [found.data.name for found in manifest.measured] == [dev.name]
    # Of other training data, nobody can tell what was held out.
    other = write_tsv(tmp_path / "other.tsv", [*sentences(60, 1), ("a good film", 1)])
    file.write_text(other.read_text())
    with pytest.raises(DataError, match="name labelled texts with --data"):
        narrow_run(run, tmp_path / "changed", (12, 20), epochs=1)
    options = ["narrow", str(run), "--feed-forward", "16,16", "--out", str(tmp_path / "changed")]
    result = CliRunner().invoke(crisp.app, [*options, "--data", str(other), "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert "accuracy: not measured" in result.output


def test_it_can_be_trained_on_and_exported(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "narrow"
    record = narrow_run(run, out, (12, 20), epochs=1)
    model, _ = load_base(str(out), record.label_names, AttentionPattern("dense"))
    assert feed_forward_of(model) == (12, 20)
    trained = dataclasses.replace(
        record.settings, base=str(out), teachers=(str(run),), feed_forward=None, epochs=1
    )
    finetune(trained, tmp_path / "trained")
    assert feed_forward_of(load_checkpoint(tmp_path / "trained")[0]) == (12, 20)
    for precision in ("fp32", "int8"):
        manifest = export_run(out, tmp_path / precision, precision=precision)
        (measured,) = manifest.measured
        assert abs(measured.accuracy - accuracy(out)) <= 0.05
        assert manifest.trained.settings["feed_forward"] == [12, 20]


@pytest.mark.parametrize(
    ("widths", "said"),
    [("12", "2 layers"), ("12,33", "1 to 32, got 33"), ("0,12", "got 0"), ("a,b", "whole numbers")],
)
def test_widths_that_do_not_fit_are_refused(
    run: Path, tmp_path: Path, widths: str, said: str
) -> None:
    options = ["narrow", str(run), "--feed-forward", widths, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(crisp.app, options)
    assert result.exit_code != 0
    assert said in (result.output + str(result.exception)).replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_came_of_it(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "narrow"
    options = ["narrow", str(run), "--feed-forward", "16,16", "--out", str(out), "--epochs", "1"]
    result = CliRunner().invoke(crisp.app, options)
    assert result.exit_code == 0, result.output
    assert "dev.tsv: accuracy" in result.output.replace("\n", "")
    again = CliRunner().invoke(crisp.app, options)
    assert "finished run" in str(again.exception) + again.output
