"""POST /explain: what a model looked at in each text, and what it dropped where."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service import server_timing, tracing
from service.endpoints.json_body import json_body, json_response
from service.engine import Engine, Timing
from service.errors import RequestError
from service.explain import ExplainedModel, Explanation, explain_tokens
from service.explain_schemas import MAX_EXPLAINED, ExplainRequest, ExplainResponse
from service.schemas import parse

if TYPE_CHECKING:
    from service.api import Api

_WAITING = 8  # requests: an explanation is for a person, who does not come in hundreds


def routes(api: Api) -> list[Route]:
    explainers = _Explainers()

    async def explanations(request: Request) -> Response:
        deadline = api.deadline()
        body = await json_body(request, deadline)
        asked = parse(ExplainRequest, body, min(MAX_EXPLAINED, api.settings.max_texts))
        name = api.variant_name(asked.variant)
        found, timing = await explainers.explain(api.variants[name], asked.texts, deadline)
        server_timing.note(timing)
        tracing.note(name, timing, [one.prediction for one in found])
        return json_response(ExplainResponse(variant=name, explanations=found))

    return [Route("/explain", explanations, methods=["POST"])]


class _Explainers:
    """An explained model for each engine, made when it is asked for, and gone with the engine. One
    text at a time in all, so that predictions keep the cores."""

    def __init__(self) -> None:
        self._models: WeakKeyDictionary[Engine, ExplainedModel] = WeakKeyDictionary()
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def explain(
        self, engine: Engine, texts: list[str], deadline: float
    ) -> tuple[list[Explanation], Timing]:
        """Raises RequestError: 429 where too many wait, 503 where no turn came by `deadline`."""
        if self._waiting >= _WAITING:
            message = f"{_WAITING} others wait for explanations: try again later"
            raise RequestError(429, "overloaded", message, retry_after=1)
        model = self._models.get(engine)
        if model is None:
            model = self._models[engine] = ExplainedModel(engine.folder, engine.library)
        self._waiting += 1
        try:
            each = [await self._one(engine, model, text, deadline) for text in texts]
        finally:
            self._waiting -= 1
        timings = [timing for _, timing in each]
        total = Timing(
            sum(timing.queue_ms for timing in timings),
            sum(timing.tokenize_ms for timing in timings),
            sum(timing.inference_ms for timing in timings),
        )
        return [explanation for explanation, _ in each], total

    async def _one(
        self, engine: Engine, model: ExplainedModel, text: str, deadline: float
    ) -> tuple[Explanation, Timing]:
        asked = perf_counter()
        try:
            async with asyncio.timeout_at(deadline):
                await self._turn.acquire()
        except TimeoutError:
            message = "no explanation in time, because others were before: try again later"
            raise RequestError(503, "overloaded", message, retry_after=1) from None
        # A thread goes on where nobody waits for it any more, and so keeps its turn until it ends.
        work = asyncio.ensure_future(asyncio.to_thread(_explained, engine, model, text, asked))
        work.add_done_callback(self._ended)
        return await asyncio.shield(work)

    def _ended(self, work: asyncio.Future[tuple[Explanation, Timing]]) -> None:
        self._turn.release()
        if not work.cancelled():
            work.exception()  # seen, also where its caller has gone


def _explained(
    engine: Engine, model: ExplainedModel, text: str, asked: float
) -> tuple[Explanation, Timing]:
    """The explanation of `text`, and where the time went since `asked`."""
    began = perf_counter()
    encoding = engine.encode(text)
    tokenized = perf_counter()
    explanation = explain_tokens(engine, model, encoding)
    times = (asked, began, tokenized, perf_counter())
    return explanation, Timing(*(1e3 * (after - before) for before, after in pairwise(times)))
