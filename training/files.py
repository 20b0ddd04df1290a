"""Files that are written whole or not at all, those that a command's `--json FILE` names, and
folders that one process holds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from training.errors import TrainingError

if sys.platform != "win32":
    import fcntl


def write_atomically(file: Path, text: str) -> None:
    """Writes `file`, UTF-8, whole or not at all; raises OSError where the disk is full.

    Bytes of a file name that are no UTF-8 come as escapes, which JSON reads as what they were."""
    with whole_or_not_at_all(file) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def whole_or_not_at_all(file: Path) -> Iterator[Path]:
    """The name under which to write what becomes `file` at the end, unless something is raised.

    A link stays one: what it names is written. So does a device or a pipe, which is written into.
    """
    if is_special(file):
        yield file
        return
    file = file.resolve()
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")  # others may write it as well
    try:
        yield temporary
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_special(file: Path) -> bool:
    """A device, a pipe, or standard output by name, in whose place no file may come."""
    return file.is_relative_to("/dev") or (file.exists() and not file.is_file())


@contextmanager
def held(folder: Path, refusal: type[TrainingError]) -> Iterator[None]:
    """Holds `folder` for this process. Raises `refusal` where another one holds it."""
    if sys.platform == "win32":
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise refusal(f"another process is at work on {folder}; wait for it") from None
        yield
    finally:
        os.close(opened)


def output_file(option: str | None, name: str = "--json") -> Path | None:
    """The file that the option `name` names; None without the option, and for `-`.

    Raises typer.BadParameter, before any long work, where it cannot be written.
    """
    if option is None or option == "-":
        return None
    path = Path(option)
    folder = path if is_special(path) else path.resolve().parent
    if path.is_dir() or not path.parent.is_dir():
        problem = "give a file in a folder that exists"
    elif not os.access(folder, os.W_OK):
        problem = f"nothing may be written in {folder}"
    else:
        return path
    raise typer.BadParameter(f"{path} cannot be written: {problem}", param_hint=name)
