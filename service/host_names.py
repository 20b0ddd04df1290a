"""The names that the service answers to: the guard against pages of others in a browser.

A page of another site may let its own name lead to 127.0.0.1 (DNS rebinding) and then asks what
listens there as its own site, whatever the browser keeps sites apart by. Its requests still carry
that name in `Host`. So who is asked without keys on this machine alone answers to this machine's
names and to addresses, which nobody can let lead elsewhere; `--allowed-hosts` says what else.
"""

from __future__ import annotations

import functools
import ipaddress
import socket

from starlette.types import Scope

from service.errors import RequestError
from service.settings import Settings, host_names

_LONGEST = 253  # characters of a name in the DNS


class HostNames:
    """Which names are allowed in `settings`."""

    def __init__(self, settings: Settings) -> None:
        allowed = host_names(settings.allowed_hosts)
        self._any = "*" in allowed or (settings.keys is not None and not allowed)
        self._everywhere = bool(allowed)
        own = ("localhost", socket.gethostname(), settings.host)
        self._names = frozenset(name.lower() for name in (*own, *allowed))

    def check(self, scope: Scope) -> None:
        """Raises RequestError (421) where the request in `scope` is for a name that is not this
        service's."""
        if self._any or not (self._everywhere or _is_loopback((scope.get("server") or ("",))[0])):
            return
        for header, value in scope["headers"]:
            if header == b"host" and not self._is_allowed(name := _name(value)):
                shown = name if len(name) <= _LONGEST else "that name"
                message = f"this service does not answer to {shown}: "
                message += "whoever runs it may allow names with --allowed-hosts"
                raise RequestError(421, "unknown_host", message)

    def _is_allowed(self, name: str) -> bool:
        return name in self._names or name.endswith(".localhost") or _address(name) is not None


@functools.lru_cache(64)
def _name(host: bytes) -> str:
    """`host` without its port and a last dot, in lower case."""
    name = host.decode("latin-1").strip().lower()
    bare, colon, port = name.rpartition(":")
    if colon and (port.isdecimal() or not port) and not name.endswith("]"):
        name = bare
    return name.removeprefix("[").removesuffix("]").removesuffix(".")


@functools.lru_cache(64)
def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_loopback(server: str) -> bool:
    address = _address(server)
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, where :: is listened on
    return address is not None and (mapped or address).is_loopback
