"""The results of the Semantic Focus study by what is comparable, and further seeds joined to those
of the same setting."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from training.study.comparable import Result, comparable
from training.study.errors import StudyError
from training.study.mechanisms import MECHANISMS


def settings_of(results: Sequence[Result]) -> dict[str, dict[str, Result]]:
    """The results by what is comparable, everything but mechanism and epochs, then by mechanism.

    Runs of further seeds of a setting are joined to one. Raises StudyError where they do not agree.
    """
    order = list(MECHANISMS)
    results = sorted(results, key=lambda r: order.index(r["settings"]["mechanism"]))
    found: dict[str, dict[str, Result]] = {}
    for title, same in comparable(results, _title, ("mechanism", "epochs", "seeds")).items():
        runs: dict[str, list[Result]] = {}
        for result in same:
            runs.setdefault(result["settings"]["mechanism"], []).append(result)
        for name, parts in runs.items():
            result = _joined(parts)
            # What is paired by seed must have the same ones.
            found.setdefault(title.replace(_SEEDS, _seeds(result)), {})[name] = result
    return dict(sorted(found.items()))


_SEEDS = "{seeds}"


def _title(result: Result) -> str:
    s = result["settings"]
    start = ", after a start symbol" if s.get("start_symbol") else ""
    size = f"{s['length']} symbols, {s['blocks']} layers, {s['train']} examples"
    return f"{s['task']}, {size}, {_SEEDS}{start}"


def _seeds(result: Result) -> str:
    seeds = result["settings"]["seeds"]
    if seeds == list(range(len(seeds))):
        return f"{len(seeds)} seeds"
    return f"seeds {', '.join(map(str, seeds))}"


def _joined(runs: Sequence[Result]) -> Result:
    """Runs of one setting as if all their seeds had been one run's."""
    first = runs[0]
    for other in runs[1:]:
        for key, value in first["settings"].items():
            if key != "seeds" and other["settings"].get(key) != value:
                raise StudyError(
                    f"{first['name']} and {other['name']} are not seeds of one setting: "
                    f"their {key} differ, {value!r} and {other['settings'].get(key)!r}"
                )
    seeds = [seed for run in runs for seed in run["settings"]["seeds"]]
    if len(set(seeds)) < len(seeds):
        raise StudyError(f"{', '.join(run['name'] for run in runs)} have a seed in common")
    order = np.argsort(seeds).tolist()

    def in_order(lists: Iterable[list[Any]]) -> list[Any]:
        values = list(itertools.chain.from_iterable(lists))
        return [values[i] for i in order]

    curves = {
        name: [
            in_order(epochs) for epochs in zip(*(run["curves"][name] for run in runs), strict=True)
        ]
        for name in first["curves"]
    }
    return first | {
        "settings": first["settings"] | {"seeds": sorted(seeds)},
        "curves": curves,
        "stability": first["stability"]
        | {"by_seed": in_order(run["stability"]["by_seed"] for run in runs)},
        "landscape": first["landscape"]
        | {"slopes": in_order(run["landscape"]["slopes"] for run in runs)},
    }
