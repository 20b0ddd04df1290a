"""What is hard to provoke from outside: an overloaded service, one that fails, and its probes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from export.manifest import ModelFolder
from service.api import Api
from service.endpoints.compare import comparison
from service.engine import Answer, Engine, Prediction, Timing
from service.errors import ModelsError
from service.exchange import Exchange
from service.front import Front
from service.metrics import Metrics
from service.settings import Settings


def client_of(app: Starlette, served: Exchange | None = None) -> httpx.AsyncClient:
    """A client of `app` in this process, or of what is served of it, behind the guards of the
    service."""
    settings, metrics = Settings(max_body_bytes=1000), Metrics(CollectorRegistry())
    wrapped = Front(served or app, app, app.routes, settings, metrics)
    transport = httpx.ASGITransport(wrapped, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@contextlib.asynccontextmanager
async def started(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    app = api.app()
    async with app.router.lifespan_context(app), client_of(app, api.exchange(app)) as client:
        yield client


@contextlib.contextmanager
def held(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Runs of `engine` begin, and end only once the event is set, at the latest at the end."""
    finish, logits = threading.Event(), engine.logits

    def slow(sequences: Sequence[Sequence[int]]) -> Any:
        finish.wait(60)
        return logits(sequences)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "logits", slow)
        try:
            yield finish
        finally:
            finish.set()


async def running(api: Api) -> None:
    """Waits until a run is under way."""
    while not api.classifier.batcher.running:
        await asyncio.sleep(0.001)


def test_no_turn_in_time_gets_503_and_when_to_come_back(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> tuple[httpx.Response, httpx.Response]:
        api = Api(Settings(models=models_dir, threads=1, timeout_seconds=0.2))
        async with started(api) as client, asyncio.TaskGroup() as group:
            with held(api.variants.default, monkeypatch):
                group.create_task(client.post("/predict", json={"texts": ["first"]}))
                await running(api)
                late = await client.post("/predict", json={"texts": ["good"]})
            api.settings = Settings(models=models_dir)
            return late, await client.post("/predict", json={"texts": ["good"]})

    late, after = asyncio.run(scenario())
    assert late.status_code == 503
    assert late.headers["retry-after"] == "1"
    assert late.json()["error"]["code"] == "overloaded"
    assert after.status_code == 200


def test_models_may_load_before_the_server_starts(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> httpx.Response:
        api = Api(Settings(models=models_dir, threads=1))
        api.begin_loading()
        # What was begun is what is waited for: starting must not load them a second time.
        monkeypatch.setattr(api, "_load", lambda: pytest.fail("loaded twice"))
        async with started(api) as client:
            return await client.post("/predict", json={"texts": ["good"]})

    assert asyncio.run(scenario()).status_code == 200


def test_what_goes_wrong_in_early_loading_is_raised_at_the_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        api = Api(Settings(models=tmp_path))
        api.begin_loading()
        async with started(api):
            pass

    with pytest.raises(ModelsError, match="holds no model folder"):
        asyncio.run(scenario())


def test_a_run_that_takes_too_long_gets_504_and_goes_on(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> tuple[httpx.Response, bool]:
        api = Api(Settings(models=models_dir, threads=1, timeout_seconds=0.2))
        async with started(api) as client:
            with held(api.variants.default, monkeypatch):
                late = await client.post("/predict", json={"texts": ["good"]})
                return late, bool(api.classifier.batcher.running)

    late, busy = asyncio.run(scenario())
    assert late.status_code == 504
    assert late.json()["error"]["code"] == "timeout"
    assert "send fewer texts" in late.json()["error"]["message"]
    assert busy


def test_a_body_that_does_not_come_in_time_gets_408(models_dir: Path) -> None:
    async def scenario() -> httpx.Response:
        api = Api(Settings(models=models_dir, threads=1, timeout_seconds=0.2))

        async def trickle() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(60)

        async with started(api) as client:
            headers = {"Content-Type": "application/json"}
            return await client.post("/predict", content=trickle(), headers=headers)

    response = asyncio.run(scenario())
    assert response.status_code == 408
    assert response.json()["error"]["code"] == "incomplete_body"


def test_time_in_the_queue_is_told(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> httpx.Response:
        api = Api(Settings(models=models_dir, threads=1))
        async with started(api) as client, asyncio.TaskGroup() as group:
            with held(api.variants.default, monkeypatch):
                group.create_task(client.post("/predict", json={"texts": ["first"]}))
                await running(api)
                asked = group.create_task(client.post("/predict", json={"texts": ["good"]}))
                await asyncio.sleep(0.2)
            return await asked

    response = asyncio.run(scenario())
    timing = response.json()["timing"]
    assert timing["queue_ms"] >= 150
    assert response.headers["server-timing"] == (
        f"queue;dur={timing['queue_ms']:.2f}, tokenize;dur={timing['tokenize_ms']:.2f}, "
        f"inference;dur={timing['inference_ms']:.2f}"
    )


def test_a_failure_is_logged_but_not_shown(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: list[list[int]]) -> Answer:
        raise RuntimeError("the secret of the house")

    async def scenario() -> httpx.Response:
        api = Api(Settings(models=models_dir, threads=1))
        async with started(api) as client:
            monkeypatch.setattr(api.variants.default, "logits", fail)
            return await client.post("/predict", json={"texts": ["good"]})

    with caplog.at_level(logging.ERROR, "crisp.service"):
        response = asyncio.run(scenario())
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_server_error"
    assert "secret" not in response.text
    assert "POST /predict failed" in caplog.text
    assert "the secret of the house" in caplog.text


async def unready(_: Request) -> Response:
    return PlainTextResponse("no", 503, headers={"Retry-After": "7"})


async def teapot(_: Request) -> Response:
    return PlainTextResponse("no", 418)


@pytest.mark.parametrize(
    ("path", "status", "code", "retry_after"),
    [
        ("/unready", 503, "service_unavailable", "7"),
        ("/teapot", 418, "im_a_teapot", None),
        ("/missing", 404, "not_found", None),
    ],
)
def test_answers_of_others_get_the_one_shape(
    path: str, status: int, code: str, retry_after: str | None
) -> None:
    app = Starlette(routes=[Route("/unready", unready), Route("/teapot", teapot)])

    async def scenario() -> httpx.Response:
        async with client_of(app) as client:
            return await client.get(path)

    response = asyncio.run(scenario())
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.headers.get("retry-after") == retry_after


def test_agreement_is_the_share_of_texts_with_the_label_of_the_baseline(
    model_folder: ModelFolder,
) -> None:
    def answer(*labels: str) -> Answer:
        predictions = [Prediction(label, 1.0, {label: 1.0}, 3, False) for label in labels]
        return Answer(predictions, Timing(0, 0, 0), [], model_folder.manifest)

    answers = {
        "dense": answer("a", "a", "b", "b"),
        "other": answer("b", "b", "b", "b"),
        "sparse": answer("a", "a", "b", "a"),
    }
    found = comparison("dense", answers)
    assert found.agreement == {"other": 0.5, "sparse": 0.75}
    assert [row.agree for row in found.comparisons] == [False, False, True, False]
    assert {name: p.label for name, p in found.comparisons[3].predictions.items()} == {
        "dense": "b",
        "other": "b",
        "sparse": "a",
    }
