"""Files of results: whole or not there, in the place of nothing that is no file."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from loadtests import files as loadtest_files
from training.files import output_file, write_atomically

Write = Callable[[Path, str], None]
both = pytest.mark.parametrize(
    "write", [write_atomically, lambda file, text: loadtest_files.write(text, file)]
)


@both
def test_what_a_link_names_is_written(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(folder / "real.json")
    for text in ("old", "new"):
        write(link, text)
        assert link.is_symlink()
        assert (folder / "real.json").read_text() == text
    assert [file.name for file in folder.iterdir()] == ["real.json"]


@both
def test_a_pipe_is_written_into(write: Write, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write(pipe, "through it")
    reader.join(10)
    assert read == ["through it"]
    assert pipe.is_fifo()


@both
def test_a_device_stays_one(write: Write) -> None:
    write(Path(os.devnull), "gone")
    assert Path(os.devnull).is_char_device()


@both
def test_a_name_that_is_no_utf8_is_one_in_json_all_the_same(write: Write, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.tsv")
    write(tmp_path / "found.json", json.dumps({"data": name}, ensure_ascii=False))
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8")) == {"data": name}


def test_what_cannot_be_written_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert output_file(None) is None
    assert output_file("-") is None
    assert output_file(str(tmp_path / "a.json")) == tmp_path / "a.json"
    assert output_file(os.devnull) == Path(os.devnull)
    for wrong in (tmp_path, tmp_path / "nowhere" / "a.json"):
        with pytest.raises(typer.BadParameter, match="a file in a folder that exists"):
            output_file(str(wrong))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(typer.BadParameter, match="nothing may be written in") as caught:
        output_file(str(tmp_path / "a.png"), "--plot")
    assert caught.value.param_hint == "--plot"
