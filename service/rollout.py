"""Other models in every worker, or in none.

    models = Models(Path("models"), folder, 60, workers=2)     # what workers load when they start
    await models.exchange(workers_that_are_ready)              # or raises, and nothing has changed

The folder is copied once (`service/snapshot.py`), every worker loads, verifies and warms up that
copy beside what it answers with, and only when all of them have it do they take it. Where one
cannot, or ends meanwhile, all drop it. A worker that is started later gets what the others hold.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from service.errors import ModelsError, RequestError
from service.snapshot import Snapshot

SECONDS_TO_START = 30.0  # then they do not take any others
SECONDS_TO_LOAD = 300.0  # then a worker is taken for one that hangs
SECONDS_TO_TAKE = 30.0  # that takes a moment, where a worker lives at all

logger = logging.getLogger("crisp.service")


class Ended(Exception):
    """A worker has ended, and so will not answer."""


class Worker(Protocol):
    """A process that serves, as an exchange needs it."""

    async def ask(self, *words: str) -> list[str]:
        """Its answer; raises Ended."""
        ...

    def say(self, *words: str) -> None: ...

    def kill(self) -> None: ...


class Models:
    """The models that are in use, `now`, and their exchange."""

    def __init__(self, models: Path, folder: Path, keep_seconds: float, workers: int) -> None:
        """Copies what `models` holds into `folder`, for as many `workers`; a copy that is not in
        use any more is kept for `keep_seconds`, since a request may still be answered with it.

        Raises ModelsError where there is nothing.
        """
        self._models = models
        self._folder = folder
        self._keep_seconds = keep_seconds
        self._workers = workers
        self._taken = 1
        self.now = Snapshot.take(models, folder / "models-1")
        self.busy = False  # they are being exchanged

    async def exchange(self, ready: Callable[[], Sequence[Worker]]) -> None:
        """Takes what the models folder holds now, in all workers: `ready` gives those that are
        there.

        Raises RequestError 409: `models_refused` where one of them does not take the models, and
        all is as it was; `reload_in_progress` where they are being exchanged already.
        """
        if self.busy:
            raise in_progress()
        self.busy = True
        try:
            await self._exchange(ready)
        except ModelsError as error:
            for worker in ready():
                worker.say("drop")
            raise refused(error) from None
        finally:
            self.busy = False
        logger.info("other models are in use: %s", ", ".join(f.name for f in self.now.originals))

    async def _exchange(self, ready: Callable[[], Sequence[Worker]]) -> None:
        workers = await self._all_of(ready)
        self._taken += 1
        to = self._folder / f"models-{self._taken}"
        new = await asyncio.to_thread(Snapshot.take, self._models, to)
        answers = await asyncio.gather(*(_load(worker, new) for worker in workers))
        why = next(filter(None, answers), None)
        if why is None and ready() != workers:
            why = "a process that serves has ended meanwhile: try again later"
        if why is not None:
            new.delete()
            raise ModelsError(why)
        old, self.now = self.now, new  # what starts from here on starts with these
        await asyncio.gather(*map(_take, workers))
        asyncio.get_running_loop().call_later(self._keep_seconds, old.delete)

    async def _all_of(self, ready: Callable[[], Sequence[Worker]]) -> Sequence[Worker]:
        """The workers, once all of them are there: one that was killed is back in a moment."""
        until = asyncio.get_running_loop().time() + SECONDS_TO_START
        while len(workers := ready()) < self._workers:
            if asyncio.get_running_loop().time() > until:
                raise ModelsError("not every process that serves is running: the log says why")
            await asyncio.sleep(0.1)
        return workers


async def _load(worker: Worker, models: Snapshot) -> str | None:
    """Lets `worker` load `models`; returns why it does not want them."""
    try:
        async with asyncio.timeout(SECONDS_TO_LOAD):
            answer = await worker.ask("load", str(models.models))
    except Ended:
        return "a process that serves ended while it loaded them"
    except TimeoutError:
        return f"a process that serves has not loaded them in {SECONDS_TO_LOAD:g} seconds"
    return None if answer == ["loaded"] else models.in_words(answer[-1])


async def _take(worker: Worker) -> None:
    """Lets `worker` answer with what it has loaded. Where it hangs it is killed, and another one
    starts with them."""
    try:
        async with asyncio.timeout(SECONDS_TO_TAKE):
            await worker.ask("take")
    except Ended:
        pass
    except TimeoutError:
        worker.kill()


def in_progress() -> RequestError:
    """What somebody is told who asks while the models are being loaded."""
    message = "the models are being loaded already: wait for that, then look at GET /models"
    return RequestError(409, "reload_in_progress", message)


def refused(error: ModelsError) -> RequestError:
    """What somebody is told who asks for models that are not good; the log says it too."""
    message = f"the models stay as they were: {error}"
    logger.error("%s", message)
    return RequestError(409, "models_refused", message)
