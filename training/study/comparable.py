"""Which results of a study may stand in one table: those that differ in nothing but what it
compares."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

Result = dict[str, Any]


def comparable(
    results: Sequence[Result], title: Callable[[Result], str], compared: Collection[str]
) -> dict[str, list[Result]]:
    """The results by title, in their order.

    Where those of one title differ in a setting that is not among the `compared`, they are set
    apart by it, and the title says so.
    """
    by_title: dict[str, list[Result]] = {}
    for result in results:
        by_title.setdefault(title(result), []).append(result)
    found: dict[str, list[Result]] = {}
    for name, same in by_title.items():
        apart = _differing([result["settings"] for result in same], compared)
        for result in same:
            values = (f"{key} {result['settings'].get(key)}" for key in apart)
            found.setdefault(", ".join([name, *values]), []).append(result)
    return found


def _differing(settings: Sequence[dict[str, Any]], compared: Collection[str]) -> list[str]:
    """The names of what has several values."""
    names = dict.fromkeys(name for each in settings for name in each if name not in compared)
    return [name for name in names if len({json.dumps(each.get(name)) for each in settings}) > 1]
