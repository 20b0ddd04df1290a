"""What every request passes before an endpoint sees it, and in which order.

    RequestId, traces, AccessLog, Counted, SecurityHeaders, ErrorShape, KnownPaths,
    Access (keys, rates), BodyLimit, and then an endpoint of ours or of BentoML's

It stands in front of BentoML's own middleware, for two reasons. BentoML labels its metrics with the
path of every request, whatever that is, and keeps each label for good: a thousand made-up paths
would be a thousand time series, in the service and in Prometheus. And its middleware for metrics,
traces and access log costs more than a short inference; ours does the same work once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import Access
from service.logs import AccessLog
from service.metrics import Metrics
from service.middleware import BodyLimit, ErrorShape, RequestId, SecurityHeaders
from service.settings import Settings
from service.tracing import traced

BENTOML_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
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

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["path"] not in BENTOML_PATHS
        await (own if ours else bentoml)(scope, receive, send)

    app: ASGIApp = BodyLimit(dispatch, settings.max_body_bytes)
    app = Access(app, settings, metrics.rejections.labels("rate_limit").inc)
    app = KnownPaths(app, routes)
    app = Counted(SecurityHeaders(ErrorShape(app)), metrics)
    app = traced(AccessLog(app, texts=settings.log_texts))
    return RequestId(app)


class KnownPaths:
    """Raises HTTPException 404 for a path that is nobody's, and closes WebSockets."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        plain = {r.path for r in routes if isinstance(r, Route) and not r.param_convertors}
        self._paths = BENTOML_PATHS | plain
        self._patterns = [r for r in routes if not (isinstance(r, Route) and r.path in plain)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
            return
        if scope["type"] == "http":
            endpoint = self._endpoint(scope)
            if endpoint is None:
                raise HTTPException(404)
            scope.setdefault("state", {})["endpoint"] = endpoint
        await self.app(scope, receive, send)

    def _endpoint(self, scope: Scope) -> str | None:
        """The path of the route that `scope` is for, with the names of its parameters."""
        path: str = scope["path"]
        if path in self._paths:
            return path
        for route in self._patterns:
            if route.matches(scope)[0] is not Match.NONE:
                return str(getattr(route, "path", OTHER))
        return None


class Counted:
    """Counts requests by endpoint and status, and times them; made-up paths count as OTHER."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = perf_counter()
        state = scope.setdefault("state", {})
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                endpoint = state.get("endpoint", OTHER)
                self.metrics.http_requests.labels(endpoint, str(status)).inc()
                self.metrics.http_seconds.labels(endpoint).observe(perf_counter() - began)

        await self.app(scope, receive, watched)


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
