"""`crisp predict`: texts from arguments, files and stdin, and what it says of bad ones."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

import crisp
from export.errors import ExportError
from service.engine import Engine
from service.errors import InputError, ModelsError
from service.predict import BATCH, predict_texts


def lines_of(
    capsys: pytest.CaptureFixture[str], source: Any, models: Path, **options: Any
) -> list[dict[str, Any]]:
    predict_texts(source, models, None, threads=1, as_json=True, **options)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_texts_are_classified_as_the_engine_does(
    models_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["a warm film", "schlecht \u2603", "film " * 100]
    expected = Engine.load(models_dir / "sparse", threads=1).predict(texts).predictions
    found = lines_of(capsys, texts, models_dir)
    assert [line["text"] for line in found] == texts
    assert [line["line"] for line in found] == [1, 2, 3]
    for line, prediction in zip(found, expected, strict=True):
        assert line["label"] == prediction.label
        assert line["scores"] == pytest.approx(prediction.scores, abs=1e-6)
        assert (line["tokens"], line["truncated"]) == (prediction.tokens, prediction.truncated)


def test_a_file_is_read_line_by_line(
    models_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes("\ufeffgood film\r\n\n   \nein überaus langer Plot".encode())
    found = lines_of(capsys, str(file), models_dir)
    assert [(line["line"], line["text"]) for line in found] == [
        (1, "good film"),
        (4, "ein überaus langer Plot"),
    ]


def test_a_file_of_several_batches_keeps_its_order(
    models_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [
        f"film {number} is {'good' if number % 3 else 'bad'}" for number in range(2 * BATCH + 5)
    ]
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(texts))
    assert [line["text"] for line in lines_of(capsys, str(file), models_dir)] == texts


def test_stdin_is_read_where_the_file_is_a_dash(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"good\nbad\n")))
    assert [line["text"] for line in lines_of(capsys, "-", models_dir)] == ["good", "bad"]


def test_an_empty_file_gives_nothing(
    models_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").touch()
    assert lines_of(capsys, str(tmp_path / "empty.txt"), models_dir) == []


def test_the_table_shows_label_score_and_text(
    models_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["good film", "a bad \x1b[31mplot\x07 with tricks", "film " * 40]
    predict_texts(texts, models_dir, "dense", threads=1)
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["label", "score", "text"]
    expected = Engine.load(models_dir / "dense", threads=1).predict(texts).predictions
    for row, text, prediction in zip(rows, texts, expected, strict=True):
        label, score, *words = row.split()
        assert (label, float(score)) == (prediction.label, round(prediction.score, 3))
        assert words[:2] == text.split()[:2]
        assert (words[-1] == "[cut]") == prediction.truncated
        assert row.isprintable()


@pytest.mark.parametrize("labels", [("1", "5"), ("bad\x1b", "真棒")])
def test_a_table_of_other_labels_stays_in_line(
    models_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    labels: tuple[str, str],
) -> None:
    folder = tmp_path / "dense"
    shutil.copytree(models_dir / "dense", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"labels": labels}))
    predict_texts(["good film"], tmp_path, None, threads=1)
    header, row = capsys.readouterr().out.splitlines()
    score = row.split()[-3]
    assert cell_len(row[: row.index(score)]) == cell_len(header[: header.index("score")]) == 7
    assert row.split()[0] in {label.replace("\x1b", "") for label in labels}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good\nsch\xf6n\n", r"texts\.txt, line 2: byte 4 is no valid UTF-8; convert"),
        (b"PK\x03\x04\x00\x00", r"texts\.txt, line 1: NUL character"),
        ("good\n".encode("utf-16"), r"line 1: byte 1 is no valid UTF-8.*iconv -f utf-16"),
        (b"good\rbad\r", r"line 1: a carriage return within it.*tr '\\r' '\\n'"),
    ],
)
def test_a_file_that_is_no_utf8_text_is_refused(
    models_dir: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        predict_texts(str(file), models_dir, None, threads=1)


def test_a_missing_file_is_refused(models_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.txt: No such file"):
        predict_texts(str(tmp_path / "nowhere.txt"), models_dir, None, threads=1)


@pytest.mark.parametrize(
    ("text", "message"), [("a\udcff", "text 2 is no valid UTF-8"), (" ", "text 2 is empty")]
)
def test_an_argument_that_is_no_text_is_refused(models_dir: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict_texts(["good", text], models_dir, None, threads=1)


def test_an_unknown_variant_is_refused_with_the_known_ones(models_dir: Path) -> None:
    with pytest.raises(ModelsError, match=r"no variant 'huge' .* known: dense, sparse"):
        predict_texts(["good"], models_dir, "huge")


def test_a_broken_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sparse").mkdir()
    with pytest.raises(ExportError, match=r"has no manifest\.json"):
        predict_texts(["good"], tmp_path, None)


@pytest.mark.parametrize("arguments", [[], ["good", "--file", "texts.txt"]])
def test_texts_or_a_file_but_not_both(arguments: list[str]) -> None:
    done = CliRunner().invoke(crisp.app, ["predict", *arguments])
    assert done.exit_code == 2
    assert "expected either texts or --file" in done.output


def test_the_command_prints_json(models_dir: Path) -> None:
    arguments = ["predict", "good film", "--models", str(models_dir), "--json", "--threads", "1"]
    done = CliRunner().invoke(crisp.app, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["text"] == "good film"
