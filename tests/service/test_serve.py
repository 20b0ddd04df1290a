"""`crisp serve` as a process: what it refuses before it starts, and how it starts and ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from running_server import ROOT, crisp, free_port, running

from service.errors import AddressError
from service.server import listening_socket


def refused(*arguments: str, **environment: str) -> str:
    """The one line that `crisp serve` prints before it exits with code 2."""
    done = subprocess.run(
        crisp("serve", *arguments),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("crisp: error: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    port = str(free_port())
    assert "holds no model folder" in refused("--models", str(tmp_path), "--port", port)


def test_a_bad_setting_is_refused() -> None:
    assert "CRISP_MAX_TEXTS='0'" in refused(CRISP_MAX_TEXTS="0")


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused("--port", str(port))
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in message
    assert "--port" in message


def test_a_foreign_address_is_refused() -> None:
    with pytest.raises(AddressError, match=r"cannot listen on 192\.0\.2\.1 port"):
        listening_socket("192.0.2.1", free_port())  # of a network kept for documentation


def test_a_name_that_is_no_address_is_refused() -> None:
    for name in ("no host", "a..b"):
        with pytest.raises(AddressError, match=f"--host {re.escape(name)} is no address"):
            listening_socket(name, free_port())


def test_a_host_name_is_resolved() -> None:
    with listening_socket("localhost", free_port()) as listening:
        assert listening.getsockname()[0] in ("127.0.0.1", "::1")


def test_it_starts_anywhere_on_the_fallback_and_ends_at_ctrl_c(
    models_dir: Path, tmp_path: Path
) -> None:
    """Started in a folder with a `service.py` of its own, with a relative --models."""
    (tmp_path / "service.py").write_text("raise RuntimeError('the wrong service')")
    shutil.copytree(models_dir, tmp_path / "mine")
    port = free_port()
    command = crisp("serve", "--models", "mine", "--port", str(port), "--no-access-log")
    with running(command, port, tmp_path / "log", tmp_path, CRISP_OP_LIBRARY="none") as server:
        answer = httpx.post(f"{server.url}/predict", json={"texts": ["good film"]}, timeout=60)
        assert answer.status_code == 200
        models = httpx.get(f"{server.url}/models").json()
        assert models["variants"]["sparse"]["operators"]["kernel"] == "fallback"
        assert "CRISP_OP_LIBRARY=none" in models["variants"]["sparse"]["operators"]["reason"]
        workers = psutil.Process(server.process.pid).children(recursive=True)
        assert workers
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
        assert not [worker for worker in workers if worker.is_running()]
    assert "compiled operators are not in use" in server.log
    assert "path=/predict" not in server.log
    assert "Traceback" not in server.log


@pytest.mark.slow
def test_bentoml_serve_in_the_checkout_starts_it_too(models_dir: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", "--port", str(port)]
    with running(command, port, tmp_path / "log", CRISP_MODELS=str(models_dir)) as server:
        answer = httpx.post(f"{server.url}/predict", json={"texts": ["good film"]}, timeout=60)
        assert answer.json()["variant"] == "sparse"
        connections = psutil.Process(server.process.pid).net_connections("tcp")
        listening = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
        assert set(listening) == {"127.0.0.1"}


@pytest.mark.slow
def test_bentoml_serve_refuses_bad_models_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bentoml", "serve", "--port", str(free_port())]
    environment = {**os.environ, "CRISP_MODELS": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "crisp: error: " in done.stderr
    assert "holds no model folder" in done.stderr
