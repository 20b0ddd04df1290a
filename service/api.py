"""The HTTP interface as a Starlette application, over the models of the settings.

`service/app.py` mounts it into the BentoML service, which adds health, metrics and packaging; the
work is done by `service/classifier.py`.

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
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from export.processors import processors
from service import tracing
from service.classifier import Classifier, Held
from service.endpoints import (
    bentoml_schema,
    compare,
    explain,
    hugging_face,
    models,
    page,
    predict,
    reload,
    report,
)
from service.endpoints.json_body import json_body
from service.engine import Answer
from service.errors import RequestError
from service.exchange import Exchange
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.reload import Reloader
from service.reply import error_response
from service.schemas import JsonRequest, parse
from service.settings import Settings
from service.variants import Variants

ENDPOINTS = (predict, compare, hugging_face, explain, models, bentoml_schema, page, report, reload)

R = TypeVar("R", bound=JsonRequest)

# In valid JSON these bytes are the name of a field and its value, for quotes within a text have a
# backslash before them.
_VARIANT = re.compile(rb'"variant"\s*:\s*"([^"\\]*)"')


class Api:
    """The endpoints over the models of `settings`, which are loaded when the server starts."""

    # While the server runs:
    classifier: Classifier
    reloader: Reloader

    def __init__(self, settings: Settings, threads: int | None = None) -> None:
        """`threads` that all runs share; by default as many as there are cores."""
        self.settings = settings
        self.threads = threads or settings.threads or processors()
        self._load = partial(Variants.load, threads=self.threads, device=settings.device)
        self.metrics: Metrics | None = None  # to be set before the start; else nobody reads them
        self.lifecycle: Lifecycle | None = None  # likewise
        self.reload_all: Callable[[], Awaitable[None]] | None = None  # where others serve too
        self._loading: Future[Variants] | None = None

    def begin_loading(self, begun: Future[Variants] | None = None) -> None:
        """Loads the models in a thread from now on, or takes those that are being loaded: a worker
        imports its server meanwhile, which takes longer. What goes wrong is raised when the server
        starts."""
        self._loading = begun or ThreadPoolExecutor(1).submit(self._load, self.settings.models)

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

    @property
    def variants(self) -> Variants:
        """The models in use; look again after whatever was awaited."""
        return self.classifier.variants

    def exchange(self, app: Starlette) -> Exchange:
        """What is to be served of `app`, which `app()` made."""
        return Exchange(app, lambda: self.stopping)

    def deadline(self) -> float:
        """The time of the event loop by which a request that arrives now must be answered."""
        return asyncio.get_running_loop().time() + self.settings.timeout_seconds

    async def read(self, kind: type[R], request: Request, deadline: float) -> R:
        """The JSON body of `request` as `kind`; raises RequestError where it is none, and at once
        where the service has too much to do."""
        body = await json_body(request, deadline)
        self.check(body)
        return parse(kind, body, self.settings.max_texts)

    def check(self, body: bytes) -> None:
        """Raises RequestError 429 where the service has too much to do for a request with `body`,
        whatever its texts are: before any work goes into parsing them."""
        named = _VARIANT.search(body)
        name = self.variants.default_name if named is None else named[1].decode("utf-8", "replace")
        if name in self.variants:
            self.classifier.check(name)

    def variant_name(self, asked: str | None) -> str:
        """The variant that is meant: `asked`, or the default; raises RequestError for others."""
        return self.classifier.name(asked)

    async def classify(
        self, variant: str, texts: Sequence[str], deadline: float, held: Held | None = None
    ) -> Answer:
        """What the model called `variant` says of `texts`, and where the time went.

        Raises RequestError: 429 at once where it would have to wait too long; where `deadline`, a
        time of the event loop, passes, 503 if nothing of it had run, else 504.
        """
        return await self.classifier.classify(variant, texts, deadline, held)

    async def reload(self) -> Variants:
        """Loads the models anew and uses them, in every process of the service or in none; raises
        RequestError 409 where they are not good, and nothing changes."""
        await (self.reload_all or self.reload_here)()
        return self.variants

    async def reload_here(self) -> None:
        """The same in this process alone."""
        await self.reloader.reload(self.settings.models)

    @property
    def stopping(self) -> bool:
        return self.lifecycle is not None and self.lifecycle.stopping

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        metrics = self.metrics or Metrics(CollectorRegistry())
        self.classifier = Classifier(self.settings, metrics, self.threads)
        self.reloader = Reloader(self._load, self.classifier.use, metrics)
        if self._loading is None:
            self.begin_loading()
        assert self._loading is not None
        self.classifier.use(self._loading.result())
        self._loading = None  # which would keep these models when others are in use
        try:
            yield
        finally:
            self.classifier.close()
            metrics.tallies.tell()
            await tracing.end()


async def _nothing(_: Request) -> Response:
    raise HTTPException(404)


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error)
