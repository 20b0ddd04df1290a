"""The HTTP interface as a Starlette application: POST /predict, POST /compare, GET /models.

`service/app.py` mounts it into the BentoML service, which adds health, metrics and packaging. The
models run in a worker thread, a bounded number of runs at a time, so that the event loop goes on
answering health probes meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter
from typing import TypeVar

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.engine import Answer, Engine
from service.errors import RequestError
from service.middleware import error_response
from service.openapi import document
from service.schemas import (
    CompareRequest,
    CompareResponse,
    Comparison,
    ModelsResponse,
    OperatorFacts,
    PredictRequest,
    PredictResponse,
    VariantFacts,
    parse,
)
from service.settings import Settings
from service.variants import Variants

R = TypeVar("R", bound=PredictRequest)


class Api:
    """The endpoints over the models of `settings`, which are loaded when the server starts."""

    variants: Variants

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._document = document(settings)
        self._loading: Future[Variants] | None = None

    def begin_loading(self) -> None:
        """Loads the models in a thread from now on: a worker imports its server meanwhile, which
        takes longer. What goes wrong is raised when the server starts."""
        self._loading = ThreadPoolExecutor(1).submit(self._load)

    def app(self) -> Starlette:
        """The ASGI application; its lifespan loads and warms up the models, or raises."""
        return Starlette(
            routes=[
                Route("/predict", self.predict, methods=["POST"]),
                Route("/compare", self.compare, methods=["POST"]),
                Route("/models", self.models, methods=["GET"]),
                Route("/docs.json", self.docs, methods=["GET"]),
                Route("/", self.nothing, methods=["GET"]),  # else BentoML's page would be here
            ],
            exception_handlers={RequestError: _request_error},
            lifespan=self._lifespan,
        )

    async def predict(self, request: Request) -> Response:
        deadline = self._deadline()
        asked = await self._parse(PredictRequest, request, deadline)
        name = self.variants.default_name if asked.variant is None else asked.variant
        answer = await self._run(self._engine(name), asked.texts, deadline)
        return _json(
            PredictResponse(variant=name, predictions=answer.predictions, timing=answer.timing)
        )

    async def compare(self, request: Request) -> Response:
        deadline = self._deadline()
        asked = await self._parse(CompareRequest, request, deadline)
        baseline = self.variants.baseline_name if asked.variant is None else asked.variant
        self._engine(baseline)
        answers = {
            name: await self._run(engine, asked.texts, deadline)
            for name, engine in self.variants.items()
        }
        return _json(comparison(baseline, answers))

    async def models(self, _: Request) -> Response:
        library = self.variants.library
        operators = OperatorFacts(
            kernel="compiled" if library.available else "fallback", reason=library.reason
        )
        facts = {
            name: VariantFacts(operators=operators, manifest=engine.manifest)
            for name, engine in self.variants.items()
        }
        return _json(ModelsResponse(default=self.variants.default_name, variants=facts))

    async def docs(self, _: Request) -> Response:
        return JSONResponse(self._document)

    async def nothing(self, _: Request) -> Response:
        raise HTTPException(404)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._turns = asyncio.Semaphore(self.settings.runs_at_once)
        self.variants = self._load() if self._loading is None else self._loading.result()
        yield

    def _load(self) -> Variants:
        return Variants.load(self.settings.models, threads=self.settings.threads)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.settings.timeout_seconds

    @property
    def _too_late(self) -> str:
        return f"no answer within {self.settings.timeout_seconds:g} seconds"

    async def _parse(self, kind: type[R], request: Request, deadline: float) -> R:
        media_type, _, parameters = request.headers.get("content-type", "").partition(";")
        charset = parameters.strip().lower().replace('"', "")
        if media_type.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
            raise RequestError(
                415,
                "unsupported_media_type",
                f"expected Content-Type: application/json (UTF-8), got "
                f"{request.headers.get('content-type', 'none')[:100]!r}",
            )
        try:
            async with asyncio.timeout_at(deadline):
                body = await request.body()
        except ClientDisconnect:  # nobody is left to read this, but the log should stay quiet
            message = "the connection was closed before the body was complete"
            raise RequestError(400, "incomplete_body", message) from None
        except TimeoutError:
            message = f"the body was not complete after {self.settings.timeout_seconds:g} seconds"
            raise RequestError(408, "incomplete_body", message) from None
        return parse(kind, body, self.settings.max_texts)

    def _engine(self, name: str) -> Engine:
        if name not in self.variants:
            known = ", ".join(self.variants)
            message = f"there is no variant {name[:40]!r}; known are {known}"
            raise RequestError(422, "unknown_variant", message, field="variant")
        return self.variants[name]

    async def _run(self, engine: Engine, texts: Sequence[str], deadline: float) -> Answer:
        """Waits for a turn, then predicts in a thread.

        Raises RequestError where `deadline`, a time of the event loop, passes: 503 where the run
        had not begun, else 504. A run cannot be stopped: it keeps its turn until it ends.
        """
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


def comparison(baseline: str, answers: dict[str, Answer]) -> CompareResponse:
    """The answers of every variant to the same texts, side by side."""
    labels = {name: [p.label for p in answer.predictions] for name, answer in answers.items()}
    by_text = zip(*(answer.predictions for answer in answers.values()), strict=True)
    return CompareResponse(
        baseline=baseline,
        comparisons=[
            Comparison(
                agree=len({prediction.label for prediction in row}) == 1,
                predictions=dict(zip(answers, row, strict=True)),
            )
            for row in by_text
        ],
        agreement={
            name: sum(map(str.__eq__, own, labels[baseline])) / len(own)
            for name, own in labels.items()
            if name != baseline
        },
        timing={name: answer.timing for name, answer in answers.items()},
    )


def _json(response: BaseModel) -> Response:
    return Response(response.model_dump_json(), media_type="application/json")


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error)
