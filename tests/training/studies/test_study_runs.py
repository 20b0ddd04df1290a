"""The runs of a study: finished ones stay, others of the same name are refused, and a run that
fails or is killed is reported without losing the rest. The processes are the real ones."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tqdm import tqdm

from training.study import fit, scheduler
from training.study.errors import StudyError
from training.study.runs import (
    FAILURE_FILE,
    Run,
    alone,
    failures,
    progress_of,
    read_results,
    write_result,
)
from training.study.scheduler import run_all
from training.study.semantic_focus import STATE_FILE, STUDY, FocusSettings

TINY = FocusSettings(
    task="even-pairs",
    mechanism="topk-5",
    seeds=(0, 1),
    length=8,
    blocks=1,
    train=60,
    held_out=20,
    epochs=2,
    learning_rate=0.1,
    decay=0.99,
    landscape_steps=2,
    landscape_examples=10,
)


def changed(**changes: object) -> FocusSettings:
    return FocusSettings.from_dict(TINY.run().settings | changes)


def test_settings_that_make_no_sense_are_refused() -> None:
    for changes, complaint in (
        ({"task": "chess"}, "unknown task 'chess'"),
        ({"mechanism": "topk-6"}, "unknown mechanism 'topk-6'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"learning_rate": 0}, "learning rate must be above 0, got 0"),
        ({"seeds": ()}, "at least one seed"),
        ({"landscape_steps": 1}, "at least 2 steps"),
    ):
        with pytest.raises(StudyError, match=complaint):
            changed(**changes)


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    assert TINY.run().prepare(tmp_path)
    assert changed(epochs=3).run().prepare(tmp_path)
    with pytest.raises(StudyError, match=r"another train \(60 there, 50 now\)"):
        changed(train=50).run().prepare(tmp_path)


@pytest.mark.slow
def test_a_result_stays_until_more_epochs_have_one(tmp_path: Path) -> None:
    def run(epochs: int) -> Run:
        return Run(STUDY, "x", {"epochs": epochs}, 1.0, extends="epochs")

    run(2).prepare(tmp_path)
    write_result(run(2).folder(tmp_path), {"epochs": 2}, {"curves": "short"})
    assert progress_of(run(2).folder(tmp_path)) == 1
    assert run_all(tmp_path, [run(2)], processes=1) == {}
    # These settings lack all but the epochs: their process ends with an error.
    assert list(run_all(tmp_path, [run(3)], processes=1)) == ["x"]
    assert progress_of(run(3).folder(tmp_path)) == 0
    (found,) = read_results(tmp_path, STUDY)
    assert found["curves"] == "short"


def test_two_processes_never_work_on_one_run(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(StudyError, match="another process"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / STUDY / "x").mkdir(parents=True)
    (tmp_path / STUDY / "x" / "result.json").write_text('{"study": "cooking"}')
    with pytest.raises(StudyError, match="not the result of a run of semantic-focus"):
        read_results(tmp_path, STUDY)


@pytest.mark.slow
def test_runs_are_spread_over_processes_and_failures_reported(tmp_path: Path) -> None:
    good, other = TINY.run(), changed(mechanism="full").run()
    # Too few strings of this length: the process ends with an error that only it finds.
    bad = changed(mechanism="band-5", length=3).run()
    failed = run_all(tmp_path, [bad, good, other], processes=2)
    assert list(failed) == [bad.name]
    assert "too few distinct strings" in failed[bad.name]
    assert failures(tmp_path, STUDY).keys() == {bad.name}
    results = {each["name"]: each for each in read_results(tmp_path, STUDY)}
    assert results.keys() == {good.name, other.name}
    assert len(results[good.name]["curves"]["held_out_loss"]) == 2
    assert progress_of(good.folder(tmp_path)) == 1

    # The same again does nothing; more epochs go on from where they ended.
    before = (good.folder(tmp_path) / "result.json").stat().st_mtime_ns
    assert run_all(tmp_path, [good, other], processes=1) == {}
    assert (good.folder(tmp_path) / "result.json").stat().st_mtime_ns == before
    assert run_all(tmp_path, [changed(epochs=4).run()], processes=1) == {}
    (longer,) = [e for e in read_results(tmp_path, STUDY) if e["name"] == good.name]
    curves = results[good.name]["curves"]["train_loss"]
    assert longer["curves"]["train_loss"][:2] == curves
    assert len(longer["curves"]["train_loss"]) == 4


@pytest.mark.slow
def test_a_killed_study_goes_on_from_its_last_epochs(
    tmp_path: Path,
) -> None:
    settings = changed(epochs=3)
    run = settings.run()
    run.prepare(tmp_path)
    folder = run.folder(tmp_path)
    half = fit.start(settings.size, settings.seeds)
    command = [sys.executable, "-m", "crisp", "study", "run", str(folder)]
    long = changed(epochs=100_000).run()
    long.prepare(tmp_path)
    process = subprocess.Popen(command)
    while progress_of(folder) == 0:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "result.json").exists()
    fit.save(folder / STATE_FILE, half)  # as if it had just saved: nothing yet is learned
    run.prepare(tmp_path)
    assert run_all(tmp_path, [run], processes=1) == {}
    (found,) = read_results(tmp_path, STUDY)
    assert len(found["curves"]["train_loss"]) == 3
    assert json.loads((folder / "settings.json").read_text())["settings"]["epochs"] == 3
    assert not (folder / FAILURE_FILE).exists()


def test_what_an_earlier_command_did_says_nothing_of_todays_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    for clock in ("time.time", "tqdm.std.time"):
        monkeypatch.setattr(clock, lambda: now[0])
    shown = io.StringIO()
    bar = tqdm(total=1.0, file=shown, mininterval=0, bar_format=scheduler._BAR)
    for second, done in ((10.0, 0.0), (20.0, 0.5), (30.0, 0.51), (40.0, 0.52)):
        now[0] = second
        scheduler._show(bar, done, "1 run")
    assert " 52 %" in shown.getvalue()
    assert shown.getvalue().endswith(("00:20, about 08:00 left", "00:20, about 07:59 left"))
