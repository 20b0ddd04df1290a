"""The main process of `crisp serve`: starts the workers, keeps them running, and ends them.

It holds the listening socket and copies of the models' files, but no model and no BentoML. So it is
up at once, small, and hard to kill by anything that a request may hold. A worker that ends is
started again; requests that come meanwhile wait in the socket's backlog. All workers take other
models together (`service/rollout.py`). Under `bentoml serve`, BentoML does this instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.background import Background
from service.channel import Channel
from service.errors import RequestError, StartError
from service.memory import MALLOC
from service.rollout import Ended, Models
from service.settings import Settings
from service.snapshot import working_folder

BACKLOG = 2048  # connections that wait to be taken
ROOT = Path(__file__).resolve().parent.parent

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0  # seconds before a worker is started again
_SECONDS_TO_END = 10.0  # beyond those that a worker gives its requests; then it is killed

logger = logging.getLogger("crisp.service")


class Worker:
    """A process that serves, and what is said to it."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.process = process
        self._channel = channel
        self._answers: list[asyncio.Future[list[str]]] = []  # that are waited for, in order
        self.hear = channel.hear
        self.say = channel.say

    async def ask(self, *words: str) -> list[str]:
        """Its answer; raises Ended."""
        answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self.say(*words)
        return await answer

    def answered(self, words: list[str]) -> None:
        answer = self._answers.pop(0)
        if not answer.done():
            answer.set_result(words)

    def ended(self) -> None:
        """Nothing comes any more."""
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(Ended())
        self._answers.clear()
        self._channel.close()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class Supervisor:
    """Runs `settings.workers` workers on `listening` until it is told to stop."""

    models: Models
    _folder: Path
    _environment: dict[str, str]

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self.settings = settings
        self.listening = listening
        self._workers: dict[int, Worker] = {}  # by index, from 1
        self._ready: dict[int, Worker] = {}
        self._stop = asyncio.Event()
        self._hung_up = False  # somebody wants other models, and they are not being loaded yet
        self._tasks = Background()

    async def run(self) -> None:
        """Returns once SIGTERM or SIGINT has ended all workers.

        Raises ModelsError where there are no models, StartError where a worker does not get ready
        at its first start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        with _folder() as folder:
            self._folder = folder
            self.models = Models(
                self.settings.models, folder, self.settings.timeout_seconds, self.settings.workers
            )
            metrics = folder / "metrics"
            metrics.mkdir()
            self._environment = {
                **MALLOC,
                **os.environ,
                **self.settings.to_environment(),
                "PROMETHEUS_MULTIPROC_DIR": str(metrics),
            }
            try:
                async with asyncio.TaskGroup() as group:
                    for index in range(1, self.settings.workers + 1):
                        group.create_task(self._keep(index))
                    group.create_task(self._configure_logs())
            except* StartError as errors:
                raise errors.exceptions[0] from None

    async def _configure_logs(self) -> None:
        """While the workers start, which takes longer than importing this."""
        await asyncio.sleep(0.2)
        from service import logs

        logs.configure(self.settings)

    async def _keep(self, index: int) -> None:
        """Keeps worker `index` running until all are to stop."""
        pause, was_ready = _FIRST_PAUSE, False
        while not self._stop.is_set():
            try:
                worker = self._workers[index] = await self._start(index, again=was_ready)
            except OSError as error:  # no more processes, files or memory
                why = f"a process that serves cannot be started: {error.strerror or error}"
            else:
                ready, why = await self._run(index, worker)
                if ready:
                    pause, was_ready = _FIRST_PAUSE, True
            if self._stop.is_set():
                return
            if not was_ready:
                raise StartError(self.models.now.in_words(why))
            logger.error("worker %d is started again: %s", index, self.models.now.in_words(why))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _run(self, index: int, worker: Worker) -> tuple[bool, str]:
        """Until `worker` has ended: whether it had been ready, and why it ended."""
        try:
            if self._stop.is_set():
                worker.process.terminate()
            first = await worker.hear()
            if first == ["ready"]:
                self._note_ready(index, worker)
                await self._listen(worker)
            code = await worker.process.wait()
        finally:
            worker.kill()
            self._ready.pop(index, None)
            worker.ended()
            await worker.process.wait()
            del self._workers[index]
        if first[:1] == ["error"]:
            return False, first[1]
        ended = f"the process that serves ended {_with(code)}"
        return (True, ended) if first else (False, f"{ended} before it was ready")

    async def _start(self, index: int, *, again: bool) -> Worker:
        ours, theirs = socket.socketpair()
        channel = await Channel.of(ours)
        with theirs:
            fds = (self.listening.fileno(), theirs.fileno())
            arguments = ["--socket", str(fds[0]), "--parent", str(fds[1]), "--index", str(index)]
            arguments += ["--folder", str(self._folder), *(["--again"] if again else [])]
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "service.worker", *arguments),
                    cwd=ROOT,
                    env={**self._environment, "CRISP_MODELS": str(self.models.now.models)},
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=fds,
                    process_group=0,  # Ctrl-C in a terminal is for us alone, to tell the workers
                )
            except OSError:
                channel.close()
                raise
        return Worker(process, channel)

    async def _listen(self, worker: Worker) -> None:
        """Until `worker` has ended."""
        while said := await worker.hear():
            match said:
                case ["reload", name]:
                    self._tasks.start(self._reload_for(worker, name))
                case _:
                    worker.answered(said)

    def _note_ready(self, index: int, worker: Worker) -> None:
        self._ready[index] = worker
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
        for worker in self._workers.values():
            worker.process.terminate()
        patience = self.settings.drain_seconds + self.settings.timeout_seconds + _SECONDS_TO_END
        asyncio.get_running_loop().call_later(patience, self._kill)

    def _kill(self) -> None:
        for worker in self._workers.values():
            worker.kill()

    def _reload(self) -> None:
        """Exchanges the models, in the background; once more where that is under way already, since
        the folder may hold others by now."""
        if not self._hung_up:
            self._hung_up = True
            self._tasks.start(self._reload_when_free())

    async def _reload_when_free(self) -> None:
        while self.models.busy:
            await asyncio.sleep(0.1)
        self._hung_up = False
        await self._reload_for(None, "")

    async def _reload_for(self, worker: Worker | None, name: str) -> None:
        """The same, and tells `worker`, of which somebody has asked it under `name`."""
        try:
            await self.models.exchange(self._ready_workers)
        except RequestError as error:
            if worker is not None:
                worker.say("failed", name, error.code, str(error))
        except Exception:
            logger.exception("the models could not be exchanged")
            if worker is not None:
                message = "the models could not be exchanged: the service's log says why"
                worker.say("failed", name, "models_refused", message)
        else:
            if worker is not None:
                worker.say("reloaded", name)

    def _ready_workers(self) -> Sequence[Worker]:
        if self._stop.is_set():
            return []
        return [self._ready[index] for index in sorted(self._ready)]


def _with(code: int) -> str:
    """How a process ended that gives `code`, which is less than 0 for a signal."""
    if code >= 0:
        return f"with code {code}"
    names = {number.value: number.name for number in signal.Signals}
    hint = ", as where a disk is full" if code == -signal.SIGBUS else ""
    return f"by {names.get(-code, f'signal {-code}')}{hint}"


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """As `working_folder()`; raises StartError where there is no place for it."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(working_folder())
        except OSError as error:
            message = f"no place for temporary files, set TMPDIR: {error.strerror or error}"
            raise StartError(message) from None
        yield folder
