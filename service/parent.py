"""The supervisor, as a worker sees it: `service/channel.py` has what they say to each other."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from itertools import count
from pathlib import Path

from service.background import Background
from service.channel import Channel, encoded
from service.errors import ModelsError, RequestError
from service.reload import Reloader


class Parent:
    """At the other end of `connection`. Where it is gone, this process ends, as at SIGTERM."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._channel: Channel | None = None
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._names = map(str, count(1))
        self._tasks = Background()

    def fail(self, why: str) -> None:
        """Tells why this worker cannot start."""
        self._connection.sendall(encoded("error", why))

    async def ready(self, reloader: Reloader) -> None:
        """Tells that this worker serves, and from now on lets `reloader` do what it is told."""
        self._channel = await Channel.of(self._connection)
        self._channel.say("ready")
        self._tasks.start(self._obey(self._channel, reloader))

    async def reload(self) -> None:
        """Returns once every worker answers with what the models folder holds now.

        Raises RequestError 409 where none does, because nothing has changed.
        """
        if self._channel is None:
            raise RequestError(409, "models_refused", "the service is starting: try again later")
        name, answer = next(self._names), asyncio.get_running_loop().create_future()
        self._asked[name] = answer
        try:
            self._channel.say("reload", name)
            await answer
        finally:
            del self._asked[name]

    async def _obey(self, channel: Channel, reloader: Reloader) -> None:
        while said := await channel.hear():
            match said:
                case ["load", folder]:
                    self._tasks.start(self._load(channel, reloader, Path(folder)))
                case ["take"]:
                    reloader.take()
                    channel.say("taken")
                case ["drop"]:
                    reloader.drop()
                case ["reloaded", name]:
                    self._answer(name, None)
                case ["failed", name, code, why]:
                    self._answer(name, RequestError(409, code, why))
        for name in self._asked:
            self._answer(name, RequestError(409, "models_refused", "the service stops"))
        os.kill(os.getpid(), signal.SIGTERM)

    def _answer(self, name: str, error: RequestError | None) -> None:
        answer = self._asked.get(name)
        if answer is None or answer.done():  # whoever asked has left
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    async def _load(self, channel: Channel, reloader: Reloader, folder: Path) -> None:
        try:
            await reloader.prepare(folder)
        except ModelsError as error:
            channel.say("refused", str(error))
        else:
            channel.say("loaded")
