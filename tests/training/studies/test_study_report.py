"""The reports from JSON alone: every figure of them follows from results that are made up here so
that the right answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import crisp
from training.study import crisp_attention, focus_report, tuning_report
from training.study.errors import StudyError
from training.study.focus_results import settings_of
from training.study.report import keep, write_report
from training.study.runs import FAILURE_FILE, RESULT_FILE, read_results
from training.study.semantic_focus import STUDY

ENVIRONMENT = {"processor": "a processor", "cores": 2, "versions": {"torch": "2"}}
TEXTS = 200


def focus_result(mechanism: str, arrival: list[int | None], slope: float) -> dict[str, Any]:
    """A run of six epochs whose seeds reach 95 % in the epochs of `arrival`."""
    accuracy = [
        [1.0 if epoch is not None and e >= epoch else 0.5 for epoch in arrival] for e in range(1, 7)
    ]
    others = {
        "heavy_dispersion": [1.0, 2.0, 3.0, 4.0],
        "separation": [0.5, 0.25, 0.1, 1e-6],
        "relative_degree": [1.0, 2.0, 3.0, 3.5],
    }
    stability = [
        {
            "rows": 100 if i else 300,
            "percentiles": others | {"dispersion": [8.0 + (i - 2) ** 3, 9.0, 10.0, 20.0]},
            "condition": 0.2 if i else 0.3,
            "in_degree": 0.125,
        }
        for i in range(len(arrival))
    ]
    slopes = [[1.0, 2.0, slope + 0.01 * i, 9.0] for i in range(len(arrival))]
    return {
        "study": "semantic-focus",
        "name": f"parity_{mechanism}",
        "settings": {
            "task": "parity",
            "mechanism": mechanism,
            "length": 12,
            "blocks": 2,
            "train": 100,
            "epochs": 6,
            "seeds": list(range(len(arrival))),
        },
        "chance": 0.51,
        "curves": {
            "held_out_accuracy": accuracy,
            "held_out_loss": accuracy,
            "train_loss": [[1.0 - value for value in epoch] for epoch in accuracy],
        },
        "stability": {
            "kept": "topk(k=5)",
            "by_seed": stability,
        },
        "landscape": {"percentiles": [50.0, 90.0, 99.0, 100.0], "slopes": slopes},
        "seconds": 1800.0,
        "environment": ENVIRONMENT,
    }


def tuning_result(
    name: str, seed: int, right: int, pattern: dict[str, Any], dropout: float = 0.1
) -> dict[str, Any]:
    """A run that is right about the first `right` texts."""
    outcome = {
        "accuracy": right / TEXTS,
        "loss": 0.4,
        "right": "1" * right + "0" * (TEXTS - right),
    }
    sparse = outcome | {"right": "0" + outcome["right"][1:]}
    epoch = {"accuracy": 0.9, "loss": 0.3}
    return {
        "study": "crisp-attention",
        "name": f"{name}_seed{seed}",
        "settings": {
            "base": "minilm",
            "data": "train.tsv",
            "dev": ["dev.tsv"],
            "fraction": 0.1,
            "epochs": 2,
            "learning_rate": 5e-5,
            "batch_size": 32,
            "max_tokens": 64,
            "attention": pattern,
            "attention_dropout": dropout,
            "seed": seed,
            "inference": [],
            "keep_weights": False,
        },
        "texts": 692,
        "history": [{"epoch": i, "dev.tsv": epoch, "train (sample)": epoch} for i in (1, 2)],
        "train": {"accuracy": 0.95, "loss": 0.1, "right": ""},
        "dev": {"dev.tsv": outcome},
        "inference": {"topk(density=0.2)": {"dev.tsv": sparse}} if name == "dense" else {},
        "seconds": 60.0,
        "environment": ENVIRONMENT,
    }


FOCUS = [
    focus_result("full", [4, 5, 6, None, None], 9.0),
    focus_result("topk-5", [1, 1, 2, 2, 3], 3.0),
    focus_result("band-5", [None] * 5, 9.0),
]
TUNING = [
    *(tuning_result("dense", seed, 180 + seed, {"name": "dense"}) for seed in range(3)),
    *(tuning_result("drop", seed, 184, {"name": "dense"}, 0.3) for seed in range(3)),
    *(tuning_result("topk", s, 190 + 2 * s, {"name": "topk", "density": 0.2}) for s in range(3)),
]


def cells(markdown: str, first: str) -> list[str]:
    """The cells of the row of a Markdown table that starts with `first`."""
    (line,) = [line for line in markdown.split("\n") if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def runs_folder(root: Path) -> Path:
    for result in (*FOCUS, *TUNING):
        folder = root / "runs" / result["study"] / result["name"]
        folder.mkdir(parents=True)
        (folder / RESULT_FILE).write_text(json.dumps(result))
    failed = root / "runs" / "crisp-attention" / "lost"
    failed.mkdir()
    (failed / FAILURE_FILE).write_text("killed by signal 9\n")
    return root / "runs"


def test_who_is_faster_and_how_sure_that_is() -> None:
    ((title, found),) = settings_of(FOCUS).items()
    assert title == "parity, 12 symbols, 2 layers, 100 examples, 5 seeds"
    table = focus_report.speed_table(found)
    full, topk, band = (cells(table, name) for name in ("full", "topk-5", "band-5"))
    assert full[2:5] == ["3 of 5", "6", "–"]
    assert topk[2:5] == ["5 of 5", "2", "faster"]
    assert band[2:5] == ["0 of 5", "not reached", "slower"]
    assert float(topk[6].strip("< ")) < 0.05
    assert full[7] == topk[6]
    assert topk[7] == "–"
    assert full[8] == "100.0 (50.0 to 100.0)"
    assert "reaches 51.0 %" in table
    # Full gets there after the epochs that others have run: nothing says that it is ahead of them.
    short = {"full": FOCUS[0]} | {
        name: focus_result(name, [arrival] * 5, 9.0)
        for name, arrival in (("band-5", None), ("topk-5", 3))
    }
    for name in ("band-5", "topk-5"):
        for curve in short[name]["curves"].values():
            del curve[3:]
    table = focus_report.speed_table(short)
    assert cells(table, "band-5")[4] == "–"
    assert cells(table, "topk-5")[4] == "faster"


def test_progress_is_compared_within_the_epochs_that_both_have_run() -> None:
    full = focus_result("full", [None] * 6, 9.0)
    ahead, late = (focus_result("topk-5", [each] * 6, 9.0) for each in (3, 6))
    for curve in late["curves"].values():
        curve.append([1.0] * 6)
    for result, epochs, best, mean, loss, p in (
        (ahead, 6, "100.0", "83.3", "0.000", 2 / 2**6),
        (ahead, 2, "50.0", "50.0", "0.500", None),
        (late, 5, "50.0", "50.0", "0.500", None),
    ):
        for name, value in (("held_out_accuracy", 0.5), ("train_loss", 0.5)):
            full["curves"][name] = [[value] * 6] * epochs
        table = focus_report.progress_table({"full": full, "topk-5": result})
        for title, its, fulls in (
            ("best accuracy, %", best, "50.0"),
            ("mean accuracy, %", mean, "50.0"),
            ("training loss, nats", loss, "0.500"),
        ):
            _, name, within, *medians, test, _ = cells(table, title)
            assert (name, within) == ("topk-5", str(epochs))
            assert [median.split()[0] for median in medians] == [its, fulls]
            # Six differences of one sign: two of the 2^6 arrangements are as extreme.
            assert test == ("–" if p is None else f"{p:.3f}")
    assert focus_report.progress_table({"full": full}) == ""


def test_stability_and_slopes() -> None:
    ((_, found),) = settings_of(FOCUS).items()
    table = focus_report.stability_table("parity", found)
    assert cells(table, "δ_s of full, ours")[1:] == ["8", "9", "10", "20"]
    assert cells(table, "δ_s of full, authors")[1:] == ["8.3", "10.1", "11.2", "19.4"]
    assert cells(table, "Δ_h of topk-5, ours")[1:] == ["0.5", "0.25", "0.1", "1.0e-06"]
    shares = cells(focus_report.condition_table(found), "topk-5")
    # 300 rows of 30 %, and 400 of 20 %.
    assert shares[2:6] == ["6", "700", "24.3 (20.0 to 30.0)", "12.5 (12.5 to 12.5)"]
    assert shares[6] == "24.3, 5"
    # Of full, the first three have reached 95 %: 300 rows of 30 %, and 200 of 20 %.
    assert cells(focus_report.condition_table(found), "full")[6] == "26.0, 3"
    slopes = focus_report.slope_table(found)
    assert cells(slopes, "topk-5")[2].startswith("3.02")
    assert float(cells(slopes, "topk-5")[3]) == pytest.approx(2 / 2**5, abs=1e-3)
    assert cells(slopes, "band-5")[3] == "–"  # nowhere another than full
    assert cells(slopes, "full")[5].startswith("9.01 (")
    assert cells(slopes, "full")[5].endswith("), 3")
    assert cells(slopes, "band-5")[5] == "–"  # none has learned
    # ListOps, 75th: 3.51 / 8.61 + ln(2 · (1 + 1 / 0.016)) / 8.61
    assert cells(focus_report.authors_conditions(), "listops")[1] == "0.97"


def test_differences_to_dense_are_paired_by_seed() -> None:
    ((title, group),) = tuning_report.settings_of(TUNING).items()
    assert title.startswith("minilm, 0.1 of train.tsv (692 texts), 2 epochs at 5e-05")
    table = tuning_report.accuracy_table(group, "dev.tsv")
    assert cells(table, "dense")[2].startswith("90.50 (")
    sparse = cells(table, "topk(density=0.2)")
    assert sparse[3].startswith("+5.50 (")
    low, high = map(float, sparse[4].split(" to "))
    assert 0 < low < 5.5 < high
    assert float(sparse[7].strip("< ")) < 0.05
    inference = cells(table, "dense, topk(density=0.2) at inference only")
    assert inference[3] == "-0.50 (-0.50 to -0.50)"
    pairs = cells(tuning_report.mcnemar_table(group, "dev.tsv"), "topk(density=0.2)")[1]
    assert pairs.split("; ")[0] == "+10 −0, p 0.002"
    gaps = cells(tuning_report.gap_table(group, "dev.tsv"), "topk(density=0.2)")
    assert gaps[1].startswith("95.00")
    assert gaps[2].startswith("-1.00 (")
    assert gaps[4].startswith("-5.50 (")
    assert gaps[3] == "+0.300 (+0.300 to +0.300)"
    power = cells(tuning_report.power_table(group, "dev.tsv"), "topk(density=0.2)")
    # The differences 10, 11 and 12 of 200 texts deviate by half a point.
    assert int(power[1]) == 5
    best = tuning_report.best_dropout(group, "dev.tsv")
    assert best is not None
    assert best.startswith("Dense does best with an attention dropout of 0.3: 92.00 (")


def test_outcomes_are_those_of_the_runs() -> None:
    ((_, group),) = tuning_report.settings_of(TUNING).items()
    right = tuning_report.right_of(group["dense"], "dev.tsv")
    assert right.shape == (3, TEXTS)
    assert np.array_equal(right.sum(axis=1), [180, 181, 182])


def test_the_report_can_be_drawn_again_from_what_it_collects(tmp_path: Path) -> None:
    runs = runs_folder(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    shown = CliRunner().invoke(
        crisp.app, ["study", "report", "--runs", str(runs), "--out", str(first), "--collect"]
    )
    assert shown.exit_code == 0, shown.output
    written = write_report(first / "runs", second)
    assert [file.name for file in written] == [
        "semantic-focus.md",
        "crisp-attention.md",
        "flops.md",
    ]
    for file in first.iterdir():
        if file.name not in ("runs", "crisp-attention.md"):
            assert file.read_bytes() == (second / file.name).read_bytes(), file.name
    assert len(list(second.glob("*.png"))) == 3
    # Only what failed is known to the folders alone.
    before = (first / "crisp-attention.md").read_text()
    after = (second / "crisp-attention.md").read_text()
    assert "- lost: killed by signal 9" in before
    assert "lost" not in after
    assert before.split("\n## Runs that failed")[0].strip() in after
    for name in ("semantic-focus.md", "crisp-attention.md", "flops.md"):
        for picture in (first / name).read_text().split("](")[1:]:
            assert (first / picture.split(")")[0]).is_file()


def test_a_collected_run_is_not_lost_to_another_of_its_name(tmp_path: Path) -> None:
    file = keep(FOCUS[0], tmp_path)
    before = file.read_bytes()
    assert keep(FOCUS[0], tmp_path).read_bytes() == before
    settings = FOCUS[0]["settings"]
    with pytest.raises(StudyError, match="another run of that name, which differs in train"):
        keep(FOCUS[0] | {"settings": settings | {"train": 99}}, tmp_path)
    assert file.read_bytes() == before
    # What has run for more epochs takes the place of what it went on from, and not the reverse.
    longer = FOCUS[0] | {"settings": settings | {"epochs": 12}}
    assert json.loads(keep(longer, tmp_path).read_text()) == longer
    with pytest.raises(StudyError, match="differs in epochs"):
        keep(FOCUS[0], tmp_path)


def test_runs_of_other_settings_are_not_compared() -> None:
    other = focus_result("topk-5", [1, 1, 2, 2, 3], 3.0)
    other["settings"]["batch"] = 100
    first, second = settings_of([*FOCUS[:1], other]).items()
    title = "parity, 12 symbols, 2 layers, 100 examples, 5 seeds"
    assert (first[0], list(first[1])) == (f"{title}, batch 100", ["topk-5"])
    assert (second[0], list(second[1])) == (f"{title}, batch None", ["full"])
    short = tuning_result("topk", 0, 190, {"name": "topk", "density": 0.2})
    short["settings"]["max_tokens"] = 16
    titles = list(tuning_report.settings_of([*TUNING, short]))
    assert [title.split("5e-05")[1] for title in titles] == [", max_tokens 64", ", max_tokens 16"]


def test_the_tables_of_the_docs_follow_from_their_runs() -> None:
    docs = Path(__file__).parents[3] / "docs" / "study"
    results = read_results(docs / "runs", STUDY)
    text = (docs / "semantic-focus.md").read_text(encoding="utf-8")
    for title, found in settings_of(results).items():
        section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
        for table in (
            focus_report.speed_table(found),
            focus_report.progress_table(found),
            focus_report.stability_table(next(iter(found.values()))["settings"]["task"], found),
            focus_report.condition_table(found),
            focus_report.slope_table(found),
        ):
            assert table in section
    tuning = read_results(docs / "runs", crisp_attention.STUDY)
    text = (docs / "crisp-attention.md").read_text(encoding="utf-8")
    for title, group in tuning_report.settings_of(tuning).items():
        section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
        for dev in next(iter(group.values()))[0]["dev"]:
            assert tuning_report.mcnemar_table(group, dev) in section
            assert tuning_report.gap_table(group, dev) in section
            assert tuning_report.power_table(group, dev) in section


def test_nothing_to_report_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no finished run"):
        write_report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
