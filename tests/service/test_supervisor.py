"""Real processes under load: told to stop, killed, several at once, and left alone."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from running_server import Server, crisp, free_port, running

from export.processors import processors
from service import keys
from service.cores import threads_of_worker
from service.memory import MALLOC
from service.settings import Settings
from service.tally import INTERVAL

TEXTS = {"texts": ["a warm film with a fine cast"]}


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 100])
def test_workers_share_the_cores(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (1, 2, 4, 7, 64):
        monkeypatch.setattr("service.cores.processors", lambda count=count: count)
        settings = Settings(workers=workers)
        threads = [threads_of_worker(settings, index) for index in range(1, workers + 1)]
        assert min(threads) >= 1
        assert sum(threads) == max(count, workers)
        assert max(threads) - min(threads) <= 1
        assert threads_of_worker(Settings(workers=workers, threads=3), 1) == 3
    assert processors() >= 1


@dataclass
class Load:
    """Clients that ask one request after the other, each over connections of its own."""

    url: str
    answered: list[int] = field(default_factory=list)  # status codes
    lost: list[str] = field(default_factory=list)  # sent, and no answer came
    refused: int = 0  # connections

    async def client(self, stop: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            while not stop.is_set():
                try:
                    answer = await client.post("/predict", json=TEXTS)
                    self.answered.append(answer.status_code)
                except httpx.ConnectError:
                    self.refused += 1
                    await asyncio.sleep(0.01)
                except httpx.HTTPError as error:
                    self.lost.append(repr(error))

    async def run(self, clients: int, during: Callable[[], float]) -> None:
        """Calls `during` again and again while the clients are at it, after as many seconds as it
        says, until that is negative."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self.client(stop))
            await asyncio.sleep(0.5)
            while (seconds := during()) >= 0:
                await asyncio.sleep(seconds)
            stop.set()


def serving(
    models_dir: Path, log: Path, *options: str
) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    arguments = ("--models", str(models_dir), "--port", str(port), "--no-access-log", *options)
    return running(crisp("serve", *arguments), port, log)


def workers_of(server: Server) -> list[psutil.Process]:
    return list(psutil.Process(server.process.pid).children())


@pytest.mark.slow
def test_told_to_stop_it_is_not_ready_answers_what_it_has_and_ends_with_0(
    models_dir: Path, tmp_path: Path
) -> None:
    ready: list[int] = []
    with serving(models_dir, tmp_path / "log", "--drain", "1") as server:
        load = Load(server.url)
        started = time.monotonic()

        def during() -> float:
            if not ready:
                server.process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
                ready.append(httpx.get(f"{server.url}/readyz").status_code)
            over = server.process.poll() is not None or time.monotonic() > started + 60
            return -1.0 if over else 0.05

        asyncio.run(load.run(8, during))
        assert server.process.wait(60) == 0
    assert ready == [503]
    assert set(load.answered) == {200}
    # Whoever was just connecting when the socket closed is told so; nothing that was read is lost.
    assert len(load.lost) <= 8
    assert "Traceback" not in server.log


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_only_its_requests_fail(
    models_dir: Path, tmp_path: Path
) -> None:
    with serving(models_dir, tmp_path / "log") as server:
        (killed,) = workers_of(server)
        load = Load(server.url)

        def during() -> float:
            if killed.is_running() and killed.status() != psutil.STATUS_ZOMBIE:
                killed.kill()
                return 0.1
            return 0.1 if server.log.count("ready at") < 2 else -1.0

        asyncio.run(load.run(8, during))
        (replaced,) = workers_of(server)
        assert replaced.pid != killed.pid
        answer = httpx.post(f"{server.url}/predict", json=TEXTS, timeout=60)
        assert answer.status_code == 200
        gauges = httpx.get(f"{server.url}/metrics").text
    assert len(load.lost) <= 8  # one of each client
    assert load.refused == 0  # the others waited in the backlog
    assert set(load.answered) == {200}
    assert "worker 1 is started again: the process that serves ended by SIGKILL" in server.log
    assert "crisp_worker_restarts_total 1.0" in gauges
    assert re.search(r'crisp_queue_tokens\{variant="sparse"\} 0\.0', gauges)


@pytest.mark.slow
def test_a_worker_is_replaced_though_the_keys_are_damaged(models_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    headers = {"Authorization": f"Bearer {keys.add(file, 'shop')}"}
    with serving(models_dir, tmp_path / "log", "--keys", str(file)) as server:
        file.write_text("{")
        workers_of(server)[0].kill()
        while server.log.count("ready at") < 2:
            assert server.process.poll() is None
            time.sleep(0.1)
        answer = httpx.post(f"{server.url}/predict", json=TEXTS, headers=headers, timeout=60)
        assert answer.status_code == 200
    assert f"the keys stay as they were: {file} is no file of keys" in server.log


@pytest.mark.slow
def test_a_worker_that_cannot_be_started_leaves_the_others_alone(
    models_dir: Path, tmp_path: Path
) -> None:
    with serving(models_dir, tmp_path / "log", "--workers", "2") as server:
        while "ready at" not in server.log:  # both, and not one of them
            time.sleep(0.1)
        supervisor = psutil.Process(server.process.pid)
        limits = supervisor.rlimit(psutil.RLIMIT_NOFILE)
        supervisor.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))  # all numbers below are taken
        workers_of(server)[0].kill()
        while "cannot be started: Too many open files" not in server.log:
            assert server.process.poll() is None
            time.sleep(0.1)
        assert httpx.get(f"{server.url}/livez", timeout=60).status_code == 200
        supervisor.rlimit(psutil.RLIMIT_NOFILE, limits)
        while server.log.count("ready at") < 2:
            assert server.process.poll() is None
            time.sleep(0.1)
    assert "Traceback" not in server.log


@pytest.mark.slow
def test_a_hangup_during_an_exchange_is_another_exchange(models_dir: Path, tmp_path: Path) -> None:
    with serving(models_dir, tmp_path / "log") as server:
        for _ in range(2):
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        while server.log.count("other models are in use") < 2:
            assert server.process.poll() is None
            time.sleep(0.1)


@pytest.mark.slow
def test_workers_count_together(models_dir: Path, tmp_path: Path) -> None:
    def total(text: str) -> float:
        found = re.search(r'crisp_requests_total\{outcome="ok",variant="sparse"\} (\S+)', text)
        assert found, text
        return float(found[1])

    with serving(models_dir, tmp_path / "log", "--workers", "2") as server:
        assert len(workers_of(server)) == 2
        for worker in workers_of(server):
            assert worker.environ()["MALLOC_MMAP_THRESHOLD_"] == MALLOC["MALLOC_MMAP_THRESHOLD_"]
        for number in range(20):
            # A connection each, so that both have some.
            assert httpx.post(f"{server.url}/predict", json=TEXTS, timeout=60).status_code == 200
            time.sleep(3 * INTERVAL)  # after which the worker that counted has told it
            seen = [total(httpx.get(f"{server.url}/metrics").text) for _ in range(3)]
            assert seen == [number + 1] * 3  # whoever answers


@pytest.mark.slow
def test_workers_do_not_outlive_their_supervisor(models_dir: Path, tmp_path: Path) -> None:
    with serving(models_dir, tmp_path / "log") as server:
        workers = workers_of(server)
        server.process.kill()
        gone, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive
        assert len(gone) == 1


@pytest.mark.slow
def test_bentoml_serve_with_several_workers_says_that_a_request_reaches_one(
    models_dir: Path, tmp_path: Path
) -> None:
    port, file = free_port(), tmp_path / "keys.json"
    headers = {"Authorization": f"Bearer {keys.add(file, 'ops', admin=True)}"}
    command = [sys.executable, "-m", "bentoml", "serve", "--port", str(port)]
    settings = {"CRISP_MODELS": str(models_dir), "CRISP_WORKERS": "2", "CRISP_KEYS": str(file)}
    with running(command, port, tmp_path / "log", **settings) as server:
        answer = httpx.post(f"{server.url}/models/reload", headers=headers, timeout=60)
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "one_of_several"
        assert "SIGHUP" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_bentoml_serve_takes_other_models_at_a_hangup(models_dir: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", "--port", str(port)]
    with running(command, port, tmp_path / "log", CRISP_MODELS=str(models_dir)) as server:
        before = [worker.pid for worker in workers_of(server)]
        server.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 60
        while "other models are in use" not in server.log:
            assert time.monotonic() < until, server.log
            time.sleep(0.1)
        assert [worker.pid for worker in workers_of(server)] == before
        answer = httpx.post(f"{server.url}/predict", json=TEXTS, timeout=60)
        assert answer.status_code == 200
