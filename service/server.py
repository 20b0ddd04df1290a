"""Starts BentoML's server for `crisp serve`, after a look at what would make it fail."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.errors import AddressError
from service.settings import Settings
from service.variants import Variants

ROOT = Path(__file__).resolve().parent.parent


def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM, then lets running requests finish.

    Raises AddressError where the host and port cannot be listened on; exits with code 2 and one
    line where the models cannot be used.
    """
    address = free_address(settings.host, settings.port)
    # BentoML starts its workers in the working directory of now, and they read the environment.
    os.environ.update(settings.to_environment())
    absolute = Settings.from_environment()
    os.chdir(ROOT)
    with ThreadPoolExecutor(1) as pool:  # importing BentoML takes longer than the check
        check = pool.submit(_open_once, absolute)
        from service import app
    app.check = check
    app.crisp.serve_http(host=address, port=settings.port)


def _open_once(settings: Settings) -> None:
    """Raises ModelsError where the models cannot be used; holds none of them."""
    Variants.load(settings.models, threads=settings.threads)


def free_address(host: str, port: int) -> str:
    """The IP address of `host`, where `port` is free; raises AddressError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise AddressError(f"--host {host} is no address of this machine: {error}") from None
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise AddressError(
                f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}; "
                "choose another with --port, or stop what listens there"
            ) from None
    return str(address[0])
