"""From texts to answers: tokenises, lets requests in, batches, runs the models, counts.

    classifier = Classifier(settings, metrics)
    classifier.use(variants)                          # again, for other models, at any time
    answer = await classifier.classify("sparse", ["A warm, funny film."], deadline)

Short texts are tokenised where they are, long ones in a thread of their own, so that the event loop
goes on answering. Models run in other threads, which share the cores. A request keeps the model
that it began with, even if another takes that one's place meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter

from tokenizers import Encoding

from export.op_library import find_op_library
from service import server_timing, tracing
from service.admission import Limits, Refused
from service.batcher import Batcher
from service.engine import Answer, Engine, Row, Timing
from service.errors import RequestError
from service.lanes import Expired, Ids, Lane
from service.metrics import Metrics
from service.observer import MetricsObserver
from service.runner import Runner
from service.settings import Settings
from service.shadow import Shadow
from service.token_estimate import TokenEstimate
from service.variants import Variants

_Lane = Lane[Engine, Row]
# By variant; never changed, but exchanged as a whole.
Held = Mapping[str, tuple[_Lane, TokenEstimate]]

# Characters that are tokenised in the event loop, in two milliseconds at most.
_INLINE_CHARACTERS = 2_000
# And seconds of a run for which the event loop may stand still, where it has nothing else to do.
_INLINE_SECONDS = 0.005


# Of a request in its turn. A request of no more is served in the order of its coming, and so is any
# single text of most models; only bigger ones take turns.
_TURN_TOKENS = 512


class Classifier:
    """The models in use, and the queue before them. All calls come from one event loop."""

    variants: Variants

    def __init__(self, settings: Settings, metrics: Metrics, threads: int) -> None:
        self.settings = settings
        self.metrics = metrics
        runs = settings.runs_at_once or (threads if find_op_library().available else 1)
        limits = Limits(
            batch_tokens=settings.batch_tokens,
            queue_tokens=settings.queue_tokens,
            max_wait=settings.max_wait_seconds,
            runs_at_once=runs,
            ahead=1,
            turn_tokens=_TURN_TOKENS,
        )
        self._observer = MetricsObserver(metrics)
        self._runs = Runner(runs, "crisp-run")
        self.batcher: Batcher[Engine, Row] = Batcher(
            self._execute, limits, self._observer, lag=lambda: self._runs.lag
        )
        self._in_use: Held = {}
        self.shadow: Shadow | None = None
        self._tokenizing = Runner(1, "crisp-tokenize")
        # Megabytes of blanks or of one word, which no other text should wait for.
        self._reading_on = Runner(1, "crisp-read-on")

    def use(self, variants: Variants) -> None:
        """Answers with these models from now on; lets go of others when they are done."""
        before = self._in_use
        self.variants = variants
        if self.settings.device != "cpu":
            variants.log_devices()
        self._in_use = {
            name: (self.batcher.lane(name, engine), TokenEstimate(engine.manifest.max_tokens))
            for name, engine in variants.items()
        }
        if self.shadow is not None:
            self.shadow.close()
        self.shadow = Shadow(self.batcher, variants, self.settings.shadow, self.metrics)
        for lane, _ in before.values():
            self.batcher.retire(lane)
        self.metrics.start_at_zero(tuple(variants))
        self.metrics.fallback.set(0 if variants.library.available else 1)

    @contextmanager
    def held(self) -> Iterator[Held]:
        """The models in use now, for several calls of `classify`: they stay until the end of the
        block, even if others take their place."""
        held = self._in_use
        with ExitStack() as stack:
            for lane, _ in held.values():
                stack.enter_context(self.batcher.keeping(lane))
            yield held

    def close(self) -> None:
        """Ends the threads; nothing may be asked any more."""
        if self.shadow is not None:
            self.shadow.close()
        self._runs.close()
        self._tokenizing.close()
        self._reading_on.close()

    def name(self, asked: str | None) -> str:
        """The variant that is meant: `asked`, or the default; raises RequestError for others."""
        if asked is None:
            return self.variants.default_name
        if asked not in self.variants:
            known = ", ".join(self.variants)
            message = f"there is no variant {asked[:40]!r}; known are {known}"
            raise RequestError(422, "unknown_variant", message, field="variant")
        return asked

    def check(self, variant: str) -> None:
        """Raises RequestError (429) where a request for `variant` would be refused whatever it
        holds: to be asked before any work goes into it."""
        if self.batcher.waiting <= self.batcher.limits.batch_tokens:
            return  # mostly not, then; `classify` will say
        try:
            self.batcher.check(self._in_use[variant][0])
        except Refused as refused:
            self._observer.asked(variant, "rejected", 0)
            raise self._refused(refused) from None

    async def classify(
        self, variant: str, texts: Sequence[str], deadline: float, held: Held | None = None
    ) -> Answer:
        """What the model called `variant` says of `texts`, and where the time went: the one of the
        `held`, or the one in use.

        Raises RequestError: 429 at once where it would have to wait too long; where `deadline`, a
        time of the event loop, passes, 503 if nothing of it had run, else 504.
        """
        if held is None:
            variant, held = self.name(variant), self._in_use
        (lane, estimate), outcome = held[variant], "failed"
        try:
            answer = await self._classify(lane, estimate, texts, deadline)
            outcome = "ok"
        except Refused as refused:
            outcome = "rejected"
            raise self._refused(refused) from None
        except Expired as expired:
            outcome = "expired"
            raise self._expired(expired) from None
        except asyncio.CancelledError:
            outcome = "gone"
            raise
        finally:
            self._observer.asked(variant, outcome, len(texts))
        self._observer.answered(variant, answer)
        server_timing.note(answer.timing)
        tracing.note(variant, answer.timing, answer.predictions)
        if self.shadow is not None:
            self.shadow.offer(variant, texts, answer.predictions)
        return answer

    async def _classify(
        self, lane: _Lane, estimate: TokenEstimate, texts: Sequence[str], deadline: float
    ) -> Answer:
        engine = lane.model
        with self.batcher.admitted(lane, estimate.tokens(texts)) as admission:
            began = perf_counter()
            encodings = await self._tokenize(engine, texts)
            sequences = [encoding.ids for encoding in encodings]
            tokenized = perf_counter()
        estimate.learn(texts, sequences)
        rows, spent = await self.batcher.submit(lane, sequences, deadline, admission)
        timing = Timing(1e3 * spent.queue, 1e3 * (tokenized - began), 1e3 * spent.inference)
        return engine.answer(encodings, rows, timing)

    async def _tokenize(self, engine: Engine, texts: Sequence[str]) -> list[Encoding]:
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            return engine.tokenize(texts)
        encodings = await self._tokenizing.run(partial(engine.tokenize_beginnings, texts))
        if engine.unread(texts, encodings):
            await self._reading_on.run(partial(engine.read_on, texts, encodings))
        return encodings

    def _execute(
        self, engine: Engine, begin: Callable[[], Sequence[Ids]], seconds: float | None
    ) -> asyncio.Future[Sequence[Row]]:
        if seconds is None or seconds > _INLINE_SECONDS:
            return self._runs.run(lambda: engine.rows(begin()))
        # Alone and short: waking a thread, and being woken by it, would take a tenth as long.
        future: asyncio.Future[Sequence[Row]] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(engine.rows(begin()))
        except Exception as error:
            future.set_exception(error)
        return future

    def _refused(self, refused: Refused) -> RequestError:
        self.metrics.rejections.labels(refused.reason).inc()
        if refused.reason == "max_wait":
            message = (
                f"about {refused.wait:.1f} seconds of others' texts are before yours, too many for "
                f"an answer within {self.settings.max_wait_seconds:g} seconds: try again later"
            )
            return RequestError(429, "overloaded", message, retry_after=refused.retry_after)
        message = (
            f"there is no room for your texts beside those that wait, {self.settings.queue_tokens} "
            "tokens at most: try again later, or send fewer"
        )
        return RequestError(429, refused.reason, message, retry_after=refused.retry_after)

    def _expired(self, expired: Expired) -> RequestError:
        timeout = self.settings.timeout_seconds
        if expired.started:
            message = f"no answer within {timeout:g} seconds: send fewer texts in one request"
            return RequestError(504, "timeout", message)
        wait = min(timeout, self.settings.max_wait_seconds)
        message = (
            f"no turn in time for an answer within {wait:g} seconds, because others were before: "
            "try again later"
        )
        return RequestError(503, "overloaded", message, retry_after=1)
