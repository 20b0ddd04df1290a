"""Medians, ratios and rates from raw times, and the JSON with everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from export.bench.measure import FEWEST_ROUNDS, WARM_UP_ROUNDS, Rounds
from export.bench.profile import OperatorShare
from export.bench.roofline import Architecture, Peaks
from export.bench.workloads import KNOWN
from export.op_library import OpLibrary
from training.statistics import Estimate, ratio_of_medians

SCHEMA_VERSION = 3
METHODS = {
    "times_ms": "one run of the session each; padding and packing are done before",
    "interleaving": "each round, every contender runs the same batch once, in random order; "
    f"up to {WARM_UP_ROUNDS[1]} rounds of each workload come before the first that counts",
    "ways": "a contender with several ways to the same end is measured in the way that was fastest "
    "in the warm-up of the workload",
    "speedup": "ratio of median times, reference over contender; percentile bootstrap over "
    "rounds, 95 %",
    "over_peers": "the same, peer over contender",
    "texts_per_second": "all texts over the sum of all times",
    "multiply_adds_per_second": "effective: the multiply-adds of a dense model on the real tokens, "
    "layers · (T · 4·H² + 2·H·ΣL²) + T · 2·H·ΣF + B · (H² + H·C), ΣF over the layers, over the sum "
    "of all times; what pruning or sparsity leaves out counts as done, padding does not",
    "of_fp32_peak": "that rate over the highest measured of an fp32 matrix product; may exceed 1",
    "of_int8_peak": "the same, of an int8 matrix product",
    "sorting": "a sorted workload is so for every contender; packing gains nothing by it",
    "spinning": "off for all sessions of ONNX Runtime: none takes time from another while it waits",
    "positions": "where texts are longer than the models take, the position table of every "
    "contender is repeated (positions_repeated_from): the answers mean nothing, the work is the "
    "same",
    "profiles": "ONNX Runtime's own profiler, in sessions of their own after the times were taken; "
    "shares of the time of all nodes; calls and ms a run",
}


@dataclass(frozen=True)
class Figures:
    """What the times of one contender on one workload come to; `n` rounds."""

    median_ms: float
    texts_per_second: float
    multiply_adds_per_second: float
    speedup: Estimate
    n: int


@dataclass(frozen=True)
class Report:
    """All that was found. `contenders` describes each by name, the reference first."""

    contenders: Mapping[str, Mapping[str, Any]]
    rounds: Mapping[str, Rounds]
    baseline: Mapping[str, Any]
    architecture: Architecture
    peaks: Peaks
    library: OpLibrary
    settings: Mapping[str, Any]
    command: str
    started: str
    environment: Mapping[str, Any]
    profiles: Mapping[str, Mapping[str, Sequence[OperatorShare]]] = field(default_factory=dict)
    missing: Sequence[str] = ()

    @property
    def reference(self) -> str:
        return next(iter(self.contenders))

    def of_kind(self, kind: str) -> list[str]:
        """The contenders that are `stock`, a `peer`, or the `engine`."""
        return [name for name, facts in self.contenders.items() if facts["kind"] == kind]

    def figures(self) -> dict[str, dict[str, Figures]]:
        """By workload and contender."""
        return {
            name: figures(rounds, self.reference, self.architecture)
            for name, rounds in self.rounds.items()
        }

    def over_peers(self, workload: str) -> dict[str, dict[str, Estimate]]:
        """How many times faster than each peer the engine is, by peer and model."""
        times = self.rounds[workload].times_ms
        return {
            peer: {
                name: ratio_of_medians(times[peer], times[name])
                for name in self.of_kind("engine")
                if name in times
            }
            for peer in self.of_kind("peer")
            if peer in times
        }


def figures(rounds: Rounds, reference: str, architecture: Architecture) -> dict[str, Figures]:
    """The figures of each contender; its speed-up is over `reference`, paired by round."""
    texts = sum(len(lengths) for lengths in rounds.lengths)
    work = sum(architecture.multiply_adds(lengths) for lengths in rounds.lengths)
    base = rounds.times_ms[reference]
    return {
        name: Figures(
            median_ms=median(times),
            texts_per_second=1e3 * texts / sum(times),
            multiply_adds_per_second=1e3 * work / sum(times),
            speedup=ratio_of_medians(base, times),
            n=len(times),
        )
        for name, times in rounds.times_ms.items()
    }


def padding(lengths: Sequence[Sequence[int]]) -> float:
    """Tokens of padded batches over real ones: what a baseline with padding computes."""
    return sum(len(row) * max(row) for row in lengths) / sum(sum(row) for row in lengths)


def document(report: Report) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": report.command,
        "started": report.started,
        "environment": dict(report.environment),
        "operators": {
            "compiled": report.library.available,
            "library": None if report.library.path is None else report.library.path.name,
            "reason": report.library.reason,
        },
        "settings": dict(report.settings),
        "baseline": dict(report.baseline),
        "architecture": report.architecture.to_dict(),
        "peaks": report.peaks.to_dict(),
        "methods": METHODS,
        "reference": report.reference,
        "contenders": {name: dict(facts) for name, facts in report.contenders.items()},
        "missing": list(report.missing),
        "workloads": {name: _workload(report, name) for name in report.rounds},
    }


def _of_rounds(found: Estimate, rounds: int) -> dict[str, float | None]:
    """Of fewer rounds than make an interval it has none."""
    none: dict[str, float | None] = {"low": None, "high": None}
    return found.to_dict() | (none if rounds < FEWEST_ROUNDS else {})


def _workload(report: Report, name: str) -> dict[str, Any]:
    rounds = report.rounds[name]
    return {
        **KNOWN[name].to_dict(),
        "padding": padding(rounds.lengths),
        "ways": rounds.ways,
        "errors": rounds.errors,
        "figures": {
            contender: {
                **asdict(found),
                "speedup": _of_rounds(found.speedup, found.n),
                "of_fp32_peak": found.multiply_adds_per_second / report.peaks.highest_fp32,
                "of_int8_peak": found.multiply_adds_per_second / report.peaks.highest_int8,
            }
            for contender, found in report.figures()[name].items()
        },
        "over_peers": {
            peer: {
                contender: _of_rounds(ratio, len(rounds.lengths))
                for contender, ratio in ratios.items()
            }
            for peer, ratios in report.over_peers(name).items()
        },
        "profiles": {
            contender: [asdict(share) for share in shares]
            for contender, shares in report.profiles.get(name, {}).items()
        },
        "lengths": rounds.lengths,
        "times_ms": {c: [round(t, 4) for t in ts] for c, ts in rounds.times_ms.items()},
    }
