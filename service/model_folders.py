"""Which model folders there are, without opening any: every sub-folder is a variant and its name is
the variant's (hidden ones, and __pycache__, aside)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from export.manifest import MANIFEST_FILE
from service.errors import ModelsError

DEFAULT_VARIANT = "sparse"  # where there is one; else the first by name


def is_model_folder(path: Path) -> bool:
    """Whether `path` itself claims to be one."""
    return (path / MANIFEST_FILE).is_file()


def model_folders(models: Path) -> dict[str, Path]:
    """The model folders in `models` by variant name; raises ModelsError where there is none.

    A folder that is a model folder itself counts as the only variant.
    """
    try:
        found = _folders_in(models)
    except OSError as error:
        raise ModelsError(f"cannot read {models}: {error.strerror}") from None
    if not found:
        raise ModelsError(
            f"{models} holds no model folder; make one with `crisp export RUN --out {models}/NAME`"
        )
    return found


def _folders_in(models: Path) -> dict[str, Path]:
    if not models.is_dir():
        raise ModelsError(
            f"{models} is not a folder: expected one with a model folder for each variant; "
            f"make one with `crisp export RUN --out {models}/NAME`"
        )
    if is_model_folder(models):
        return {models.resolve().name: models}
    return {
        path.name: path
        for path in sorted(models.iterdir())
        if path.is_dir() and not path.name.startswith((".", "__"))
    }


def default_of(names: Iterable[str]) -> str:
    """The variant that answers where none is asked for."""
    ordered = sorted(names)
    return DEFAULT_VARIANT if DEFAULT_VARIANT in ordered else ordered[0]
