"""What the supervisor and a worker say to each other over a socket pair: a JSON array a line.

the worker says                         the supervisor says
["ready"] or ["error", WHY]  at first   ["load", FOLDER]     load these models beside yours
["loaded"] or ["refused", WHY]          ["take"]             answer with them from now on
["taken"]                               ["drop"]             forget them
["reload", ID]  somebody asks for it    ["reloaded", ID] or ["failed", ID, CODE, WHY]
"""

from __future__ import annotations

import asyncio
import json
import socket

_LONGEST = 1 << 20  # bytes of a line


def encoded(*words: str) -> bytes:
    """`words` as they go over the wire."""
    return json.dumps(words).encode() + b"\n"


class Channel:
    """One end of it, in an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def of(cls, connection: socket.socket) -> Channel:
        connection.setblocking(False)
        return cls(*await asyncio.open_connection(sock=connection, limit=_LONGEST))

    def say(self, *words: str) -> None:
        """Says `words`; to nobody, where the other end is gone."""
        if not self._writer.is_closing():
            self._writer.write(encoded(*words))

    async def hear(self) -> list[str]:
        """What the other end says next; nothing where it is gone."""
        try:
            line = await self._reader.readline()
        except OSError:
            return []
        return list(map(str, json.loads(line))) if line.endswith(b"\n") else []

    def close(self) -> None:
        self._writer.close()
