"""Other models without a stop: taken whole or not at all, and nobody's request is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import signal
import time
from pathlib import Path

import httpx
import pytest
from running_server import crisp, free_port, running
from test_api import held, started
from test_api import running as run_under_way

from service.api import Api
from service.errors import RequestError
from service.settings import Settings

TEXTS = {"texts": ["a warm film"]}


@pytest.fixture
def models(models_dir: Path, tmp_path: Path) -> Path:
    """A copy of the two models that a test may change."""
    return Path(shutil.copytree(models_dir, tmp_path / "models"))


def exchange(models: Path, name: str, other: Path) -> None:
    """Puts the model folder `other` in the place of the variant `name`."""
    shutil.rmtree(models / name)
    shutil.copytree(other, models / name)


def damage(models: Path, name: str) -> None:
    file = models / name / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def test_what_the_folder_holds_now_is_used(models: Path) -> None:
    async def scenario() -> tuple[list[str], httpx.Response, httpx.Response]:
        api = Api(Settings(models=models, threads=1))
        async with started(api) as client:
            before = list(api.variants)
            (models / "sparse").rename(models / "other")
            answer = await api.reload()
            assert list(answer) == list(api.variants) == ["dense", "other"]
            gone = await client.post("/predict", json={**TEXTS, "variant": "sparse"})
            return before, gone, await client.post("/predict", json={**TEXTS, "variant": "other"})

    before, gone, answer = asyncio.run(scenario())
    assert before == ["dense", "sparse"]
    assert gone.json()["error"]["code"] == "unknown_variant"
    assert answer.status_code == 200


def test_models_that_are_not_good_change_nothing(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> tuple[RequestError, httpx.Response, float]:
        api = Api(Settings(models=models, threads=1))
        async with started(api) as client:
            kept = api.variants
            (models / "sparse").rename(models / "other")
            damage(models, "dense")
            with pytest.raises(RequestError) as refused:
                await api.reload()
            assert api.variants is kept
            failed = api.classifier.metrics.reloads.labels("failed")._value.get()
            return refused.value, await client.post("/predict", json=TEXTS), failed

    with caplog.at_level(logging.ERROR, "crisp.service"):
        refused, answer, failed = asyncio.run(scenario())
    assert (refused.status, refused.code) == (409, "models_refused")
    assert "dense" in str(refused)
    assert "model.onnx" in caplog.text
    assert answer.json()["variant"] == "sparse"
    assert failed == 1


def test_a_request_ends_with_the_model_that_it_began_with(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> tuple[httpx.Response, httpx.Response, int]:
        api = Api(Settings(models=models, threads=1))
        async with started(api) as client, asyncio.TaskGroup() as group:
            with held(api.variants["sparse"], monkeypatch):
                first = group.create_task(client.post("/predict", json=TEXTS))
                await run_under_way(api)
                waiting = group.create_task(client.post("/predict", json=TEXTS))
                await asyncio.sleep(0.05)
                exchange(models, "sparse", models / "dense")
                await api.reload()
            answers = await first, await waiting
            return *answers, len(api.classifier.batcher.lanes)

    first, waiting, lanes = asyncio.run(scenario())
    assert first.json()["predictions"] == waiting.json()["predictions"]
    assert lanes == 3  # two variants and the baseline in the background: the old ones are let go


def test_only_one_reload_at_a_time(models: Path) -> None:
    async def scenario() -> tuple[object, object]:
        api = Api(Settings(models=models, threads=1))
        async with started(api):
            return await asyncio.gather(api.reload(), api.reload(), return_exceptions=True)

    first, second = asyncio.run(scenario())
    assert not isinstance(first, BaseException)
    assert isinstance(second, RequestError)
    assert second.code == "reload_in_progress"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_hangup_under_load_loses_no_request(models: Path, tmp_path: Path, workers: int) -> None:
    """Three times: other models, damaged ones, good ones again."""
    port = free_port()
    options = ("--models", str(models), "--port", str(port), "--workers", str(workers))
    command = crisp("serve", *options, "--no-access-log")

    async def load(url: str, stop: asyncio.Event, answers: list[int]) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while not stop.is_set():
                answers.append((await client.post("/predict", json=TEXTS)).status_code)

    async def scenario(url: str, hang_up: list[str]) -> list[int]:
        stop, answers = asyncio.Event(), list[int]()
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(load(url, stop, answers))
            await asyncio.sleep(0.5)
            for expected in hang_up:
                if "refused" in expected or "stay" in expected:
                    damage(models, "sparse")
                else:
                    exchange(models, "sparse", models / "dense")
                server.process.send_signal(signal.SIGHUP)
                before = server.log.count(expected)
                until = time.monotonic() + 60
                while server.log.count(expected) < before + workers:
                    assert time.monotonic() < until, server.log
                    await asyncio.sleep(0.05)
            stop.set()
        return answers

    with running(command, port, tmp_path / "log") as server:
        good, bad = "other models are in use", "the models stay as they were"
        answers = asyncio.run(scenario(server.url, [good, bad, good]))
        facts = httpx.get(f"{server.url}/models").json()["variants"]
    assert len(answers) > 20
    assert set(answers) == {200}
    dense = json.loads((models / "dense" / "manifest.json").read_text())
    assert facts["sparse"]["manifest"] == dense
