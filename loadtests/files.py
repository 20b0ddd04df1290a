"""Files that are written whole or not at all, where it was seen before that they can be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer


def shown(text: str) -> str:
    """A word of a command, but for folders that are nobody's business in a report: an absolute path
    in it is shown from the working folder on, or by its last component."""
    here = Path.cwd()

    def short(found: re.Match[str]) -> str:
        path = Path(os.path.normpath(found[2]))
        return found[1] + str(path.relative_to(here) if here in path.parents else path.name)

    return re.sub(r"(^|=|:(?!//))(/.*)", short, text, flags=re.DOTALL)


def write(text: str, file: Path) -> None:
    """Writes `file`, UTF-8, whole or not at all; raises OSError where it cannot. Bytes of a file
    name that are no UTF-8 come as escapes."""
    with whole_or_not_at_all(file) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def whole_or_not_at_all(file: Path) -> Iterator[Path]:
    """The name under which to write what becomes `file` at the end, unless something is raised.

    A link stays one: what it names is written. So does a device or a pipe, which is written into.
    """
    if _is_special(file):
        yield file
        return
    file = file.resolve()
    temporary = file.with_name(f"{file.name}.part")
    try:
        yield temporary
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check(out: Path, json_file: Path | None) -> None:
    """Raises typer.BadParameter where results could not be saved in the folder `out`, which may not
    be there yet, or in a file. Nothing is made to find out."""
    if json_file is not None:
        if not json_file.parent.is_dir():
            raise typer.BadParameter(f"there is no folder {json_file.parent}", param_hint="--json")
        if json_file.is_dir():
            raise typer.BadParameter(f"{json_file} is a folder: name a file", param_hint="--json")
        if not _is_special(json_file):
            _check_folder(json_file.resolve().parent, "--json")
    _check_folder(out, "--out")


def _is_special(file: Path) -> bool:
    """A device, a pipe, or standard output by name, in whose place no file may come."""
    return file.is_relative_to("/dev") or (file.exists() and not file.is_file())


def _check_folder(folder: Path, option: str) -> None:
    nearest = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not nearest.is_dir():
        message = f"{nearest} is no folder: give one that results can be saved in"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        message = f"nothing may be written in {nearest}: give another folder"
    else:
        return
    raise typer.BadParameter(message, param_hint=option)
