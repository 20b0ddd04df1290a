"""The reports from JSON alone: every figure of them follows from results that are made up here so
that the right answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_results import FOCUS, TUNING, cells, focus_result, tuning_result
from typer.testing import CliRunner

import crisp
from training.study import crisp_attention, focus_report, tuning_report
from training.study.errors import StudyError
from training.study.focus_results import settings_of
from training.study.report import keep, write_report
from training.study.runs import FAILURE_FILE, RESULT_FILE, read_results
from training.study.semantic_focus import STUDY


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
