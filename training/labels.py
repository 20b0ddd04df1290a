"""What the labels of a data set are called, and which of these names a label is.

names = label_names(["5", "1", "10"], "stars.tsv")    # ("1", "5", "10")
index_of = label_reader(names)
index_of("5"), index_of("2")                          # 1, None
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from training.errors import DataError

SENTIMENTS = ("negative", "positive")
_IN_FULL = {"neg": "negative", "pos": "positive"}
_MISSING = {"None", "nan"}  # as Python and pandas write it


def label_text(value: object) -> str:
    """A label as a file or a hub holds it, as text: 1, 1.0, "1" and True are one, None is ""."""
    if value is None:
        return ""
    if (isinstance(value, float) and value.is_integer()) or isinstance(value, bool):
        value = int(value)
    return str(value).strip()


def plain(name: str) -> str:
    """A name as it is compared with others: in lower case, `neg` and `pos` in full, 1.0 as 1."""
    lower = re.sub(r"^([+-]?\d+)\.0+$", r"\1", name.lower())
    return _IN_FULL.get(lower, lower)


def label_names(
    labels: Sequence[str], source: str, declared: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The names of the labels of `source`, in the order of their indices.

    Negative and positive, where all are spellings of these (0 and 1, neg and pos); else `declared`,
    the names that the source itself gives in its order; else those that occur, sorted: numbers by
    size. Raises DataError where a label is missing, or two names are one but for their spelling.
    """
    for i, label in enumerate(labels):
        if not label or (label in _MISSING and not declared):
            reads = f" ({label!r} reads like none: call the class otherwise)" if label else ""
            raise DataError(f"{source}, row {i + 1} has no label{reads}")
    names = list(declared) if declared else sorted(set(labels))
    if {plain(name) for name in names} <= {"0", "1", *SENTIMENTS}:
        return SENTIMENTS
    _refuse_alike(sorted(names, key=plain), plain, source, "but for their spelling")
    if declared:
        return tuple(names)
    try:
        names.sort(key=float)
    except ValueError:
        return tuple(names)
    _refuse_alike(names, float, source, "number")
    return tuple(names)


def _refuse_alike(
    names: Sequence[str], key: Callable[[str], object], source: str, what: str
) -> None:
    """Raises DataError where two neighbours have one key."""
    for one, other in pairwise(names):
        if key(one) == key(other):
            raise DataError(
                f"{source}: labels {one!r} and {other!r} are one {what}: write them alike"
            )


def label_reader(names: Sequence[str]) -> Callable[[str], int | None]:
    """Says which of `names` a label is, in any case, or None.

    A number is an index, but beside names that begin with one (-1, 0, 1; "1 star") a name or
    nothing: a file that calls them 1 to 5 does not count from 0.
    """
    index = {plain(name): i for i, name in enumerate(names)}
    if not any(re.match(r"[+-]?\.?\d", name) for name in names):
        index = {str(i): i for i in range(len(names))} | index
    return lambda label: index.get(plain(label))


def refuse_two_readings(labels: Sequence[str], names: Sequence[str], source: str) -> None:
    """Raises DataError where all of `labels` are 0 or 1 and `names` are negative, positive and
    others: a file of the two sentiments, or of the first two names?"""
    sentiments = set(SENTIMENTS) < {plain(name) for name in names}
    if sentiments and {plain(label) for label in labels} <= {"0", "1"}:
        raise DataError(
            f"{source} has the labels 0 and 1 alone: negative and positive, or {names[0]} and "
            f"{names[1]}? Write the names"
        )
