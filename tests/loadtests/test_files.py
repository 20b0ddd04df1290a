"""Results are whole or not there, and whether they can be saved is known before the load."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from matplotlib.figure import Figure

from loadtests import files, startup
from loadtests.report import pictures


def full_disk(path: Path, *_: Any, **__: Any) -> None:
    """Some of it is written, then no more."""
    path.write_bytes(b"{")
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", full_disk)
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: full_disk(path))


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for text in ("né", "new"):
        files.write(text, tmp_path / "a.json")
        assert (tmp_path / "a.json").read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text("old")
    on_a_full_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        files.write("new", tmp_path / "a.json")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.json": "old"}


def test_a_full_disk_leaves_no_half_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_full_disk(monkeypatch)
    monkeypatch.setattr(pictures, "_latency", lambda _: Figure())
    story: Any = type("Story", (), {"with_capacity": [], "rows": []})()
    monkeypatch.setattr(pictures, "data_sets", lambda _: [])
    with pytest.raises(OSError, match="No space left"):
        pictures.save(story, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_record_of_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_full_disk(monkeypatch)
    start = {"ready_seconds": 1.0, "resident_mib": [1.0]}
    monkeypatch.setattr(startup, "one_start", lambda *_, **__: start)
    with pytest.raises(OSError, match="No space left"):
        startup.main(None, starts=1, requests=1, json_file=tmp_path / "startup.json")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_take_results_are_let_through_and_not_made(tmp_path: Path) -> None:
    files.check(tmp_path / "a" / "b", tmp_path / "a.json")
    files.check(tmp_path, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--json={here}/out/a.json", "--json=out/a.json"),
        ("{here}/../bob/models", "models"),
        ("/srv/bob/models/", "models"),
        ("replay:/var/log/access.log", "replay:access.log"),
        ("the other=crisp+http://127.0.0.1:3000/v1#dense",) * 2,
        ("results/a.json",) * 2,
    ],
)
def test_a_report_shows_no_folder_of_the_machine(
    word: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.shown(word.format(here=tmp_path)) == shown


def test_places_that_take_no_results_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for out, json_file, complaint in (
        (tmp_path / "file", None, "file is no folder"),
        (tmp_path / "file" / "below", None, "file is no folder"),
        (tmp_path, tmp_path / "none" / "a.json", "there is no folder"),
        (tmp_path, tmp_path, "is a folder: name a file"),
    ):
        with pytest.raises(typer.BadParameter, match=complaint):
            files.check(out, json_file)
    # As for somebody who may not write; root, who may run this, is asked by nobody.
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    for json_file in (None, tmp_path / "a.json"):
        with pytest.raises(typer.BadParameter, match="nothing may be written in"):
            files.check(tmp_path / "new", json_file)
