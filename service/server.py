"""`crisp serve`: takes the address, then leaves the rest to `service/supervisor.py`."""

from __future__ import annotations

import asyncio
import os
import socket

from service.errors import AddressError
from service.settings import Settings
from service.supervisor import BACKLOG, Supervisor


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM, then lets running requests finish.

    Raises AddressError where the host and port cannot be listened on, StartError where the models
    or other settings cannot be used.
    """
    absolute = Settings.from_environment(settings.to_environment())
    with listening_socket(settings.host, settings.port) as listening:

        async def supervise() -> None:
            await Supervisor(absolute, listening).run()

        asyncio.run(supervise())


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`; raises AddressError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise AddressError(f"--host {host} is no address of this machine: {error}") from None
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise AddressError(
            f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}; "
            "choose another with --port, or stop what listens there"
        ) from None
    return listening
