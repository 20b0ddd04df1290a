"""A model folder loads only where every file is what its manifest says, and says what is wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.errors import ExportError, ModelFolderError
from export.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    DataFacts,
    Manifest,
    Measurement,
    ModelFolder,
    Operator,
    TrainingFacts,
    dump,
    facts_of,
    sha256_of,
)


def write_folder(path: Path) -> Path:
    """A whole model folder, its model a few bytes: loading verifies bytes, not graphs."""
    path.mkdir()
    (path / MODEL_FILE).write_bytes(b"\x08\x0a a graph would be here \x00\xff")
    (path / TOKENIZER_FILE).write_text('{"version": "1.0"}', encoding="utf-8")
    (path / MANIFEST_FILE).write_text(dump(manifest_of(path)), encoding="utf-8")
    return path


def manifest_of(path: Path) -> Manifest:
    data = DataFacts(name="übung.tsv", rows=12, sha256="0" * 64)
    return Manifest(
        name="sparse",
        labels=("negative", "positive"),
        max_tokens=512,
        attention={"name": "topk", "density": 0.2},
        precision="int8",
        parameters=22_000_000,
        trained=TrainingFacts(base_model="minilm", data=(data,), seed=0, settings={"epochs": 3}),
        measured=(Measurement(data=data, accuracy=0.9, low=0.8, high=0.95),),
        parity={"largest_difference": 1e-6},
        operators=(Operator(domain="crisp", name="SparseAttention", version=1),),
        versions={"onnx": "1.2.3"},
        files={name: facts_of(path / name) for name in (MODEL_FILE, TOKENIZER_FILE)},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "sparse")


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / MANIFEST_FILE
    fields = json.loads(file.read_bytes())
    change(fields)
    file.write_text(json.dumps(fields), encoding="utf-8")


def test_a_whole_folder_loads_as_it_was_written(folder: Path) -> None:
    loaded = ModelFolder.load(folder)
    assert loaded.manifest == manifest_of(folder)
    assert loaded.model == folder / MODEL_FILE
    assert loaded.tokenizer == folder / TOKENIZER_FILE
    assert dump(loaded.manifest) == (folder / MANIFEST_FILE).read_text(encoding="utf-8")
    assert "übung.tsv" in dump(loaded.manifest)


@given(content=st.binary(max_size=200))
def test_facts_are_those_of_the_bytes(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("facts") / "file"
    file.write_bytes(content)
    assert facts_of(file).bytes == len(content)
    assert facts_of(file).sha256 == sha256_of(file) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
@pytest.mark.parametrize("position", [0, -1])
def test_one_altered_byte_is_found(folder: Path, name: str, position: int) -> None:
    content = bytearray((folder / name).read_bytes())
    content[position] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFolderError, match=f"{name} is not the file .*sha256 differs"):
        ModelFolder.load(folder)


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
def test_a_truncated_file_is_found(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    said = f"{len(content) - 1} bytes where the manifest says {len(content)}: it is truncated"
    with pytest.raises(ModelFolderError, match=said):
        ModelFolder.load(folder)


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"{name}") as caught:
        ModelFolder.load(folder)
    assert "crisp export" in str(caught.value) or "export the model again" in str(caught.value)


def test_no_folder_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="is not a folder; make one with `crisp export`"):
        ModelFolder.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ModelFolderError, match="is not a folder"):
        ModelFolder.load(tmp_path / "file")


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
def test_a_manifest_must_list_what_is_loaded(folder: Path, name: str) -> None:
    change_manifest(folder, lambda fields: fields["files"].pop(name))
    with pytest.raises(ModelFolderError, match=f"does not list {name}"):
        ModelFolder.load(folder)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "inner/file", "..", ".", "", "../sparse/model.onnx"]
)
def test_a_manifest_cannot_reach_outside_its_folder(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_text("secret")
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("secret")
    facts = facts_of(folder.parent / "outside").model_dump()
    change_manifest(folder, lambda fields: fields["files"].update({name: facts}))
    with pytest.raises(ModelFolderError, match=r"plain name|is missing"):
        ModelFolder.load(folder)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda fields: fields.update(schema_version=2), "schema_version"),
        (lambda fields: fields.update(surprise=True), "surprise"),
        (lambda fields: fields.pop("labels"), "labels"),
        (lambda fields: fields.update(labels=["only"]), "labels"),
        (lambda fields: fields.update(precision="fp8"), "precision"),
        (lambda fields: fields.update(max_tokens=1), "max_tokens"),
        (lambda fields: fields.update(parameters="many"), "parameters"),
        (lambda fields: fields["trained"].pop("seed"), "trained.seed"),
        (lambda fields: fields["measured"][0].update(accuracy=1.5), "measured.0.accuracy"),
        (lambda fields: fields["files"][MODEL_FILE].update(sha256="AB"), "files.model.onnx.sha256"),
        (lambda fields: fields["files"][MODEL_FILE].update(bytes=-1), "files.model.onnx.bytes"),
    ],
)
def test_a_manifest_of_another_schema_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], where: str
) -> None:
    change_manifest(folder, change)
    with pytest.raises(ModelFolderError, match=f"does not fit manifest schema 1: {where}") as error:
        ModelFolder.load(folder)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ExportError)


@pytest.mark.parametrize("version", [0, 2])
def test_operators_of_another_version_are_refused(folder: Path, version: int) -> None:
    change_manifest(folder, lambda fields: fields["operators"][0].update(version=version))
    said = f"needs version {version} of crisp::SparseAttention, and this is version 1: export"
    with pytest.raises(ModelFolderError, match=said) as error:
        ModelFolder.load(folder)
    assert "\n" not in str(error.value)


def test_operators_of_other_domains_have_their_own_versions(folder: Path) -> None:
    other = {"domain": "com.microsoft", "name": "Gelu", "version": 7}
    change_manifest(folder, lambda fields: fields["operators"].append(other))
    assert len(ModelFolder.load(folder).manifest.operators) == 2


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"a": 1'])
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, text: bytes) -> None:
    (folder / MANIFEST_FILE).write_bytes(text)
    with pytest.raises(ModelFolderError, match="does not fit manifest schema 1"):
        ModelFolder.load(folder)


def test_a_manifest_cannot_change_after_its_check(folder: Path) -> None:
    manifest = ModelFolder.load(folder).manifest
    with pytest.raises(ValueError, match="frozen"):
        manifest.max_tokens = 3  # type: ignore[misc]
