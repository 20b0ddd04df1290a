"""Files that are written whole or not at all, and those that a command's `--json FILE` names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer


def write_atomically(file: Path, text: str) -> None:
    """Writes `file`, UTF-8, whole or not at all; raises OSError where the disk is full."""
    with whole_or_not_at_all(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def whole_or_not_at_all(file: Path) -> Iterator[Path]:
    """The name under which to write what becomes `file` at the end, unless something is raised."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")  # others may write it as well
    try:
        yield temporary
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def output_file(json_option: str | None) -> Path | None:
    """The file that `--json FILE` names; None without the option, and for `-`.

    Raises typer.BadParameter, before any long work, where it cannot be written.
    """
    if json_option is None or json_option == "-":
        return None
    path = Path(json_option)
    if path.is_dir() or not path.parent.is_dir():
        raise typer.BadParameter(
            f"{path} cannot be written: give a file in a folder that exists", param_hint="--json"
        )
    return path
