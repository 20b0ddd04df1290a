"""Other models without a stop: taken whole or not at all, and nobody's request is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import psutil
import pytest
from running_server import Server, crisp, free_port, running
from test_api import held, started
from test_api import running as run_under_way

from service import keys
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


def test_a_comparison_ends_with_the_models_that_it_began_with(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> tuple[httpx.Response, httpx.Response, int]:
        async with started(Api(Settings(models=models, threads=1))) as client:
            before = await client.post("/compare", json=TEXTS)
        api = Api(Settings(models=models, threads=1))
        async with started(api) as client, asyncio.TaskGroup() as group:
            with held(api.variants["dense"], monkeypatch):
                under_way = group.create_task(client.post("/compare", json=TEXTS))
                await run_under_way(api)
                shutil.rmtree(models / "sparse")  # which it has yet to ask
                await api.reload()
            answer = await under_way
            return before, answer, len(api.classifier.batcher.lanes)

    before, answer, lanes = asyncio.run(scenario())
    assert answer.status_code == 200
    assert answer.json()["comparisons"] == before.json()["comparisons"]
    assert lanes == 2  # dense, and as baseline in the background: the old ones are let go


def test_only_one_reload_at_a_time(models: Path) -> None:
    async def scenario() -> tuple[object, object]:
        api = Api(Settings(models=models, threads=1))
        async with started(api):
            return await asyncio.gather(api.reload(), api.reload(), return_exceptions=True)

    first, second = asyncio.run(scenario())
    assert not isinstance(first, BaseException)
    assert isinstance(second, RequestError)
    assert second.code == "reload_in_progress"


def test_whoever_leaves_does_not_block_others(models: Path) -> None:
    async def scenario() -> list[str]:
        api = Api(Settings(models=models, threads=1))
        async with started(api):
            first = asyncio.ensure_future(api.reload())
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            return list(await api.reload())

    assert asyncio.run(scenario()) == ["dense", "sparse"]


class Load:
    """Clients that ask one request after the other while other things happen."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.url = url
        self.headers = headers or {}
        self.answers: list[int] = []
        self.lost: list[str] = []  # sent, and no answer came

    async def _client(self, stop: asyncio.Event) -> None:
        client = httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=60)
        async with client:
            while not stop.is_set():
                try:
                    answer = await client.post("/predict", json=TEXTS)
                    self.answers.append(answer.status_code)
                except httpx.HTTPError as error:
                    self.lost.append(repr(error))

    async def during(self, happens: Callable[[], None]) -> None:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(self._client(stop))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(happens)
            stop.set()


def said(server: Server, words: str, times: int) -> None:
    """Waits until the log has `words` so many times."""
    until = time.monotonic() + 60
    while server.log.count(words) < times:
        assert time.monotonic() < until, server.log
        time.sleep(0.05)


def serving(models: Path, tmp_path: Path, *options: str) -> AbstractContextManager[Server]:
    port = free_port()
    command = crisp("serve", "--models", str(models), "--port", str(port), *options)
    return running([*command, "--no-access-log"], port, tmp_path / "log")


def held_by(server: Server, headers: dict[str, str] | None = None) -> list[dict[str, object]]:
    """The manifest of `sparse` in each worker: asks over connections until every one has some."""
    workers = psutil.Process(server.process.pid).children()
    found: dict[int, dict[str, object]] = {}
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            client = stack.enter_context(httpx.Client(base_url=server.url, timeout=60))
            facts = client.get("/models", headers=headers).json()["variants"]["sparse"]["manifest"]
            stream = client._transport._pool.connections[0]  # type: ignore[attr-defined]
            port = stream._connection._network_stream.get_extra_info("client_addr")[1]
            for worker in workers:
                if any(c.raddr and c.raddr.port == port for c in worker.net_connections("tcp")):
                    assert found.setdefault(worker.pid, facts) == facts
            if len(found) == len(workers):
                return list(found.values())
    raise AssertionError(f"{len(found)} of {len(workers)} workers answer")


def manifest_of(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "manifest.json").read_text())
    return content


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_hangup_under_load_loses_no_request(models: Path, tmp_path: Path, workers: int) -> None:
    """Three times: other models, damaged ones, good ones again."""

    def happens() -> None:
        exchange(models, "sparse", models / "dense")
        server.process.send_signal(signal.SIGHUP)
        said(server, "other models are in use: dense, sparse", 1)
        damage(models, "sparse")
        server.process.send_signal(signal.SIGHUP)
        said(server, f"the models stay as they were: {models / 'sparse' / 'model.onnx'}", 1)
        exchange(models, "sparse", models / "dense")
        server.process.send_signal(signal.SIGHUP)
        said(server, "other models are in use: dense, sparse", 2)

    with serving(models, tmp_path, "--workers", str(workers)) as server:
        load = Load(server.url)
        asyncio.run(load.during(happens))
        assert held_by(server) == [manifest_of(models / "dense")] * workers
    assert len(load.answers) > 20
    assert set(load.answers) == {200}
    assert not load.lost


@pytest.mark.slow
def test_one_request_reaches_every_worker(models: Path, tmp_path: Path) -> None:
    """Under load, with two workers: good models in both, bad ones in neither, and a worker that is
    killed afterwards, while the folder is still damaged, comes back with what the other holds."""
    before = manifest_of(models / "sparse")
    keys_file = tmp_path / "keys.json"
    headers = {"Authorization": f"Bearer {keys.add(keys_file, 'ops', admin=True)}"}
    answers: list[httpx.Response] = []

    with serving(models, tmp_path, "--workers", "2") as server:
        assert held_by(server) == [before] * 2
        assert httpx.post(f"{server.url}/models/reload").status_code == 403  # there are no keys
    with serving(models, tmp_path, "--workers", "2", "--keys", str(keys_file)) as server:

        def reload() -> httpx.Response:
            return httpx.post(f"{server.url}/models/reload", headers=headers, timeout=60)

        def happens() -> None:
            exchange(models, "sparse", models / "dense")
            answers.append(reload())
            answers.append(httpx.get(f"{server.url}/models", headers=headers))
            damage(models, "dense")
            answers.append(reload())
            assert not load.lost
            victim, _ = psutil.Process(server.process.pid).children()
            victim.kill()
            said(server, "ready at", 2)

        load = Load(server.url, headers)
        asyncio.run(load.during(happens))
        now = held_by(server, headers)
    new = manifest_of(models / "sparse")
    assert new != before
    assert [answer.status_code for answer in answers] == [200, 200, 409]
    assert answers[0].json()["variants"]["sparse"]["manifest"] == new
    assert answers[2].json()["error"]["code"] == "models_refused"
    assert str(models / "dense" / "model.onnx") in answers[2].json()["error"]["message"]
    assert now == [new] * 2
    assert set(load.answers) == {200}
    assert len(load.lost) <= 8  # those that the killed one had in hand
