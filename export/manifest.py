"""The model folder: `model.onnx`, `tokenizer.json` and `manifest.json`, and their schema.

Written by `crisp export`, read by everything after it. Loading verifies the sha256 of every file,
so a truncated or altered model never answers. Imports neither torch nor onnx.

    folder = ModelFolder.load(Path("service/models/sparse"))
    folder.manifest.labels   # ("negative", "positive")
    folder.model             # .../model.onnx
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from export.errors import ModelFolderError

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
MANIFEST_FILE = "manifest.json"
DOMAIN = "crisp"  # of our operators
DOMAIN_VERSION = 1

Precision = Literal["fp32", "fp16", "int8"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileFacts(_Facts):
    """Size in bytes and sha256 of one file of the folder."""

    bytes: int = Field(ge=0)
    sha256: Sha256


class DataFacts(_Facts):
    """A data set as it was read: its name, number of examples, and sha256 of its bytes."""

    name: str
    rows: int = Field(ge=1)
    sha256: Sha256 | None = None


class TrainingFacts(_Facts):
    """How the checkpoint came to be: enough to train it again."""

    base_model: str
    data: tuple[DataFacts, ...]
    seed: int
    settings: dict[str, Any]


class Measurement(_Facts):
    """Accuracy of the exported model on a data set, with its 95 % Wilson interval."""

    data: DataFacts
    accuracy: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)


class Operator(_Facts):
    """An ONNX operator outside the standard set that the graph calls."""

    domain: str
    name: str
    version: int


class Manifest(_Facts):
    """Everything that a later stage or a reader may want to know of a model folder."""

    schema_version: Literal[1] = 1
    name: str
    labels: tuple[str, ...] = Field(min_length=2)
    max_tokens: int = Field(ge=2)
    attention: dict[str, str | int | float]
    pruning: dict[str, Any] | None = None
    precision: Precision
    parameters: int = Field(ge=1)
    trained: TrainingFacts
    measured: tuple[Measurement, ...] = ()
    parity: dict[str, float] = Field(default_factory=dict)
    operators: tuple[Operator, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, FileFacts]


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose files have been found to be what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def tokenizer(self) -> Path:
        return self.path / TOKENIZER_FILE

    @property
    def shown(self) -> str:
        """The path as reports print it: from the working directory, where it lies in that."""
        path = self.path.resolve()
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

    @classmethod
    def load(cls, path: Path) -> ModelFolder:
        """Reads and verifies the folder at `path`.

        Raises ModelFolderError where a file is missing, the manifest does not fit the schema, or a
        file is not the one that the manifest describes.
        """
        file = path / MANIFEST_FILE
        if not path.is_dir():
            raise ModelFolderError(f"{path} is not a folder; make one with `crisp export`")
        if not file.is_file():
            raise ModelFolderError(f"{path} has no {MANIFEST_FILE}; make it with `crisp export`")
        try:
            manifest = Manifest.model_validate_json(file.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ModelFolderError(
                f"{file} does not fit manifest schema 1: {where}: {first['msg']}"
            ) from None
        for operator in manifest.operators:
            if operator.domain == DOMAIN and operator.version != DOMAIN_VERSION:
                raise ModelFolderError(
                    f"{path} needs version {operator.version} of {DOMAIN}::{operator.name}, and "
                    f"this is version {DOMAIN_VERSION}: export the model again, or use the crisp "
                    "that made it"
                )
        for name in (MODEL_FILE, TOKENIZER_FILE):
            if name not in manifest.files:
                raise ModelFolderError(f"{file} does not list {name}; export the model again")
        for name, facts in manifest.files.items():
            _verify(path, name, facts)
        return cls(path, manifest)


def _verify(folder: Path, name: str, facts: FileFacts) -> None:
    if Path(name).name != name:
        raise ModelFolderError(f"{folder / MANIFEST_FILE} lists {name!r}, which is no plain name")
    file = folder / name
    if not file.is_file():
        raise ModelFolderError(f"{file} is missing; export the model again")
    size = file.stat().st_size
    if size != facts.bytes:
        raise ModelFolderError(
            f"{file} has {size} bytes where the manifest says {facts.bytes}: "
            "it is truncated or altered; export the model again"
        )
    if sha256_of(file) != facts.sha256:
        raise ModelFolderError(
            f"{file} is not the file that the manifest describes (sha256 differs); "
            "export the model again"
        )


def sha256_of(file: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def facts_of(file: Path) -> FileFacts:
    """Size and hash of `file`, as a manifest lists them."""
    return FileFacts(bytes=file.stat().st_size, sha256=sha256_of(file))


def dump(manifest: Manifest) -> str:
    """The manifest as the text of `manifest.json`."""
    return json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
