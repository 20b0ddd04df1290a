"""Shadow mode: the baseline reads a sample of the texts that others have answered, for comparison.

It happens after the answer has gone, and only in time that nobody else wants: a sample that comes
while requests wait, or while others are compared already, is dropped and counted as that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from service.background import Background
from service.batcher import Batcher
from service.engine import Engine, Prediction, Row
from service.metrics import Metrics
from service.variants import Variants

_SECONDS_TO_WAIT = 10.0  # for idle time; who comes later is more interesting

logger = logging.getLogger("crisp.service")


class Shadow:
    """Compares about `share` of the requests, 0 to 1, with the baseline of `variants`."""

    def __init__(
        self,
        batcher: Batcher[Engine, Row],
        variants: Variants,
        share: float,
        metrics: Metrics,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._batcher = batcher
        self._share = share
        self._texts = metrics.shadow_texts
        self._chance = chance
        self._baseline = variants.baseline_name
        self._engine = variants[self._baseline]
        self._lane = batcher.lane(self._baseline, self._engine, background=True)
        self._tasks = Background()

    def offer(self, variant: str, texts: Sequence[str], predictions: Sequence[Prediction]) -> None:
        """Takes, or does not, what `variant` said of `texts`."""
        if variant == self._baseline or self._chance() >= self._share:
            return
        if self._batcher.waiting or self._tasks:
            self._texts.labels(variant, "dropped").inc(len(texts))
            return
        self._tasks.start(self._compare(variant, texts, predictions))

    def close(self) -> None:
        """Drops what is under way, and lets go of the baseline."""
        for task in self._tasks:
            task.cancel()
        self._batcher.retire(self._lane)

    async def _compare(
        self, variant: str, texts: Sequence[str], predictions: Sequence[Prediction]
    ) -> None:
        try:
            async with asyncio.timeout(_SECONDS_TO_WAIT):
                encodings = await asyncio.to_thread(self._engine.tokenize, texts)
                sequences = [encoding.ids for encoding in encodings]
                rows, _ = await self._batcher.submit(self._lane, sequences)
        except (TimeoutError, asyncio.CancelledError):
            self._texts.labels(variant, "dropped").inc(len(texts))
            return
        except Exception:
            logger.exception("the shadow of a request to %s failed", variant)
            self._texts.labels(variant, "dropped").inc(len(texts))
            return
        labels = self._engine.manifest.labels
        same = sum(
            labels[row.logits.index(max(row.logits))] == prediction.label
            for row, prediction in zip(rows, predictions, strict=True)
        )
        self._texts.labels(variant, "agree").inc(same)
        self._texts.labels(variant, "disagree").inc(len(texts) - same)
