"""What every request passes before an endpoint sees it, and in which order.

    RequestId, traces, AccessLog, Front: is the path known, is it for a name of ours, who asks
    and how often, how long is the body; and then an endpoint of ours or of BentoML's

It stands in front of BentoML's own middleware, for two reasons. BentoML labels its metrics with the
path of every request, whatever that is, and keeps each label for good: a thousand made-up paths
would be a thousand time series, in the service and in Prometheus. And its middleware for metrics,
traces and access log costs more than a short inference. For that reason `Front` is one piece too,
and not a layer for each check with a `send` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access import Access
from service.host_names import HostNames
from service.logs import AccessLog
from service.metrics import Metrics
from service.middleware import RequestId, limited
from service.reply import Reply
from service.settings import Settings
from service.tally import CounterTally, HistogramTally
from service.tracing import traced

METRICS = "/metrics"
BENTOML_PATHS = frozenset({"/livez", "/readyz", "/healthz", METRICS})
OTHER = "other"  # the endpoint of a path that is nobody's


def guarded(
    own: ASGIApp,
    bentoml: ASGIApp,
    routes: Sequence[BaseRoute],
    settings: Settings,
    metrics: Metrics,
) -> ASGIApp:
    """`own` with its `routes`, and beside it the BENTOML_PATHS of `bentoml`, behind every guard;
    counts requests in `metrics`."""
    app: ASGIApp = Front(own, bentoml, routes, settings, metrics)
    if settings.access_log:
        app = AccessLog(app, texts=settings.log_texts)
    return RequestId(traced(app))


class Front:
    """Lets a request through to its endpoint, or raises why not; what is raised here and there
    becomes an answer. Counts every answer and times those that are no errors: refusals take no time
    and would make an overloaded service look fast."""

    def __init__(
        self,
        own: ASGIApp,
        bentoml: ASGIApp,
        routes: Sequence[BaseRoute],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._own = own
        self._bentoml = bentoml
        self._paths = KnownPaths(routes)
        self._host_names = HostNames(settings)
        self._access = Access(settings, metrics.rejections.labels("rate_limit").inc)
        self._max_body_bytes = settings.max_body_bytes
        self._metrics = metrics
        self._counted: dict[tuple[str, int], tuple[CounterTally, HistogramTally | None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        began = perf_counter()
        reply = Reply(scope, receive, send)
        endpoint = OTHER
        try:
            endpoint = self._paths.endpoint(scope)
            self._host_names.check(scope)
            self._access.check(scope)
            receive = limited(scope, receive, self._max_body_bytes)
            if endpoint == METRICS:
                self._metrics.tallies.tell()
            app = self._bentoml if endpoint in BENTOML_PATHS else self._own
            await app(scope, receive, reply.send)
        except Exception as error:
            await reply.fail(error)
        if reply.complete:
            self._count(endpoint, reply.status, perf_counter() - began)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here speaks it
            await receive()
            await send({"type": "websocket.close"})
        else:
            await self._bentoml(scope, receive, send)

    def _count(self, endpoint: str, status: int, seconds: float) -> None:
        counted = self._counted.get((endpoint, status))
        if counted is None:  # looking them up by their labels takes longer than counting
            metrics, tallies = self._metrics, self._metrics.tallies
            timed = status < 400
            counted = (
                tallies.counter(metrics.http_requests.labels(endpoint, str(status))),
                tallies.histogram(metrics.http_seconds.labels(endpoint)) if timed else None,
            )
            self._counted[endpoint, status] = counted
        number, times = counted
        number.inc()
        if times is not None:
            times.observe(seconds)


class KnownPaths:
    """The paths of `routes` and BentoML's, by which requests are counted."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        plain = {r.path for r in routes if isinstance(r, Route) and not r.param_convertors}
        self._plain = BENTOML_PATHS | plain
        self._patterns = [r for r in routes if not (isinstance(r, Route) and r.path in plain)]

    def endpoint(self, scope: Scope) -> str:
        """The path of the route that `scope` is for, with the names of its parameters; raises
        HTTPException 404 for one that is nobody's."""
        path: str = scope["path"]
        if path in self._plain:
            return path
        for route in self._patterns:
            if route.matches(scope)[0] is not Match.NONE:
                return str(getattr(route, "path", OTHER))
        raise HTTPException(404)


class MovesToTheFront:
    """ASGI middleware for BentoML, which at the start of the server wraps `build` around all of
    BentoML's middleware; BentoML itself lets others stand only behind its own."""

    def __init__(self, app: ASGIApp, build: Callable[[ASGIApp], ASGIApp]) -> None:
        self.app = app
        self.build = build

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            served = scope["app"]  # Starlette's, of which all this is the stack
            served.middleware_stack = self.build(served.middleware_stack)
        await self.app(scope, receive, send)
