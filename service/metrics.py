"""What the service counts, for Prometheus: every name, its labels and what is meant by them.

    metrics = Metrics(registry)
    metrics.requests.labels("sparse", "ok").inc()

The registry is BentoML's, whose /metrics adds up what several processes count. Every label has a
small, closed set of values: names of variants, and the words in the tuples below. A text, a path or
a key of a caller never becomes one.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.tally import Tallies

# What became of a request for predictions of one variant.
OUTCOMES = (
    "ok",
    "rejected",  # at once, see REASONS: 429, 503
    "expired",  # not answered within the time that a request may take: 503, 504
    "gone",  # the client had left before it was answered
    "failed",  # the model failed on it: 500
)
# Why a request was refused without a try.
REASONS = (
    "max_wait",  # its estimated wait is longer than a request may wait: 429
    "queue_full",  # the tokens that wait are as many as may: 429
    "rate_limit",  # its key asks more often than it may: 429
)
# What the shadow of a text showed, or that there was no time for one.
SHADOWS = ("agree", "disagree", "dropped")
RELOADS = ("ok", "failed")

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The service's metrics, registered in `registry`, which must not hold them yet. What counts
    for each request does so through `tallies`: `tallies.tell()` before they are read."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tallies = Tallies()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"crisp_{name}", help, labels, registry=registry)

        def gauge(name: str, help: str, *labels: str, mode: str = "livesum") -> Gauge:
            return Gauge(f"crisp_{name}", help, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        def histogram(
            name: str, help: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
        ) -> Histogram:
            return Histogram(f"crisp_{name}", help, labels, registry=registry, buckets=buckets)

        # HTTP. `endpoint` is the path of one of ours, or "other"; `status` as in 200. Answers of
        # 400 and above are counted and not timed: refusals would pull every percentile down.
        self.http_requests = counter(
            "http_requests_total", "Requests that were answered.", "endpoint", "status"
        )
        self.http_seconds = histogram(
            "http_request_seconds",
            "From a request's headers to the last byte of its answer, where that is no error.",
            "endpoint",
        )

        # Requests for predictions: one of /compare counts for each variant. `outcome`: OUTCOMES.
        self.requests = counter("requests_total", "Requests for predictions.", "variant", "outcome")
        self.texts = counter(
            "texts_total",
            "Texts of those requests, where they were looked at.",
            "variant",
            "outcome",
        )
        self.truncated = counter(
            "truncated_texts_total", "Texts that were cut at the model's maximum.", "variant"
        )
        # `reason`: REASONS.
        self.rejections = counter("rejections_total", "Requests refused at once.", "reason")

        # The queue.
        self.queue_tokens = gauge("queue_tokens", "Tokens that wait for a run.", "variant")
        self.queue_requests = gauge("queue_requests", "Requests that wait for a run.", "variant")
        self.wait_seconds = histogram(
            "wait_seconds", "From tokens in the queue to the start of their first run.", "variant"
        )
        self.tokenize_seconds = histogram(
            "tokenize_seconds", "Tokenising of one request.", "variant"
        )

        # Runs of a model.
        self.batch_tokens = histogram(
            "batch_tokens", "Tokens of one run.", "variant", buckets=_TOKENS
        )
        self.batch_texts = histogram("batch_texts", "Texts of one run.", "variant", buckets=_TEXTS)
        self.inference_seconds = histogram("inference_seconds", "One run of a model.", "variant")
        self.tokens_per_second = gauge(
            "tokens_per_second", "Speed of the model in its latest runs.", "variant"
        )

        # `result`: SHADOWS, of texts that `variant` answered and the baseline was asked about too.
        self.shadow_texts = counter(
            "shadow_texts_total", "Texts that the baseline read too.", "variant", "result"
        )

        self.restarts = counter(
            "worker_restarts_total", "Processes that took the place of one that had ended."
        )

        # The models. `outcome`: RELOADS.
        self.reloads = counter("reloads_total", "Exchanges of the models, by process.", "outcome")
        self.fallback = gauge(
            "operator_fallback", "1 while the compiled operators are not in use.", mode="livemax"
        )

    def start_at_zero(self, variants: tuple[str, ...]) -> None:
        """Shows every counter before it counts, so that its first increase is seen as one."""
        for variant in variants:
            for outcome in OUTCOMES:
                self.requests.labels(variant, outcome)
                self.texts.labels(variant, outcome)
            self.truncated.labels(variant)
            for result in SHADOWS:
                self.shadow_texts.labels(variant, result)
        for reason in REASONS:
            self.rejections.labels(reason)
        for outcome in RELOADS:
            self.reloads.labels(outcome)
