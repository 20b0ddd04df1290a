"""Runs every variant over the same texts, interleaved in one process, and keeps each timing.

The texts are shuffled (seeded) and cut into blocks of 32. Each text of a block is answered alone by
every variant in turn, in an order drawn anew, and then the whole block by every variant in one
batch. So a machine that slows down does so for all variants, and every timing has its counterpart
on the same text, taken the moment before or after. Times are those of `Engine.predict`: tokenising,
graph, softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from time import perf_counter

from service.engine import Engine, Prediction

BATCH = 32
# Before the first timing each variant answers so many blocks: caches, clock, allocations.
_BLOCKS_TO_WARM_UP = 1


@dataclass
class Runs:
    """What one variant answered and how long it took.

    `predictions` has one entry for each text, in the order of the data, each text answered alone:
    int8 activations are scaled by what else is in the batch, so this is what does not depend on
    the other texts. `changed_in_batch` counts the texts that got another label within a batch of
    32. `single_ms` has a timing for each text and pass, of the text in `timed`; `batch_seconds` one
    for each block and pass: all in the order of measurement, which is the same for all variants.
    """

    predictions: list[Prediction] = field(default_factory=list)
    changed_in_batch: int = 0
    single_ms: list[float] = field(default_factory=list)
    timed: list[int] = field(default_factory=list)
    batch_seconds: list[float] = field(default_factory=list)
    batch_texts: int = 0
    batch_tokens: int = 0

    def typical_ms(self) -> list[float]:
        """The median of the timings of each text, alone, in the order of the data: further passes
        tell more of a text, not of more texts."""
        by_text: dict[int, list[float]] = {}
        for text, ms in zip(self.timed, self.single_ms, strict=True):
            by_text.setdefault(text, []).append(ms)
        return [median(by_text[text]) for text in sorted(by_text)]


def blocks(count: int, random: Random) -> list[list[int]]:
    """The numbers 0..count-1, shuffled, in blocks of 32; the first ones again fill up the last."""
    order = random.sample(range(count), count)
    missing = -count % BATCH
    order += (order * (missing // count + 1))[:missing]
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


def measure(
    engines: Mapping[str, Engine],
    texts: Sequence[str],
    *,
    passes: int = 3,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Runs]:
    """Answers all texts under every variant, `passes` times.

    `advance(texts)` is called with the number of texts that a variant has just answered, alone and
    in a batch; in total `passes` times what `work` says.
    """
    random = Random(seed)
    found: dict[str, dict[int, Prediction]] = {name: {} for name in engines}
    runs = {name: Runs() for name in engines}
    for block in blocks(len(texts), random)[:_BLOCKS_TO_WARM_UP]:
        for engine in engines.values():
            for i in block:
                _alone(engine, texts[i], Runs())
            _together(engine, [texts[i] for i in block], Runs())
    for _ in range(passes):
        for block in blocks(len(texts), random):
            alone: dict[str, list[Prediction]] = {name: [] for name in engines}
            for i in block:
                for name in random.sample(list(engines), len(engines)):
                    alone[name].append(_alone(engines[name], texts[i], runs[name]))
            for name in random.sample(list(engines), len(engines)):
                together = _together(engines[name], [texts[i] for i in block], runs[name])
                runs[name].timed += block
                for i, prediction, in_batch in zip(block, alone[name], together, strict=True):
                    if i not in found[name]:
                        found[name][i] = prediction
                        runs[name].changed_in_batch += prediction.label != in_batch.label
                advance(len(block))
    for name, run in runs.items():
        run.predictions = [found[name][i] for i in range(len(texts))]
    return runs


def work(variants: int, texts: int) -> int:
    """Number of texts, over all variants, that one pass answers."""
    return variants * -(-texts // BATCH) * BATCH


def _alone(engine: Engine, text: str, runs: Runs) -> Prediction:
    started = perf_counter()
    (prediction,) = engine.predict([text]).predictions
    runs.single_ms.append(1e3 * (perf_counter() - started))
    return prediction


def _together(engine: Engine, texts: Sequence[str], runs: Runs) -> list[Prediction]:
    started = perf_counter()
    predictions = engine.predict(texts).predictions
    runs.batch_seconds.append(perf_counter() - started)
    runs.batch_texts += len(texts)
    runs.batch_tokens += sum(prediction.tokens for prediction in predictions)
    return predictions
