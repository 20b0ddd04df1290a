"""What is counted: by whom, under which names, and never under a name that a caller can make up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from test_api import held, started
from test_api import running as run_under_way

from service.api import Api
from service.exchange import CONNECTION
from service.metrics import OUTCOMES, REASONS, RELOADS, SHADOWS, Metrics
from service.settings import Settings

TEXTS = {"texts": ["a warm film", "a dull film"]}


@dataclass
class Client:
    """Of a request: `test_protocol.py` shows how a real one says that it has gone."""

    on_lost: Callable[[], None] | None = None
    has_body: bool = True


class Counted:
    """An Api whose metrics can be read."""

    def __init__(self, models: Path, **settings: object) -> None:
        self.registry = CollectorRegistry()
        self.api = Api(Settings.model_validate({"models": models, "threads": 1, **settings}))
        self.api.metrics = Metrics(self.registry)

    def value(self, name: str, **labels: str) -> float:
        assert self.api.metrics is not None
        self.api.metrics.tallies.tell()
        found = self.registry.get_sample_value(f"crisp_{name}", labels)
        assert found is not None, f"{name} {labels} is not there"
        return found


def test_requests_texts_runs_and_time_are_counted(models_dir: Path) -> None:
    counted = Counted(models_dir)

    async def scenario() -> None:
        async with started(counted.api) as client:
            for _ in range(3):
                assert (await client.post("/predict", json=TEXTS)).status_code == 200
            long = {"texts": ["fine " * 100], "variant": "dense"}
            assert (await client.post("/predict", json=long)).status_code == 200
            await client.post("/compare", json=TEXTS)

    asyncio.run(scenario())
    assert counted.value("requests_total", variant="sparse", outcome="ok") == 4
    assert counted.value("texts_total", variant="sparse", outcome="ok") == 8
    assert counted.value("requests_total", variant="dense", outcome="ok") == 2
    assert counted.value("truncated_texts_total", variant="dense") == 1
    assert counted.value("truncated_texts_total", variant="sparse") == 0
    for name in ("batch_texts", "batch_tokens", "inference_seconds", "wait_seconds"):
        assert counted.value(f"{name}_count", variant="sparse") == 4
    assert counted.value("tokenize_seconds_count", variant="sparse") == 4
    assert counted.value("batch_texts_sum", variant="sparse") == 8
    assert counted.value("tokens_per_second", variant="sparse") > 0
    for name in ("queue_tokens", "queue_requests"):
        assert counted.value(name, variant="sparse") == 0


def test_the_queue_shows_what_waits(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(models_dir)

    async def scenario() -> tuple[float, float, int]:
        async with started(counted.api) as client, asyncio.TaskGroup() as group:
            batcher = counted.api.classifier.batcher
            with held(counted.api.variants.default, monkeypatch) as finish:
                group.create_task(client.post("/predict", json=TEXTS))
                await run_under_way(counted.api)
                group.create_task(client.post("/predict", json=TEXTS))
                while not batcher.waiting:
                    await asyncio.sleep(0.001)
                waiting = batcher.waiting
                batcher.tell()
                shown = counted.value("queue_tokens", variant="sparse")
                requests = counted.value("queue_requests", variant="sparse")
                finish.set()
            return shown, requests, waiting

    shown, requests, waiting = asyncio.run(scenario())
    assert shown == waiting > 0
    assert requests == 1


def test_refusals_are_counted_by_reason(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(models_dir, queue_tokens=10)

    async def scenario() -> list[httpx.Response]:
        async with started(counted.api) as client, asyncio.TaskGroup() as group:
            with held(counted.api.variants.default, monkeypatch):
                asked = [group.create_task(client.post("/predict", json=TEXTS))]
                await run_under_way(counted.api)
                for _ in range(3):
                    asked.append(group.create_task(client.post("/predict", json=TEXTS)))
                    await asyncio.sleep(0.05)
            return [await each for each in asked]

    answers = asyncio.run(scenario())
    refused = [answer for answer in answers if answer.status_code == 429]
    assert [answer.status_code for answer in answers if answer not in refused] == [200, 200]
    assert {answer.json()["error"]["code"] for answer in refused} == {"queue_full"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert counted.value("rejections_total", reason="queue_full") == 2
    assert counted.value("requests_total", variant="sparse", outcome="rejected") == 2


def test_a_client_that_leaves_is_dropped_from_the_queue(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(models_dir)
    body = b'{"texts": ["a warm film"]}'
    client = Client()
    scope = {
        "type": "http", "method": "POST", "path": "/predict", "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "extensions": {CONNECTION: client},
    }  # fmt: skip

    async def scenario() -> tuple[int, int, list[object]]:
        sent = list[object]()

        async def receive() -> object:
            return {"type": "http.request", "body": body}

        async def send(message: object) -> None:
            sent.append(message)

        async with started(counted.api) as other, asyncio.TaskGroup() as group:
            batcher = counted.api.classifier.batcher
            with held(counted.api.variants.default, monkeypatch):
                group.create_task(other.post("/predict", json=TEXTS))
                await run_under_way(counted.api)
                served = counted.api.exchange(counted.api.app())
                gone = group.create_task(served(scope, receive, send))  # type: ignore[arg-type]
                while not batcher.waiting:
                    await asyncio.sleep(0.001)
                before = batcher.waiting
                assert client.on_lost is not None
                client.on_lost()
                await gone
                return before, batcher.waiting, sent

    before, after, sent = asyncio.run(scenario())
    assert before > 0
    assert after == 0
    assert not sent
    assert client.on_lost is None
    assert counted.value("requests_total", variant="sparse", outcome="gone") == 1


def test_the_shadow_compares_a_sample_after_the_answer(models_dir: Path) -> None:
    counted = Counted(models_dir, shadow=1.0)

    async def scenario() -> tuple[list[str], list[str]]:
        async with started(counted.api) as client:
            sparse = await client.post("/predict", json=TEXTS)
            done = counted.value("shadow_texts_total", variant="sparse", result="agree")
            while not done:
                await asyncio.sleep(0.005)
                done = sum(
                    counted.value("shadow_texts_total", variant="sparse", result=result)
                    for result in ("agree", "disagree")
                )
            dense = await client.post("/predict", json={**TEXTS, "variant": "dense"})
            labels = [[p["label"] for p in a.json()["predictions"]] for a in (sparse, dense)]
            return labels[0], labels[1]

    sparse, dense = asyncio.run(scenario())
    same = sum(map(str.__eq__, sparse, dense))
    assert counted.value("shadow_texts_total", variant="sparse", result="agree") == same
    assert counted.value("shadow_texts_total", variant="sparse", result="disagree") == 2 - same
    # It asked nobody's leave and is no request.
    assert counted.value("requests_total", variant="dense", outcome="ok") == 1


def test_the_shadow_is_dropped_where_others_wait(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(models_dir, shadow=1.0)

    async def scenario() -> None:
        async with started(counted.api) as client, asyncio.TaskGroup() as group:
            with held(counted.api.variants.default, monkeypatch):
                group.create_task(client.post("/predict", json=TEXTS))
                await run_under_way(counted.api)
                group.create_task(client.post("/predict", json=TEXTS))
                while not counted.api.classifier.batcher.waiting:
                    await asyncio.sleep(0.001)
                answer = await counted.api.classifier.classify("dense", [], counted.api.deadline())
                shadow = counted.api.classifier.shadow
                assert shadow is not None
                shadow.offer("sparse", ["a", "b"], answer.predictions)

    asyncio.run(scenario())
    assert counted.value("shadow_texts_total", variant="sparse", result="dropped") >= 2


def test_everything_is_shown_from_the_start_and_no_label_is_open(models_dir: Path) -> None:
    counted = Counted(models_dir)

    async def scenario() -> None:
        async with started(counted.api):
            pass

    asyncio.run(scenario())
    families = {
        family.name: family
        for family in text_string_to_metric_families(generate_latest(counted.registry).decode())
    }
    allowed = {
        "variant": {"dense", "sparse"},
        "outcome": {*OUTCOMES, *RELOADS},
        "reason": {*REASONS},
        "result": {*SHADOWS},
        "endpoint": set[str](),
        "status": set[str](),
    }
    for family in families.values():
        for sample in family.samples:
            for label, value in sample.labels.items():
                assert label == "le" or value in allowed[label]
    for name in ("crisp_requests", "crisp_rejections", "crisp_shadow_texts", "crisp_reloads"):
        assert families[name].samples
    assert counted.value("operator_fallback") in (0, 1)
