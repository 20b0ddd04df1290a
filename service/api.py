"""The HTTP interface as a Starlette application, over the models of the settings.

`service/app.py` mounts it into the BentoML service, which adds health, metrics and packaging. The
models run in a worker thread, a bounded number of runs at a time, so that the event loop goes on
answering health probes meanwhile.

An endpoint lives in a file of `service/endpoints/`, which offers `routes(api) -> list[Route]` and
is named in `ENDPOINTS`. It gets predictions from `await api.classify(...)` alone, which queues,
batches, times and counts:

    async def shout(request: Request) -> Response:
        deadline = api.deadline()  # before anything is awaited
        asked = await api.read(PredictRequest, request, deadline)  # json_body() for other shapes
        answer = await api.classify(api.variant_name(asked.variant), asked.texts, deadline)
        return PlainTextResponse(answer.predictions[0].label.upper())

What goes wrong is raised as RequestError; `service/openapi.py` describes every endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.endpoints import bentoml_schema, compare, explain, hugging_face, models, predict
from service.endpoints.json_body import json_body
from service.engine import Answer
from service.errors import RequestError
from service.middleware import error_response
from service.schemas import JsonRequest, parse
from service.settings import Settings
from service.variants import Variants

ENDPOINTS = (predict, compare, hugging_face, explain, models, bentoml_schema)

R = TypeVar("R", bound=JsonRequest)


class Api:
    """The endpoints over the models of `settings`, which are loaded when the server starts."""

    variants: Variants

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loading: Future[Variants] | None = None

    def begin_loading(self) -> None:
        """Loads the models in a thread from now on: a worker imports its server meanwhile, which
        takes longer. What goes wrong is raised when the server starts."""
        self._loading = ThreadPoolExecutor(1).submit(self._load)

    def app(self) -> Starlette:
        """The ASGI application; its lifespan loads and warms up the models, or raises."""
        routes = [route for endpoint in ENDPOINTS for route in endpoint.routes(self)]
        if not any(route.path == "/" for route in routes):
            routes.append(Route("/", _nothing, methods=["GET"]))  # else BentoML's page is there
        return Starlette(
            routes=routes,
            exception_handlers={RequestError: _request_error},
            lifespan=self._lifespan,
        )

    def deadline(self) -> float:
        """The time of the event loop by which a request that arrives now must be answered."""
        return asyncio.get_running_loop().time() + self.settings.timeout_seconds

    async def read(self, kind: type[R], request: Request, deadline: float) -> R:
        """The JSON body of `request` as `kind`; raises RequestError where it is none."""
        return parse(kind, await json_body(request, deadline), self.settings.max_texts)

    def variant_name(self, asked: str | None) -> str:
        """The variant that is meant: `asked`, or the default; raises RequestError for others."""
        if asked is None:
            return self.variants.default_name
        if asked not in self.variants:
            known = ", ".join(self.variants)
            message = f"there is no variant {asked[:40]!r}; known are {known}"
            raise RequestError(422, "unknown_variant", message, field="variant")
        return asked

    async def classify(self, variant: str, texts: Sequence[str], deadline: float) -> Answer:
        """What the model called `variant` says of `texts`, and where the time went.

        Waits for a turn, then predicts in a thread. Raises RequestError where `deadline`, a time of
        the event loop, passes: 503 where the run had not begun, else 504. A run cannot be stopped:
        it keeps its turn until it ends.
        """
        engine = self.variants[self.variant_name(variant)]
        asked, began = perf_counter(), 0.0

        async def in_turn() -> Answer:
            nonlocal began
            async with self._turns:
                began = perf_counter()
                return await asyncio.to_thread(engine.predict, texts)

        run = asyncio.create_task(in_turn())
        await asyncio.wait({run}, timeout=deadline - asyncio.get_running_loop().time())
        if run.done():
            answer = run.result()
            return replace(answer, timing=replace(answer.timing, queue_ms=1e3 * (began - asked)))
        if not began:
            run.cancel()
            message = f"{self._too_late} because others were before: try again later"
            raise RequestError(503, "overloaded", message, retry_after=1)
        raise RequestError(504, "timeout", f"{self._too_late}: send fewer texts in one request")

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._turns = asyncio.Semaphore(self.settings.runs_at_once)
        self.variants = self._load() if self._loading is None else self._loading.result()
        yield

    def _load(self) -> Variants:
        return Variants.load(self.settings.models, threads=self.settings.threads)

    @property
    def _too_late(self) -> str:
        return f"no answer within {self.settings.timeout_seconds:g} seconds"


async def _nothing(_: Request) -> Response:
    raise HTTPException(404)


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error)
