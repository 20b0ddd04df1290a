"""What the Crisp Attention study trains, and one such run through the real fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from training.config import TrainingSettings
from training.data import read_examples
from training.errors import TrainingError
from training.pattern import AttentionPattern
from training.study import crisp_attention
from training.study.crisp_attention import (
    DENSE,
    STUDY,
    TuningSettings,
    _subset,
    band_of_density,
    execute,
    label,
    sparse_patterns,
)
from training.study.errors import StudyError
from training.study.runs import Run, read_results
from training.study.scheduler import run_all
from training.study.spaced_lists import SpacedLists
from training.study.sweep import sweep


def asked(base: Path, texts: Path, held_out: Path, **changes: Any) -> list[Run]:
    settings: dict[str, Any] = {
        "data": str(texts),
        "dev": [str(held_out)],
        "sparsities": [0, 0.5, 0.8],
        "links": [6],
        "controls": ["random", "band"],
        "control_sparsity": 0.8,
        "dropouts": [0.1, 0.3],
        "phases": [0.5],
        "fractions": [0.5, 1.0],
        "seeds": 2,
        "base": str(base),
        "epochs": 3,
        "learning_rate": 5e-5,
        "batch_size": 32,
        "max_tokens": 24,
        "keep_weights": False,
    }
    return sweep(**settings | changes)


def test_sparsities_are_exact_densities() -> None:
    found = sparse_patterns([0, 0.5, 0.8, 0.9])
    assert [pattern.density for pattern in found] == [None, 0.5, 0.2, 0.1]
    assert found[0] == DENSE
    assert label(found[2]) == "topk-0.2"
    with pytest.raises(StudyError, match=r"must lie in \[0, 1\), got 1"):
        sparse_patterns([1])


@given(st.lists(st.integers(2, 60), min_size=1, max_size=8), st.floats(0.05, 0.9))
def test_no_band_is_nearer_to_the_density(lengths: list[int], density: float) -> None:
    def share(window: int) -> float:
        links = sum(abs(i - j) <= window // 2 for n in lengths for i in range(n) for j in range(n))
        return links / sum(n * n for n in lengths)

    found = band_of_density(density, lengths)
    assert found.window is not None
    distance = abs(share(found.window) - density)
    for other in (found.window - 2, found.window + 2):
        if other > 0:
            assert distance <= abs(share(other) - density) + 1e-9


def test_every_setting_gets_every_seed(base: Path, train_tsv: Path, dev_tsv: Path) -> None:
    runs = asked(base, train_tsv, dev_tsv)
    names = [run.name for run in runs]
    # dense, two sparsities, one k, two controls, one dropout beside the usual, one phased in.
    assert len(set(names)) == len(names) == 8 * 2 * 2
    assert names[0] == "train_dense_fraction0.5_seed0"
    assert "train_topk-0.2_fraction1_seed1" in names
    assert "train_topk-6_fraction1_seed1" in names
    assert "train_dense-dropout0.3_fraction1_seed1" in names
    assert "train_topk-0.2-phased0.5_fraction1_seed1" in names
    longer = asked(base, train_tsv, dev_tsv, epochs=15, learning_rate=1e-4)
    assert longer[0].name == "train_dense-15epochs-rate0.0001_fraction0.5_seed0"
    dense = TuningSettings.from_dict(runs[0].settings)
    assert [str(pattern) for pattern in dense.inference][:4] == [
        "topk(density=0.5)",
        "topk(density=0.2)",
        "topk(k=6)",
        "random(density=0.2)",
    ]
    assert dense.inference[4].name == "band"
    for changes, complaint in (
        ({"controls": ["magic"]}, "unknown control 'magic'; known: random, bottomk, band, none"),
        ({"control_sparsity": 0}, "sparsity above 0"),
        ({"links": [0]}, "k must be at least 1, got 0"),
        ({"fractions": [2]}, r"fraction must lie in \(0, 1\], got 2"),
        ({"dev": []}, "name a file with --dev"),
    ):
        with pytest.raises(TrainingError, match=complaint):
            asked(base, train_tsv, dev_tsv, **changes)
    assert len(asked(base, train_tsv, dev_tsv, controls=["none"])) == 6 * 2 * 2


def test_a_dense_run_beside_other_patterns_says_what_decides_it(
    base: Path, train_tsv: Path, dev_tsv: Path, tmp_path: Path
) -> None:
    asked(base, train_tsv, dev_tsv)[0].prepare(tmp_path)
    with pytest.raises(StudyError, match=r"another inference .* which follows from --sparsity"):
        asked(base, train_tsv, dev_tsv, sparsities=[0, 0.9])[0].prepare(tmp_path)


def test_a_subset_is_balanced_and_each_seeds_own(train_tsv: Path, dev_tsv: Path) -> None:
    half = [
        _subset(TuningSettings(str(train_tsv), (str(dev_tsv),), seed=seed, fraction=0.25))
        for seed in (0, 0, 1)
    ]
    assert half[0] == half[1]
    assert half[0] != half[2]
    labels = [example.label for example in half[0].examples]
    assert labels.count(0) == labels.count(1) == 30
    whole = read_examples(train_tsv).examples
    assert set(half[0].examples) <= set(whole)


def test_options_take_several_values() -> None:
    app = typer.Typer()

    @app.command(cls=SpacedLists)
    def show(sizes: list[float] = typer.Option([]), name: str = "", flag: bool = False) -> None:
        print(json.dumps([sizes, name, flag]))

    for words in (
        "--sizes 0 0.5 2 --name x --flag",
        "--name x --sizes 0 --flag --sizes 0.5 --sizes 2",
        "--sizes=0 --sizes 0.5 2 --flag --name x",
    ):
        shown = CliRunner().invoke(app, words.split())
        assert json.loads(shown.stdout) == [[0, 0.5, 2], "x", True]
    assert CliRunner().invoke(app, ["--name", "x", "y"]).exit_code == 2


class _Asked(Exception):
    """Ends a run where its training would begin."""


def test_all_that_is_asked_of_a_run_reaches_its_training(
    train_tsv: Path, dev_tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[TrainingSettings, Path]] = []

    def stop(settings: TrainingSettings, out: Path, **others: Any) -> None:
        assert others.keys() == {"callbacks"}
        seen.append((settings, out))
        raise _Asked

    monkeypatch.setattr(crisp_attention, "finetune", stop)
    shared: dict[str, Any] = {
        "dev": (str(dev_tsv), str(train_tsv)),
        "seed": 7,
        "attention": AttentionPattern("topk", density=0.3),
        "base": "some/base",
        "epochs": 5,
        "learning_rate": 3e-4,
        "batch_size": 9,
        "max_tokens": 17,
        "attention_dropout": 0.25,
        "phase_in": 0.4,
    }
    settings = TuningSettings(data=str(train_tsv), fraction=0.25, **shared)
    # Nothing would be missed for being what it is anyway.
    for each in (TuningSettings("data", ("dev",), seed=0), TrainingSettings(("data",))):
        for name, value in shared.items():
            assert getattr(each, name) != value, name
    run = settings.run()
    run.prepare(tmp_path)
    folder = run.folder(tmp_path)
    with pytest.raises(_Asked):
        execute(folder, json.loads(json.dumps(run.settings)))
    texts = folder / "train.jsonl"
    assert seen == [(TrainingSettings(data=(str(texts),), **shared), folder / "run")]
    assert read_examples(texts).examples == _subset(settings).examples


@pytest.mark.slow
def test_runs_leave_curves_outcomes_and_gaps(
    base: Path, train_tsv: Path, dev_tsv: Path, tmp_path: Path
) -> None:
    few = {"sparsities": [0, 0.8], "controls": ["none"], "dropouts": [], "seeds": 1}
    runs = asked(base, train_tsv, dev_tsv, epochs=1, learning_rate=5e-3, **few)[:2]
    assert run_all(tmp_path, runs, processes=1) == {}
    dense, sparse = sorted(read_results(tmp_path, STUDY), key=lambda each: str(each["name"]))
    assert sparse["settings"]["attention"] == AttentionPattern("topk", density=0.2).to_dict()
    for found in (dense, sparse):
        assert found["texts"] == 120
        ((name, dev),) = found["dev"].items()
        right = np.array([digit == "1" for digit in dev["right"]])
        assert right.size == 40
        assert dev["accuracy"] == pytest.approx(right.mean())
        (epoch,) = found["history"]
        assert epoch[name]["accuracy"] == pytest.approx(dev["accuracy"], abs=0.03)
        assert found["train"]["loss"] > 0
        folder = tmp_path / STUDY / found["name"]
        assert not (folder / "run").exists()
    assert sparse["inference"] == {}
    (at_inference,) = dense["inference"]["topk(density=0.2)"].values()
    assert len(at_inference["right"]) == 40
    assert at_inference["loss"] != dense["dev"][name]["loss"]
