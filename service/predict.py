"""Texts from the command line, a file or stdin to predictions on the terminal, batch by batch.

A file of any size streams through in bounded memory; rows appear as they are ready.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from service.engine import Engine, Prediction
from service.errors import InputError, ModelsError
from service.model_folders import default_of, model_folders
from service.terminal import printable

BATCH = 256  # texts; the engine cuts them further into packs of bounded tokens
STDIN = "-"

Line = tuple[int, str]  # number of the line, from 1, and its text


def predict_texts(
    source: str | Sequence[str],
    models: Path,
    variant: str | None,
    *,
    threads: int | None = None,
    as_json: bool = False,
) -> None:
    """Prints a prediction for each text: those given, or the lines of the file called `source`.

    Raises InputError for a file or text that cannot be read, ModelsError for an unknown variant.
    """
    engine = open_engine(models, variant, threads)
    if isinstance(source, str):
        lines, total = _lines_of(source), _number_of_lines(source)
    else:
        lines, total = given(source), len(source)
    console = Console(highlight=False)
    with _progress(console, shown=isinstance(source, str)) as progress:
        task = progress.add_task("texts", total=total)
        while batch := list(islice(lines, BATCH)):
            if not (as_json or progress.tasks[task].completed):
                _print_row(console, engine, Text("label"), Text("score"), "text")
            answer = engine.predict([text for _, text in batch])
            for (number, text), prediction in zip(batch, answer.predictions, strict=True):
                if as_json:
                    print(json.dumps({"line": number, "text": text, **asdict(prediction)}))
                else:
                    _print_prediction(console, engine, text, prediction)
            progress.update(task, completed=batch[-1][0])


def open_engine(models: Path, variant: str | None, threads: int | None = None) -> Engine:
    """The engine of a variant, by default of the default one; says on stderr where it will be slow.
    Raises ModelsError where there is none."""
    folders = model_folders(models)
    name = variant or default_of(folders)
    if name not in folders:
        raise ModelsError(f"there is no variant {name!r} in {models}; known: {', '.join(folders)}")
    engine = Engine.load(folders[name], threads=threads)
    if not engine.library.available:
        print(f"crisp: warning: {engine.library.reason}", file=sys.stderr)
    return engine


def given(texts: Iterable[str]) -> Iterator[Line]:
    """`texts` with their numbers; raises InputError at the first that no model can read."""
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(f"text {number} is no valid UTF-8: {text[:40]!a}") from None
        if not text.strip():
            raise InputError(f"text {number} is empty: give some text or leave it out")
        yield number, text


def _lines_of(file: str) -> Iterator[Line]:
    """The lines of a UTF-8 file that are not blank, without their ends."""
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                utf16 = number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff")
                raise InputError(
                    f"{file}, line {number}: byte {error.start + 1} is no valid UTF-8; convert the "
                    f"file, for example with `iconv -f {'utf-16' if utf16 else 'latin1'} -t utf-8`"
                ) from None
            if "\0" in text:
                raise InputError(f"{file}, line {number}: NUL character; is this a text file?")
            if "\r" in text:
                raise InputError(
                    f"{file}, line {number}: a carriage return within it, as old Macs end lines; "
                    "convert the file with `tr '\\r' '\\n'`"
                )
            if text.strip():
                yield number, text


def _number_of_lines(file: str) -> int | None:
    if file == STDIN or not Path(file).is_file():
        return None
    with _open(file) as stream:
        return sum(1 for _ in stream)


def _open(file: str) -> IO[bytes]:
    if file == STDIN:
        if sys.stdin is None:
            raise InputError("standard input is closed")
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror}; expected a UTF-8 file with one text a line"
        ) from None


def _progress(console: Console, *, shown: bool) -> Progress:
    """A bar below the rows, or on stderr where the rows go into a file or pipe."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console if console.is_terminal else Console(stderr=True),
        transient=True,
        redirect_stdout=console.is_terminal,
        redirect_stderr=console.is_terminal,
        disable=not shown,
    )


def _print_prediction(console: Console, engine: Engine, text: str, found: Prediction) -> None:
    colour = {"positive": "green", "negative": "red"}.get(found.label, "cyan")
    cut = " [cut]" if found.truncated else ""
    score = Text(f"{found.score:.3f}")
    _print_row(console, engine, Text(printable(found.label), style=colour), score, text + cut)


def _print_row(console: Console, engine: Engine, label: Text, score: Text, text: str) -> None:
    label.pad_right(max(map(cell_len, ("label", *engine.manifest.labels))) - label.cell_len)
    row = Text("  ").join([label, score, Text(printable(text))])
    if console.is_terminal:
        console.print(row, no_wrap=True, overflow="ellipsis")
    else:
        console.print(row, soft_wrap=True)
