"""Copies of the models in use: whole, in the operator's words, and not left behind."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_server import ROOT

from service.errors import ModelsError
from service.model_folders import model_folders
from service.snapshot import Snapshot, working_folder
from service.variants import Variants


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_what_is_copied_is_served_when_the_folder_is_gone(models_dir: Path, tmp_path: Path) -> None:
    models = Path(shutil.copytree(models_dir, tmp_path / "models"))
    (models / "sparse" / "notes").mkdir()  # no file of a model
    snapshot = Snapshot.take(models, tmp_path / "copy")
    shutil.rmtree(models)
    variants = Variants.load(snapshot.models, threads=1)
    assert list(variants) == ["dense", "sparse"]
    expected = Variants.load(models_dir, threads=1).default.predict(["a warm film"])
    assert variants.default.predict(["a warm film"]).predictions == expected.predictions
    snapshot.delete()
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("name", ["only", ".hidden", "__odd"])
def test_a_model_folder_itself_keeps_its_name(models_dir: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(models_dir / "dense", tmp_path / name))
    snapshot = Snapshot.take(folder, tmp_path / "copy")
    assert list(model_folders(snapshot.models)) == [name]
    assert snapshot.in_words(f"{snapshot.models}/model.onnx") == f"{folder}/model.onnx"


def test_what_does_not_load_is_told_in_words_of_the_folder(
    models_dir: Path, tmp_path: Path
) -> None:
    models = Path(shutil.copytree(models_dir, tmp_path / "models"))
    (models / "dense" / "tokenizer.json").unlink()
    snapshot = Snapshot.take(models, tmp_path / "copy")
    with pytest.raises(ModelsError) as wrong:
        Variants.load(snapshot.models, threads=1)
    message = snapshot.in_words(str(wrong.value))
    assert message.startswith(f"{models / 'dense' / 'tokenizer.json'} is missing")


def test_what_cannot_be_copied_leaves_nothing(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error.filename, error.filename2 = str(source), str(target)
        raise error

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(ModelsError, match=r"cannot copy .*dense to .*: No space left on device;"):
        Snapshot.take(models_dir, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_folder_that_cannot_be_read_is_named(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def secret(folder: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(Path, "iterdir", secret)
    with pytest.raises(ModelsError, match=r"cannot read .*: Permission denied"):
        Snapshot.take(models_dir, tmp_path / "copy")


def test_what_cannot_be_read_is_named(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def secret(source: Path, _: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(source))

    monkeypatch.setattr(shutil, "copyfile", secret)
    with pytest.raises(ModelsError, match=r"cannot read .*/dense/.*: Permission denied"):
        Snapshot.take(models_dir, tmp_path / "copy")


def test_folders_of_the_killed_are_deleted_and_others_are_not(temporary: Path) -> None:
    code = (
        "import os, signal, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from service.snapshot import working_folder\n"
        "with working_folder() as folder:\n"
        "    print(folder, flush=True)\n"
        "    sys.stdin.read()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(temporary)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with working_folder() as ours:
            assert set(temporary.iterdir()) == {theirs, ours}  # it lives
        other.stdin.close()
        other.wait(60)
    assert list(temporary.iterdir()) == [theirs]
    with working_folder() as ours:
        assert list(temporary.iterdir()) == [ours]
    assert not list(temporary.iterdir())
