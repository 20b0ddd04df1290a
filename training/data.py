"""Labelled texts: TSV, CSV, JSON-lines and Parquet files, or a data set of the Hugging Face hub.

Imports no torch, so that `crisp compare` can read the same files without it.

    texts = read_examples("reviews.tsv")         # a header row with sentence/text and label
    texts.examples[0].text, texts.examples[0].label, texts.label_names
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.errors import DataError, first_line
from training.hub import hub_is_reachable
from training.labels import label_names as names_of
from training.labels import label_reader, label_text, refuse_two_readings

TEXT_COLUMNS = ("sentence", "text", "review", "content")
LABEL_COLUMNS = ("label", "labels", "sentiment")
FILE_TYPES = (".tsv", ".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Example:
    """A text and the index of its label in `LabelledTexts.label_names`."""

    text: str
    label: int


@dataclass(frozen=True)
class LabelledTexts:
    """A data set as it was read; `sha256` is that of the file, or of the rows of a hub data set."""

    name: str
    examples: tuple[Example, ...]
    label_names: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.examples)


def read_examples(
    source: str | Path,
    *,
    split: str = "train",
    label_names: Sequence[str] | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> LabelledTexts:
    """Reads a file by its ending, or else the split of a hub data set through `datasets`.

    Labels are names (of `label_names`, where given), in any case, or indices: see
    `training.labels`.

    Raises DataError where the file is missing, empty, not UTF-8, lacks a column, or a row has an
    empty text or an unknown label; the message names the row.
    """
    path = Path(source)
    if path.suffix.lower() in FILE_TYPES:
        if not path.exists():
            raise DataError(f"{path} does not exist; --data takes a file or a hub data set's name")
        if not path.is_file():
            raise DataError(f"{path} is no regular file")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        rows = _rows_of_file(path, content)
        name, digest = path.name, hashlib.sha256(content).hexdigest()
        # The folder tells sst2/dev.tsv from imdb/dev.tsv.
        name = f"{path.resolve().parent.name}/{name}"
        declared: dict[str, list[str]] = {}
    elif path.exists():
        raise DataError(f"{path}: expected a file that ends in {', '.join(FILE_TYPES)}")
    else:
        rows, digest, declared = _rows_of_hub(str(source), split)
        name = f"{source}:{split}"
    if not rows:
        raise DataError(f"{name} is empty: it has no rows below its header")
    texts = _column(rows[0], text_column, TEXT_COLUMNS, name, "--text-column")
    labels = _column(rows[0], label_column, LABEL_COLUMNS, name, "--label-column")
    found = [label_text(row.get(labels)) for row in rows]
    names = tuple(label_names or names_of(found, name, declared.get(labels)))
    refuse_two_readings(found, names, name)
    index_of = label_reader(names)
    examples = []
    for i, (row, label) in enumerate(zip(rows, found, strict=True)):
        text = _text(row.get(texts), name, i)
        index = index_of(label)
        if index is None:
            known = ", ".join(names)
            raise DataError(f"{name}, row {i + 1}: unknown label {label!r}; known: {known}")
        examples.append(Example(text, index))
    return LabelledTexts(name, tuple(examples), names, digest)


def require_several_classes(sets: Sequence[LabelledTexts]) -> None:
    """Raises DataError where all examples have one label: nothing could be learnt from them."""
    present = {texts.label_names[e.label] for texts in sets for e in texts.examples}
    if len(present) < 2:
        names = ", ".join(texts.name for texts in sets)
        only = present.pop()
        raise DataError(
            f"{names}: every row to train on is labelled {only!r}; training needs two classes"
        )


def distinct(sets: Iterable[LabelledTexts]) -> list[LabelledTexts]:
    """The sets with names that tell them apart: the second `imdb/dev.tsv` is `imdb/dev.tsv (2)`."""
    seen: Counter[str] = Counter()
    found = []
    for texts in sets:
        seen[texts.name] += 1
        number = seen[texts.name]
        found.append(texts if number == 1 else replace(texts, name=f"{texts.name} ({number})"))
    return found


def without_overlap(
    texts: LabelledTexts, held_out: Sequence[LabelledTexts]
) -> tuple[LabelledTexts, int]:
    """`texts` without those that also stand in `held_out` (case and punctuation aside), and how
    many were dropped."""
    seen = {_normalised(e.text) for other in held_out for e in other.examples}
    kept = tuple(e for e in texts.examples if _normalised(e.text) not in seen)
    return replace(texts, examples=kept), len(texts.examples) - len(kept)


def _normalised(text: str) -> str:
    # Of punctuation or emoji alone no word is left: those are told apart as they stand.
    return " ".join(re.findall(r"\w+", text.lower())) or text.strip().lower()


def _rows_of_file(path: Path, content: bytes) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as parquet

        try:
            return list(parquet.read_table(io.BytesIO(content)).to_pylist())
        except (OSError, ValueError, LookupError) as error:
            raise DataError(f"{path} cannot be read as a Parquet file: {error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(
                f"{path} is UTF-16, expected UTF-8: convert it, e.g. `iconv -f utf-16 -t utf-8 "
                f"{path.name}`"
            ) from None
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} is not UTF-8: line {line} has the byte 0x{content[error.start]:02x}; "
            f"convert it first, e.g. `iconv -f latin1 -t utf-8 {path.name}`"
        ) from None
    if path.suffix.lower() == ".jsonl":
        return list(_rows_of_jsonl(path, text))
    return _rows_of_table(path, text)


def _rows_of_table(path: Path, text: str) -> list[dict[str, Any]]:
    # In TSV a quotation mark is a character like any other; in CSV it quotes.
    tabs = path.suffix.lower() == ".tsv"
    if tabs:
        end = r"\r?\n" if "\n" in text else r"\r"  # as old Macs end lines
        table = [line.split("\t") for line in re.split(end, text) if line]
    else:
        csv.field_size_limit(2**31 - 1)
        try:
            table = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        except csv.Error as error:
            raise DataError(f"{path} is not a CSV file: {error}") from None
    if not table:
        raise DataError(f"{path} is empty")
    header, *rows = table
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{path} has two columns called {twice[0]!r}: rename or drop one")
    for i, row in enumerate(rows):
        if row == header:
            raise DataError(f"{path}, row {i + 1} is the header again: drop it")
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {i + 1}: {len(row)} columns where the header has {len(header)} "
                f"({', '.join(header)})"
            )
    return [dict(zip(header, row, strict=True)) for row in rows]


def _rows_of_jsonl(path: Path, text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, got {line[:40]!r}")
        yield row


def _rows_of_hub(name: str, split: str) -> tuple[list[dict[str, Any]], str, dict[str, list[str]]]:
    """Rows, their sha256, and the names that the hub gives to the labels of a column, in order."""
    import datasets

    if not hub_is_reachable():
        datasets.config.HF_HUB_OFFLINE = True  # it takes what it has in its cache
    try:
        table = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises a dozen kinds for one cause
        raise DataError(
            f"cannot load data set {name!r} (split {split!r}): no such file, and the hub says: "
            f"{first_line(error)}. Offline, give --data a {', '.join(FILE_TYPES)} file"
        ) from None
    rows = [dict(row) for row in table]
    declared = {}
    for column, feature in table.features.items():
        if isinstance(feature, datasets.ClassLabel):
            declared[column] = list(feature.names)
            for row in rows:
                row[column] = feature.int2str(row[column]) if row[column] >= 0 else None
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()
    return rows, digest, declared


def _column(
    row: dict[str, Any], wanted: str | None, usual: Sequence[str], name: str, option: str
) -> str:
    candidates = (wanted,) if wanted else usual
    for candidate in candidates:
        if candidate in row:
            return candidate
    raise DataError(
        f"{name} has no column {' or '.join(map(repr, candidates))}; its columns are "
        f"{', '.join(map(repr, row))}: name one with {option}"
    )


def _text(value: object, name: str, i: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name}, row {i + 1}: the text is empty or not a string: {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{name}, row {i + 1}: the text has half a character (a lone surrogate): {value[:40]!a}"
        ) from None
    return value
