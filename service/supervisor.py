"""The main process of `crisp serve`: starts the workers, keeps them running, and ends them.

It holds the listening socket and nothing else: no models, no BentoML. So it is up at once, small,
and hard to kill by anything that a request may hold. A worker that ends is started again; requests
that come meanwhile wait in the socket's backlog. Under `bentoml serve`, BentoML does this instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from service.errors import StartError
from service.settings import Settings

BACKLOG = 2048  # connections that wait to be taken
ROOT = Path(__file__).resolve().parent.parent

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0  # seconds before a worker is started again
_SECONDS_TO_END = 10.0  # beyond those that a worker gives its requests; then it is killed

logger = logging.getLogger("crisp.service")


class Supervisor:
    """Runs `settings.workers` workers on `listening` until it is told to stop."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self.settings = settings
        self.listening = listening
        self._workers: dict[int, asyncio.subprocess.Process] = {}  # by index, from 1
        self._ready: set[int] = set()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Returns once SIGTERM or SIGINT has ended all workers.

        Raises StartError where a worker does not get ready at its first start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        with tempfile.TemporaryDirectory(prefix="crisp-metrics-") as folder:
            environment = {
                **os.environ,
                **self.settings.to_environment(),
                "PROMETHEUS_MULTIPROC_DIR": folder,
            }
            try:
                async with asyncio.TaskGroup() as group:
                    for index in range(1, self.settings.workers + 1):
                        group.create_task(self._keep(index, environment))
                    group.create_task(self._configure_logs())
            except* StartError as errors:
                raise errors.exceptions[0] from None

    async def _configure_logs(self) -> None:
        """While the workers start, which takes longer than importing this."""
        await asyncio.sleep(0.2)
        from service import logs

        logs.configure(self.settings)

    async def _keep(self, index: int, environment: dict[str, str]) -> None:
        """Keeps worker `index` running until all are to stop."""
        pause, was_ready = _FIRST_PAUSE, False
        while not self._stop.is_set():
            ours, theirs = socket.socketpair()
            with theirs:
                process = await self._start(index, environment, theirs)
            self._workers[index] = process
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                if self._stop.is_set():
                    process.terminate()
                first = (await reader.readline()).decode().strip()
                if first == "ready":
                    pause, was_ready = _FIRST_PAUSE, True
                    self._note_ready(index)
                    while await reader.readline():  # nothing but "reload" comes
                        self._reload(but=index)
                code = await process.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                del self._workers[index]
                self._ready.discard(index)
                writer.close()
            if self._stop.is_set():
                return
            if not was_ready:
                ended = f"the process that serves ended with code {code} before it was ready"
                raise StartError(first.removeprefix("error: ") or ended)
            logger.error("worker %d ended with code %d: it is started again", index, code)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _start(
        self, index: int, environment: dict[str, str], parent: socket.socket
    ) -> asyncio.subprocess.Process:
        fds = (self.listening.fileno(), parent.fileno())
        arguments = ("--socket", str(fds[0]), "--parent", str(fds[1]), "--index", str(index))
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service.worker", *arguments),
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=fds,
            process_group=0,  # Ctrl-C in a terminal is for us alone, to tell the workers
        )

    def _note_ready(self, index: int) -> None:
        self._ready.add(index)
        if len(self._ready) == self.settings.workers:
            host, port = self.listening.getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            logger.info("ready at %s (Ctrl-C ends it)", url)

    def _told_to_stop(self) -> None:
        if self._stop.is_set():
            self._kill()  # somebody has lost patience
            return
        self._stop.set()
        self.listening.close()  # once the workers close theirs too, nobody waits for nothing
        for process in self._workers.values():
            process.terminate()
        patience = self.settings.drain_seconds + self.settings.timeout_seconds + _SECONDS_TO_END
        asyncio.get_running_loop().call_later(patience, self._kill)

    def _kill(self) -> None:
        for process in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def _reload(self, but: int | None = None) -> None:
        """Tells the workers to load the models anew, except the one that has."""
        for index in self._ready - {but}:
            self._workers[index].send_signal(signal.SIGHUP)
