"""From answers and timings to figures: accuracy, agreement, tests, latency, throughput.

Accuracies come with Wilson's 95 % interval. Two variants answered the same texts, so they are
compared in pairs: McNemar's exact test, Newcombe's interval of the difference (1998, method 10),
and ratios of median times with a bootstrap interval over pairs. All figures are of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.compare.measure import BATCH, Runs
from service.engine import Engine
from training.statistics import (
    Estimate,
    PairedOutcomes,
    accuracy_difference,
    mcnemar_exact,
    ratio_of_medians,
    wilson_interval,
)


@dataclass(frozen=True)
class ModelFacts:
    """What was compared, from its manifest. Sizes in bytes: model.onnx, and the whole folder."""

    path: str
    name: str
    precision: str
    attention: dict[str, str | int | float]
    pruning: dict[str, object] | None
    parameters: int
    max_tokens: int
    model_bytes: int
    folder_bytes: int
    kernel: Literal["compiled", "fallback"]


@dataclass(frozen=True)
class Figures:
    """One variant on the data. `truncated` counts the texts that were longer than the model's
    maximum; latencies are of one text at a time, throughput is that of the median batch of 32."""

    model: ModelFacts
    n: int
    correct: int
    accuracy: Estimate
    truncated: int
    tokens: int
    changed_in_batch: int
    latency_ms: dict[str, float]
    texts_per_second: float
    tokens_per_second: float


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline, on the same texts.

    `accuracy_difference` is the variant's minus the baseline's. The two speed-ups are above 1
    where the variant is faster: baseline's median time over the variant's.
    """

    baseline: str
    agreement: float
    outcomes: PairedOutcomes  # first: the baseline; second: the variant
    mcnemar_p: float
    accuracy_difference: Estimate
    latency_speedup: Estimate
    throughput_speedup: Estimate
    size_ratio: float  # the variant's model.onnx over the baseline's


def figures(engine: Engine, runs: Runs, truth: Sequence[str]) -> Figures:
    """Figures of one variant; `truth` has the right label of each text."""
    correct = sum(right(runs, truth))
    interval = wilson_interval(correct, len(truth))
    quantiles = np.percentile(runs.single_ms, (50, 95, 99))
    texts_per_second = BATCH / float(np.median(runs.batch_seconds))
    return Figures(
        model=model_facts(engine),
        n=len(truth),
        correct=correct,
        accuracy=Estimate(correct / len(truth), interval.low, interval.high),
        truncated=sum(prediction.truncated for prediction in runs.predictions),
        tokens=sum(prediction.tokens for prediction in runs.predictions),
        changed_in_batch=runs.changed_in_batch,
        latency_ms=dict(zip(("p50", "p95", "p99"), map(float, quantiles), strict=True)),
        texts_per_second=texts_per_second,
        tokens_per_second=texts_per_second * runs.batch_tokens / runs.batch_texts,
    )


def model_facts(engine: Engine) -> ModelFacts:
    manifest = engine.manifest
    return ModelFacts(
        path=engine.folder.shown,
        name=manifest.name,
        precision=manifest.precision,
        attention=manifest.attention,
        pruning=manifest.pruning,
        parameters=manifest.parameters,
        max_tokens=manifest.max_tokens,
        model_bytes=manifest.files[engine.folder.model.name].bytes,
        folder_bytes=sum(file.bytes for file in manifest.files.values()),
        kernel="compiled" if engine.library.path else "fallback",
    )


def compare(
    runs: Mapping[str, Runs], found: Mapping[str, Figures], truth: Sequence[str]
) -> dict[str, Comparison]:
    """Every further variant against the first one."""
    baseline, *others = runs
    comparisons = {}
    for name in others:
        outcomes = PairedOutcomes.of(right(runs[baseline], truth), right(runs[name], truth))
        reverse = PairedOutcomes.of(right(runs[name], truth), right(runs[baseline], truth))
        pairs = zip(runs[baseline].predictions, runs[name].predictions, strict=True)
        comparisons[name] = Comparison(
            baseline=baseline,
            agreement=sum(old.label == new.label for old, new in pairs) / len(truth),
            outcomes=outcomes,
            mcnemar_p=mcnemar_exact(outcomes.only_first_right, outcomes.only_second_right),
            accuracy_difference=accuracy_difference(reverse),
            latency_speedup=ratio_of_medians(runs[baseline].typical_ms(), runs[name].typical_ms()),
            throughput_speedup=ratio_of_medians(
                runs[baseline].batch_seconds, runs[name].batch_seconds
            ),
            size_ratio=found[name].model.model_bytes / found[baseline].model.model_bytes,
        )
    return comparisons


def right(runs: Runs, truth: Sequence[str]) -> list[bool]:
    """Whether each text got its right label."""
    return [p.label == label for p, label in zip(runs.predictions, truth, strict=True)]
