"""Who may ask, and how often: API keys and their rate limit.

    Authorization: Bearer crisp_...

Without `--keys` everyone may ask, and nobody may load other models. What is the same for everyone
needs no key: the probes, the page and the description of the interface.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections.abc import Callable, Iterable

import psutil
from starlette.datastructures import Headers
from starlette.types import Scope

from service import early
from service.errors import RequestError
from service.keys import Key, KeyRing
from service.settings import Settings

OPEN = frozenset({"/", "/livez", "/readyz", "/healthz", "/docs.json", "/report", "/report/load"})
OPEN_BELOW = "/page/"  # what the page at / is made of
ADMIN = frozenset({"/models/reload"})

logger = logging.getLogger("crisp.service")


def listening() -> set[str]:
    """The addresses that this process listens on."""
    connections = psutil.Process().net_connections("tcp")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


def warn_if_open(settings: Settings, addresses: Iterable[str]) -> None:
    """Says loudly where anyone who reaches this machine may use the service."""
    reachable = [a for a in addresses if not ipaddress.ip_address(a).is_loopback]
    if settings.keys is None and reachable:
        logger.warning(
            "ANYONE WHO REACHES %s MAY USE THIS SERVICE, for it asks for no keys. Make some with "
            "`crisp keys add NAME` and serve with --keys FILE, or listen on 127.0.0.1",
            " and ".join(sorted(reachable)),
        )


class TokenBucket:
    """`rate` requests a second in the long run, and up to `burst` at once.

    `clock` gives seconds and never goes back, whatever happens to the time of day.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._saved = float(burst)
        self._at = clock()

    def take(self) -> float:
        """Takes one request out; returns 0, or the seconds until there is one and takes nothing."""
        now = self._clock()
        self._saved = min(self.burst, self._saved + (now - self._at) * self.rate)
        self._at = now
        if self._saved >= 1:
            self._saved -= 1
            return 0.0
        return (1 - self._saved) / self.rate


class Access:
    """Knows the keys of `settings`, and how often each has asked."""

    def __init__(self, settings: Settings, rejected: Callable[[], None] = lambda: None) -> None:
        """`rejected` is called for every request that comes too soon."""
        self._rejected = rejected
        self._keys = None if settings.keys is None else KeyRing(settings.keys, early.kept_keys)
        # Processes do not know of each other's requests: each grants its share.
        self._limit, self._workers = settings.rate_limit, settings.workers
        self._burst = max(1.0, settings.rate_burst / settings.workers)
        self._buckets = dict[str, TokenBucket]()

    def check(self, scope: Scope) -> None:
        """Raises RequestError (401, 403 or 429) where the request in `scope` may not pass. The name
        of its key goes into `scope["state"]["key"]`, for the log."""
        if _is_open(scope["path"]):
            return
        admin_only = scope["path"] in ADMIN
        if self._keys is None:
            if admin_only:
                message = "no key may do this: start the service with --keys, and use an admin key"
                raise RequestError(403, "admin_only", message)
            return
        key = self._presented(self._keys, scope)
        scope.setdefault("state", {})["key"] = key.name
        if self._limit is not None:
            self._count(self._limit, key)
        if admin_only and not key.admin:
            message = f"the key {key.name} may not do this: use an admin key"
            raise RequestError(403, "admin_only", message)

    def _presented(self, keys: KeyRing, scope: Scope) -> Key:
        scheme, _, presented = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not presented.strip():
            message = "expected a key, as `Authorization: Bearer KEY`; ask whoever runs the service"
            raise RequestError(401, "no_key", message)
        key = keys.find(presented.strip().encode("latin-1", "replace"))
        if key is None:
            message = "the key is not known here: it may be mistyped or revoked"
            raise RequestError(401, "unknown_key", message)
        return key

    def _count(self, limit: float, key: Key) -> None:
        # As many buckets as there are keys at most: only known keys come here.
        bucket = self._buckets.get(key.sha256)
        if bucket is None:
            rate = limit / self._workers
            bucket = self._buckets[key.sha256] = TokenBucket(rate, self._burst)
        wait = bucket.take()
        if wait:
            self._rejected()
            message = f"the key {key.name} may send {limit:g} requests a second"
            if self._workers == 1:
                message += ": wait and try again"
            else:  # whoever keeps to one connection has no more than one process grants
                message += (
                    f", {bucket.rate:.3g} of them to each of {self._workers} processes, and a "
                    "connection is to one of these: wait and try again, or use more connections"
                )
            raise RequestError(429, "rate_limited", message, retry_after=math.ceil(wait))


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_BELOW)
