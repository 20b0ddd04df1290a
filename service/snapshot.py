"""A copy of the models that are in use, from which every process of the service loads them.

So all of them hold the same models, one that is started again later too, whatever becomes of the
folder that they came from meanwhile: it may be half exchanged, damaged or gone.

    with working_folder() as folder:
        now = Snapshot.take(Path("models"), folder / "models-1")
        Variants.load(now.models)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.errors import ModelsError
from service.model_folders import is_model_folder, model_folders

_PREFIX = "crisp-serve-"


@dataclass(frozen=True)
class Snapshot:
    """`models` is where the copy is; `originals` has the folder that each of its folders is of."""

    models: Path
    originals: dict[Path, Path]

    @classmethod
    def take(cls, models: Path, to: Path) -> Snapshot:
        """Copies the model folders in `models` into the new folder `to`; what is wrong with their
        content is for whoever loads them to find.

        Raises ModelsError where there is none, or where one cannot be copied.
        """
        originals = {to / name: folder for name, folder in model_folders(models).items()}
        for copy, folder in originals.items():
            try:
                copy.mkdir(parents=True)
                for file in folder.iterdir():
                    if file.is_file():
                        shutil.copyfile(file, copy / file.name)
            except OSError as error:
                shutil.rmtree(to, ignore_errors=True)
                raise ModelsError(_why(error, folder, to)) from None
        return cls(next(iter(originals)) if is_model_folder(models) else to, originals)

    def in_words(self, message: str) -> str:
        """`message`, with the paths that whoever runs the service knows."""
        for copy, folder in self.originals.items():
            message = message.replace(str(copy), str(folder))
        return message

    def delete(self) -> None:
        for copy in self.originals:
            shutil.rmtree(copy.parent, ignore_errors=True)


def _why(error: OSError, folder: Path, to: Path) -> str:
    """What went wrong with the copy of `folder`."""
    at = str(error.filename2 or error.filename)
    if at.startswith(str(to)):
        return (
            f"cannot copy {folder} to {to.parent}: {error.strerror}; make room there, or set "
            "TMPDIR to another folder"
        )
    return f"cannot read {at}: {error.strerror}"


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """A new folder for what this process keeps while it runs. Deletes those that others have left
    behind who were killed: a lock on the folder tells who is alive.

    Raises OSError where there is no place for it.
    """
    for other in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(other, fcntl.LOCK_EX):
            shutil.rmtree(other, ignore_errors=True)
    made = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
    with made as name, _locked(Path(name), fcntl.LOCK_SH):
        yield Path(name)


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Holds a lock on `folder`, or raises OSError where somebody else does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
