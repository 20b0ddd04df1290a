"""What changed between two results, and whether that is more than noise.

Ratios are compared, never times: those of the same kind on the same machine, whatever it is. Of
load tests that is how many times more one contender carries than another; of `crisp bench`, how
many times faster a model is than stock ONNX Runtime; both with their intervals.

    for change in changes(new, old):
        change.dropped       # lower, and by more than noise
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, nan
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from loadtests.capacity import Interval, more_than_noise
from loadtests.errors import LoadTestError

# What load tests must have in common: lengths of texts and windows, objective and arrivals decide
# who is ahead. What a result does not say is unknown, not different.
_SAME = ("slo_ms", "workload", "texts", "batch", "arrivals", "seconds")
_HINTS = {
    "seconds": "give both the same --seconds, and a --budget in which they are kept",
    "threads": "give both the same --threads",
    "compiled": "`make ops` compiles the operators",
}
# Where the memory of a session happens to lie moves all of its times: sessions of one model and
# copies of one library, in turns in one process, differed by up to 4 % with single sentences.
# A ratio is of two sessions.
_PLACEMENT = hypot(0.04, 0.04)
_MOST_NAMED = 3  # instruction sets in a warning


@dataclass(frozen=True)
class Change:
    """`new` and `old` are ratios; `change` is new / old with its 95 % interval. `new` is NaN where
    what was measured again failed."""

    what: str
    new: float
    old: float
    change: Interval

    @property
    def verdict(self) -> str:
        low, high = self.change.low, self.change.high
        if self.new != self.new:
            return "missing"
        if low is None or high is None:
            return "unknown: no interval"
        if low > 1:
            return "higher"
        return "lower" if high < 1 else "within noise"

    @property
    def dropped(self) -> bool:
        return self.verdict in ("lower", "missing")


def changes(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[Change]:
    """Those ratios of the older document whose sides were measured again. Raises LoadTestError
    where there is none, or where the two documents are of different things."""
    read = _of_bench if "workloads" in new and "workloads" in old else _of_load_test
    try:
        found = list(read(new, old))
    except (KeyError, TypeError, AttributeError):
        found = []
    if not found:
        raise LoadTestError(
            "the two results have no ratio in common: expected the same command with the same "
            "variants, both finished"
        )
    return found


def _of_load_test(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Change]:
    _alike("load tests", new["plan"], old["plan"], _SAME)
    for name, against in old["ratios"].items():
        for other, before in against.items():
            if name in new["contenders"] and other in new["contenders"]:
                ratio = new["ratios"].get(name, {}).get(other)
                yield _change(f"requests of {name} to {other}", ratio, before)


def _of_bench(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Change]:
    """Our models against the stock reference."""
    for section, key in (("settings", "threads"), ("operators", "compiled")):
        _alike("benchmarks", new.get(section, {}), old.get(section, {}), (key,))
    ours = [name for name, facts in new["contenders"].items() if facts["kind"] == "engine"]
    for workload, measured in new["workloads"].items():
        earlier = old["workloads"].get(workload, {}).get("figures", {})
        for name in ours:
            if before := earlier.get(name, {}).get("speedup"):
                ratio = measured["figures"].get(name, {}).get("speedup")
                yield _change(f"{name}, {workload}", ratio, before, unseen=_PLACEMENT)


def _alike(what: str, new: Mapping[str, Any], old: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        before, now = old.get(key), new.get(key)
        if before != now and key in old and key in new:
            hint = f"; {_HINTS[key]}" if key in _HINTS else ""
            raise LoadTestError(
                f"the two {what} differ in {key} ({before}, now {now}), so their ratios are of "
                f"different things{hint}"
            )


def _change(
    what: str,
    ratio: Mapping[str, Any] | None,
    before: Mapping[str, Any],
    unseen: float = 0.0,
) -> Change:
    if not ratio:
        return Change(what, nan, before["value"], Interval(nan, None, None, 0))
    change = more_than_noise(ratio, before, unseen=unseen)
    return Change(what, ratio["value"], before["value"], change)


def warnings(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """What somebody should know who believes the changes."""
    found = [other_machine(new, old)]
    for which, document in (("newer", new), ("older", old)):
        if document.get("complete") is False:
            found.append(f"the {which} result is of a test that was stopped: it is partial")
    return [warning for warning in found if warning is not None]


def other_machine(new: Mapping[str, Any], old: Mapping[str, Any]) -> str | None:
    """A warning where the two were not measured on the same kind of machine: on processors of other
    names, instructions or numbers of cores; or where one of them is from before load tests noted
    instructions."""
    machines = [document.get("environment", {}) for document in (new, old)]
    here, there = (str(machine.get("processor")) for machine in machines)
    known = [machine.get("instruction_sets") for machine in machines]
    cores = [machine.get("cores") for machine in machines]
    as_many = None in cores or cores[0] == cores[1]
    if here == there and None in known and as_many:
        if known == [None, None]:
            return None
        without = "older" if known[1] is None else "newer"
        return (
            f"the {without} result does not say which instructions its processor had, and several "
            f"that differ in them may be called {here}: so may ratios, measure a baseline here"
        )
    here_sets, there_sets = (set(sets or ()) for sets in known)
    if here == there and here_sets == there_sets and as_many:
        return None
    if None not in known:
        here += _with(here_sets - there_sets)
        there += _with(there_sets - here_sets)
    if not as_many:
        here, there = (f"{name}, cores: {n}" for name, n in zip((here, there), cores, strict=True))
    return (
        f"the older result was measured on another machine ({there}, here {here}), which gives "
        "other ratios: measure a baseline here first"
    )


def _with(sets: set[str]) -> str:
    """What a processor has before another, in short."""
    names = ", ".join(sorted(sets)[:_MOST_NAMED])
    more = f" and {len(sets) - _MOST_NAMED} more" if len(sets) > _MOST_NAMED else ""
    return f" with {names}{more}" if sets else ""


def show(console: Console, found: Sequence[Change], beware: Sequence[str] = ()) -> None:
    """Prints the changes as a table, below the `warnings`."""
    for warning in beware:
        console.print(warning, style="yellow")
    table = Table(title="Ratios: new against old", title_justify="left")
    for column in ("", "old", "new", "new / old, 95 %", "verdict"):
        table.add_column(column, justify="right" if column in ("old", "new") else "left")
    for change in found:
        low, high = change.change.low, change.change.high
        interval = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
        cells = [f"{change.new:.2f}", f"{change.change.value:.2f}{interval}"]
        if change.verdict == "missing":
            cells = ["–", "–"]
        style = "red" if change.dropped else None
        table.add_row(change.what, f"{change.old:.2f}", *cells, change.verdict, style=style)
    console.print(table)


def main(
    new: Annotated[Path, typer.Argument(help="JSON of `crisp bench` or `crisp loadtest`.")],
    old: Annotated[Path, typer.Argument(help="The same from before: the baseline.")],
) -> None:
    """Fails, with exit code 1, where a ratio of NEW is lower than in OLD beyond noise, or missing
    though its sides were measured."""
    documents = []
    for path in (new, old):
        try:
            documents.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise SystemExit(f"error: cannot read {path}: {error}") from None
    try:
        found = changes(*documents)
    except LoadTestError as error:
        raise SystemExit(f"error: {error}") from None
    show(Console(markup=False, emoji=False), found, warnings(*documents))
    if any(change.dropped for change in found):
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
