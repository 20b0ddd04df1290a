"""Tells the metrics what happens to requests and in the batcher.

Looking up a metric's child by its labels takes longer than counting: each is looked up once.
"""

from __future__ import annotations

from service.engine import Answer
from service.metrics import OUTCOMES, Metrics


class _OfVariant:
    """The metrics with the label of one variant."""

    def __init__(self, metrics: Metrics, variant: str) -> None:
        counter, gauge = metrics.tallies.counter, metrics.tallies.gauge
        histogram = metrics.tallies.histogram
        self.requests = {each: counter(metrics.requests.labels(variant, each)) for each in OUTCOMES}
        self.texts = {each: counter(metrics.texts.labels(variant, each)) for each in OUTCOMES}
        self.truncated = counter(metrics.truncated.labels(variant))
        self.queue_tokens = gauge(metrics.queue_tokens.labels(variant))
        self.queue_requests = gauge(metrics.queue_requests.labels(variant))
        self.wait_seconds = histogram(metrics.wait_seconds.labels(variant))
        self.tokenize_seconds = histogram(metrics.tokenize_seconds.labels(variant))
        self.batch_tokens = histogram(metrics.batch_tokens.labels(variant))
        self.batch_texts = histogram(metrics.batch_texts.labels(variant))
        self.inference_seconds = histogram(metrics.inference_seconds.labels(variant))
        self.tokens_per_second = gauge(metrics.tokens_per_second.labels(variant))


class MetricsObserver:
    """Counts in `metrics`. A batcher tells it of its lanes, which are called as their variants."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._variants: dict[str, _OfVariant] = {}

    def asked(self, variant: str, outcome: str, texts: int) -> None:
        """A request of `texts` is over; `outcome` is one of OUTCOMES."""
        counted = self._of(variant)
        counted.requests[outcome].inc()
        counted.texts[outcome].inc(texts)

    def answered(self, variant: str, answer: Answer) -> None:
        counted = self._of(variant)
        counted.tokenize_seconds.observe(answer.timing.tokenize_ms / 1e3)
        if truncated := sum(prediction.truncated for prediction in answer.predictions):
            counted.truncated.inc(truncated)

    def queued(self, lane: str, requests: int, tokens: int) -> None:
        counted = self._of(lane)
        counted.queue_requests.set(requests)
        counted.queue_tokens.set(tokens)

    def waited(self, lane: str, seconds: float) -> None:
        self._of(lane).wait_seconds.observe(seconds)

    def ran(self, lane: str, texts: int, tokens: int, seconds: float, speed: float) -> None:
        counted = self._of(lane)
        counted.batch_texts.observe(texts)
        counted.batch_tokens.observe(tokens)
        counted.inference_seconds.observe(seconds)
        counted.tokens_per_second.set(speed)

    def _of(self, variant: str) -> _OfVariant:
        found = self._variants.get(variant)
        if found is None:
            found = self._variants[variant] = _OfVariant(self._metrics, variant)
        return found
