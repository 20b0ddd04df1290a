"""The server under load: one that runs already, or one that is started here and never left behind.

with started_service(models=None) as target:      # or running_service("http://...")
    target.variants        # ("dense", "sparse")
    target.check()         # LoadTestError once it is gone
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from loadtests import files
from loadtests.adapters import ADAPTERS
from loadtests.errors import LoadTestError
from loadtests.http_client import checked

HOST = "127.0.0.1"
_SECONDS_TO_STOP = 10.0
_SECONDS_BETWEEN_QUESTIONS = 0.01  # whether it is ready: what is waited too long, at most
_LOG_LINES = 12
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NICENESS = 5  # of a server started here: the generator, beside it, must leave on time


@dataclass(frozen=True)
class Target:
    """A server that answered.

    `models` is a Crisp service's answer to GET /models. `alive` is cheap and raises LoadTestError
    where the process is known to be gone; `check` asks the server itself. `started_with` is the
    command that started it, or None; `processes` are those that it started then, and it took
    `ready_seconds` from its start to its first answer that it is ready.
    """

    url: str
    models: Any
    alive: Callable[[], None]
    started_with: str | None = None
    processes: tuple[psutil.Process, ...] = ()
    adapter: str = "crisp"
    ready_seconds: float | None = None

    @property
    def variants(self) -> tuple[str, ...]:
        """The models that a Crisp service holds."""
        return variants_of(self.models, self.url)

    def check(self) -> None:
        """Raises LoadTestError where the server does not answer any more."""
        self.alive()
        if self.adapter == "crisp":
            models_at(self.url)
        else:
            _answers(self.url, self.adapter)


def running_service(url: str) -> Target:
    """The service at `url`; raises LoadTestError where none answers there, or not a Crisp one."""
    url = checked(url)
    target = Target(url, models_at(url), alive=lambda: None)
    variants_of(target.models, url)
    return target


def running_peer(url: str, adapter: str) -> Target:
    """Another server at `url`, asked as ADAPTERS[adapter] says; raises LoadTestError where none
    answers there, or the adapter is unknown."""
    if adapter not in ADAPTERS:
        raise LoadTestError(f"unknown adapter {adapter!r}; known: {', '.join(ADAPTERS)}")
    url = checked(url)
    _answers(url, adapter)
    return Target(url, None, alive=lambda: None, adapter=adapter)


@contextmanager
def started_service(models: Path | None, *, timeout: float = 120.0) -> Iterator[Target]:
    """Starts `crisp serve` on a free port, waits until it is ready, and stops it at the end.

    Raises LoadTestError, with the last lines of its log, where it ends or isn't ready in `timeout`
    seconds.
    """
    port = free_port()
    options = ["--host", HOST, "--port", str(port), "--no-access-log"]
    if models is not None:
        options += ["--models", str(models)]
    command = [sys.executable, "-m", "crisp", "serve", *options]
    shown = shlex.join(["crisp", "serve", *map(files.shown, options)])
    with started(command, port, "crisp", shown=shown, timeout=timeout) as target:
        yield target


@contextmanager
def started(
    command: Sequence[str],
    port: int,
    adapter: str,
    *,
    name: str = "the service",
    shown: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout: float = 120.0,
) -> Iterator[Target]:
    """Starts a server that will listen on `port`, waits until it is ready, stops it at the end.

    `name` is for messages, `shown` is the command as reports have it; `environment` is added to
    this process's; `folder` is the one to start in. Raises LoadTestError as `started_service`.
    """
    with tempfile.TemporaryDirectory(prefix="crisp-loadtest-") as temporary:
        log = Path(temporary) / "server.log"
        began = time.monotonic()
        with log.open("wb") as stream:
            # A session of its own: Ctrl-C reaches it through us, after the results are safe.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=folder,
                start_new_session=True,
                preexec_fn=_ends_with_its_parent(),
            )
        family: list[psutil.Process] = []
        try:
            _yield_the_core(process)

            def alive() -> None:
                if (code := process.poll()) is not None:
                    raise LoadTestError(f"{name} ended with exit code {code}; {last_lines(log)}")

            url = f"http://{HOST}:{port}"
            ready = _ready_at(url + ADAPTERS[adapter].ready, alive, log, timeout, name) - began
            family = descendants(process)
            models = models_at(url) if adapter == "crisp" else None
            named = shown or shlex.join(command)
            yield Target(url, models, alive, named, tuple(family), adapter, ready)
        finally:
            stop(process, known=family)


def _ends_with_its_parent() -> Callable[[], None] | None:
    """Asks Linux to stop the server where this process is killed and cannot do it any more."""
    if sys.platform != "linux":
        return None
    set_option = ctypes.CDLL(None).prctl  # looked up here: between fork and exec only the call is
    return lambda: set_option(_PR_SET_PDEATHSIG, signal.SIGTERM) and None


def _yield_the_core(process: subprocess.Popen[Any]) -> None:
    with suppress(OSError, AttributeError):
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, process.pid, own + _NICENESS)


def _answers(url: str, adapter: str) -> None:
    path = ADAPTERS[adapter].ready
    try:
        response = httpx.get(url + path, timeout=30)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LoadTestError(
            f"no server answers at {url} ({str(error) or type(error).__name__}): start it first"
        ) from None
    if not response.is_success:
        raise LoadTestError(
            f"what answers at {url} is not ready, or no {adapter!r} server: GET {path} gave "
            f"HTTP {response.status_code}"
        )


def models_at(url: str) -> Any:
    """The answer to GET /models; raises LoadTestError where there is none."""
    try:
        response = httpx.get(f"{url}/models", timeout=30)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LoadTestError(
            f"no service answers at {url} ({str(error) or type(error).__name__}): start one with "
            "`crisp serve`, or leave --url out and one is started for the test"
        ) from None
    try:
        return response.raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        raise LoadTestError(
            f"what answers at {url} is not a Crisp service: GET /models gave "
            f"HTTP {response.status_code} and {response.text[:60]!r}"
        ) from None


def variants_of(models: Any, url: str) -> tuple[str, ...]:
    """The names of the variants in the answer to GET /models."""
    listed = models.get("variants") if isinstance(models, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise LoadTestError(f"what answers at {url} is not a Crisp service: it lists no variants")
    return tuple(listed)


def descendants(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """The process and whatever it started, while it runs; psutil knows them from later processes
    that get the same numbers."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)] if process.poll() is None else []
    except psutil.NoSuchProcess:
        return []


def stop(
    process: subprocess.Popen[Any],
    seconds: float = _SECONDS_TO_STOP,
    known: Sequence[psutil.Process] = (),
) -> None:
    """Ends a process and whatever it started: politely, then, after `seconds`, by force.

    `known` are descendants seen earlier, for the case that the process died and left them.
    """
    family = list({*descendants(process), *known})
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also where somebody loses patience and presses Ctrl-C again
        # Workers may outlive their parent, which may have put them into sessions of their own.
        _, survivors = psutil.wait_procs(family, timeout=1)
        for survivor in survivors:
            with suppress(psutil.NoSuchProcess):
                survivor.kill()
        psutil.wait_procs(survivors, timeout=5)
        process.wait()


def last_lines(log: Path, number: int = _LOG_LINES) -> str:
    """`the last lines of its log: ...`, for a message."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-number:]
    if not lines:
        return "its log is empty"
    return "the last lines of its log:\n" + "\n".join(f"  {line}" for line in lines)


def _ready_at(
    url: str,
    alive: Callable[[], None],
    log: Path,
    timeout: float,
    name: str = "the service",
) -> float:
    """The time, as time.monotonic has it, of the first answer that the server is ready."""
    until = time.monotonic() + timeout
    # One client, since each would load the certificates that http needs none of.
    with httpx.Client(timeout=5, verify=False) as client:
        while time.monotonic() < until:
            alive()
            with suppress(httpx.HTTPError):  # not listening yet
                if client.get(url).is_success:
                    return time.monotonic()
            time.sleep(_SECONDS_BETWEEN_QUESTIONS)
    raise LoadTestError(f"{name} was not ready after {timeout:.0f} s; {last_lines(log)}")


def free_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
