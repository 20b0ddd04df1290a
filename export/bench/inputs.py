"""What `crisp bench` is given, checked before any long work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from export.errors import ExportError, ModelFolderError
from export.manifest import TOKENIZER_FILE, ModelFolder
from training.data import LabelledTexts, read_examples
from training.files import output_file

BUNDLED_MODELS = Path(__file__).resolve().parents[2] / "service" / "models"
BUNDLED = ("dense", "sparse")


def model_folders(given: Sequence[Path] | None) -> list[ModelFolder]:
    """The verified folders to measure. Raises ModelFolderError, also where none is bundled."""
    if given:
        return [ModelFolder.load(path) for path in dict.fromkeys(given)]
    paths = [BUNDLED_MODELS / name for name in BUNDLED]
    missing = [path for path in paths if not path.is_dir()]
    if missing:
        raise ModelFolderError(
            f"{missing[0]} is missing, one of the models that come with this project; name another "
            "with --model, which `crisp train` and then `crisp export` make"
        )
    return [ModelFolder.load(path) for path in paths]


def labelled_texts(
    files: Sequence[str] | None, folders: Sequence[ModelFolder]
) -> list[LabelledTexts]:
    """The labelled texts of --accuracy. Raises DataError where one is not readable, ExportError
    where the models differ in their labels or tokenizers."""
    if not files:
        return []
    first = folders[0].manifest
    for other in (folder.manifest for folder in folders[1:]):
        same = other.files[TOKENIZER_FILE].sha256 == first.files[TOKENIZER_FILE].sha256
        if not same or other.labels != first.labels:
            raise ExportError(
                f"{first.name} and {other.name} have different labels or tokenizers, and "
                "--accuracy gives all contenders the same; measure them one at a time"
            )
    return [read_examples(file, split="validation", label_names=first.labels) for file in files]


def calibration_texts(files: Sequence[str] | None) -> list[LabelledTexts]:
    """The texts of --calibration. Raises DataError where one is not readable."""
    return [read_examples(file) for file in files or ()]


def plot_file(path: Path | None) -> Path | None:
    """`path`, if it can be drawn into. Raises typer.BadParameter, before any long work."""
    if path is None:
        return None
    from export.bench.picture import FORMATS

    if path.suffix.lower() not in FORMATS:
        raise typer.BadParameter(
            f"{path} cannot be drawn into: give a {' or '.join(FORMATS)} file",
            param_hint="--plot",
        )
    return output_file(str(path), "--plot")
