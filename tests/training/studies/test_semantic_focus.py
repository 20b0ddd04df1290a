"""The Semantic Focus study end to end, in small: every task and every mechanism leaves a result
that the report understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.pattern import AttentionPattern
from training.study import fit
from training.study.encoder import EncoderSize
from training.study.errors import StudyError
from training.study.focus_pictures import _style, draw
from training.study.focus_report import (
    condition_table,
    slope_table,
    speed_table,
    stability_table,
)
from training.study.focus_results import settings_of
from training.study.mechanisms import MECHANISMS, mechanism
from training.study.runs import read_results
from training.study.semantic_focus import STUDY, FocusSettings, execute
from training.study.tasks.registry import TASKS

SETTINGS = {
    "seeds": (0, 1),
    "length": 14,
    "blocks": 1,
    "train": 40,
    "held_out": 10,
    "epochs": 1,
    "learning_rate": 0.1,
    "decay": 0.99,
    "landscape_steps": 2,
    "landscape_examples": 5,
}


def carry_out(root: Path, task: str, name: str, **others: Any) -> FocusSettings:
    settings = FocusSettings.from_dict(SETTINGS | {"task": task, "mechanism": name} | others)
    run = settings.run()
    run.prepare(root)
    execute(run.folder(root), run.settings)
    return settings


@pytest.mark.parametrize("task", TASKS)
def test_every_task_runs(task: str, tmp_path: Path) -> None:
    settings = carry_out(tmp_path, task, "topk-5")
    (found,) = read_results(tmp_path, STUDY)
    assert found["settings"]["task"] == task
    assert 0 < found["chance"] < 1
    for curve in found["curves"].values():
        assert len(curve) == 1
        assert len(curve[0]) == 2
    # 10 batches of 100 are more than there are; each text has as many rows as symbols.
    assert len(found["stability"]["by_seed"]) == 2
    for seed in found["stability"]["by_seed"]:
        assert 0 < seed["rows"] <= 40 * settings.length
    assert len(found["landscape"]["slopes"]) == 2
    assert settings_of([found])


def test_a_run_is_trained_as_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"learning_rate": 0.3, "decay": 0.9, "batch": 8, "clip": 0.6, "dropout": 0.2}
    seen: list[tuple[EncoderSize, AttentionPattern, fit.Optimisation]] = []
    train_epoch = fit.train_epoch

    def watched(
        state: fit.FitState,
        train: Any,
        held_out: Any,
        size: EncoderSize,
        pattern: AttentionPattern,
        optimisation: fit.Optimisation,
        *others: Any,
    ) -> None:
        assert (state.seeds, len(train), len(held_out)) == ((4, 5), 40, 10)
        seen.append((size, pattern, optimisation))
        train_epoch(state, train, held_out, size, pattern, optimisation, *others)

    monkeypatch.setattr(fit, "train_epoch", watched)
    carry_out(tmp_path, "even-pairs", "band-5-1", epochs=2, blocks=3, seeds=(4, 5), **asked)
    size = EncoderSize(symbols=2, classes=2, blocks=3)
    assert seen == [(size, mechanism("band-5-1"), fit.Optimisation(**asked))] * 2  # type: ignore[arg-type]


def test_every_mechanism_runs_and_is_reported(tmp_path: Path) -> None:
    for name in MECHANISMS:
        carry_out(tmp_path, "even-pairs", name)
    results = read_results(tmp_path, STUDY)
    ((_, found),) = settings_of(results).items()
    assert list(found) == list(MECHANISMS)
    for table in (speed_table(found), condition_table(found), slope_table(found)):
        for name in MECHANISMS:
            assert f"| {name} |" in table
    draw(tmp_path / "all.png", "all", found)
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    assert len({str(_style(name)) for name in MECHANISMS}) == len(MECHANISMS)  # told apart
    losses = {name: result["curves"]["held_out_loss"][0][0] for name, result in found.items()}
    # Other links, other losses: 14 symbols give every mechanism links of its own.
    assert len(set(losses.values())) == len(losses)


def test_examples_after_a_start_symbol_are_a_setting_of_their_own(tmp_path: Path) -> None:
    plain, started = (
        carry_out(tmp_path, "even-pairs", "band-5-1", **others)
        for others in ({}, {"start_symbol": True})
    )
    assert started.size.symbols == plain.size.symbols + 1
    results = read_results(tmp_path, STUDY)
    assert sorted("start" in title for title in settings_of(results)) == [False, True]
    rows = [each["stability"]["by_seed"][0]["rows"] for each in results]
    assert rows[1] == rows[0] // 14 * 15
    # What ran before there was such a setting is a run without it.
    assert "start_symbol" not in plain.run().settings


def test_further_seeds_are_joined_to_those_of_the_same_setting(tmp_path: Path) -> None:
    carry_out(tmp_path / "whole", "even-pairs", "topk-5", seeds=(0, 1, 2))
    # In another order than that of their seeds, and in one folder.
    carry_out(tmp_path / "parts", "even-pairs", "topk-5", seeds=(1, 2))
    carry_out(tmp_path / "parts", "even-pairs", "topk-5", seeds=(0,))
    ((title, whole),) = settings_of(read_results(tmp_path / "whole", STUDY)).items()
    parts = read_results(tmp_path / "parts", STUDY)
    assert len(parts) == 2
    ((joined_title, joined),) = settings_of(parts).items()
    assert joined_title == title
    for table in (speed_table, condition_table, slope_table):
        assert table(joined) == table(whole)
    assert stability_table("even-pairs", joined) == stability_table("even-pairs", whole)
    for key in ("curves", "stability"):
        assert joined["topk-5"][key] == whole["topk-5"][key]
    assert joined["topk-5"]["settings"] == whole["topk-5"]["settings"]


@pytest.mark.parametrize(
    ("others", "message"),
    [({"seeds": (0,)}, "seed in common"), ({"seeds": (2,), "epochs": 2}, "epochs differ, 1 and 2")],
)
def test_runs_that_are_not_seeds_of_one_setting_are_not_joined(
    others: dict[str, Any], message: str, tmp_path: Path
) -> None:
    carry_out(tmp_path / "first", "even-pairs", "topk-5")
    carry_out(tmp_path / "second", "even-pairs", "topk-5", **others)
    results = [r for name in ("first", "second") for r in read_results(tmp_path / name, STUDY)]
    with pytest.raises(StudyError, match=message):
        settings_of(results)


def test_other_seeds_are_not_paired(tmp_path: Path) -> None:
    carry_out(tmp_path, "even-pairs", "topk-5", seeds=(0, 1))
    carry_out(tmp_path, "even-pairs", "full", seeds=(3, 5))
    first, second = settings_of(read_results(tmp_path, STUDY))
    assert first.endswith(", 2 seeds")
    assert second.endswith(", seeds 3, 5")


def test_mechanisms_are_those_of_the_paper_and_the_controls() -> None:
    assert mechanism("full") == AttentionPattern("dense")
    assert mechanism("band-9-3") == AttentionPattern("band", window=9, globals=3)
    assert mechanism("block-5") == AttentionPattern("block", size=5, globals=0)
    assert mechanism("bottomk-9") == AttentionPattern("bottomk", k=9)
    assert len(MECHANISMS) == 1 + 2 * (3 + 3 + 3)


def test_the_full_settings_are_the_papers() -> None:
    listops, parity = TASKS["listops"], TASKS["parity"]
    assert (listops.length, listops.blocks, listops.learning_rate, listops.decay) == (
        600,
        10,
        1.0,
        0.99,
    )
    assert (parity.length, parity.blocks, parity.learning_rate, parity.decay) == (
        40,
        5,
        0.1,
        0.9995,
    )
