"""Traces go to a real collector over OTLP, one span a request, and nowhere where nobody asks."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from service import logs, tracing
from service.errors import SettingsError
from service.middleware import RequestId

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


async def hello(_: Request) -> Response:
    record = logging.LogRecord("crisp", 20, "", 0, "hello", (), None)
    return PlainTextResponse(logs.facts_of(record).get("trace_id", ""))


APP = Starlette(routes=[Route(path, hello) for path in ("/predict", "/livez")])


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The spans that arrive at an OTLP collector, to which the variables of this process point."""
    spans: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                export = trace_service.ExportTraceServiceRequest.FromString(body)
                for resource in export.resource_spans:
                    spans.extend(s for scope in resource.scope_spans for s in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield spans
        server.shutdown()
        thread.join()


def arrived(spans: list[Any]) -> list[Any]:
    """The spans that have come within a while, and a little later still."""
    until = time.monotonic() + 60
    while not spans and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    return spans


def ask(app: Any, path: str, **headers: str) -> httpx.Response:
    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(RequestId(app))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(scenario())


def test_a_request_is_a_span_that_continues_its_callers_trace(collector: list[Any]) -> None:
    app = tracing.traced(APP)
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace_id}-{parent}-01", "X-Request-ID": "mine"}
    answer = ask(app, "/predict", **headers)
    ask(app, "/livez")
    assert answer.text == trace_id  # the log says it too
    (span,) = arrived(collector)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace_id, parent)
    assert span.name == "GET /predict"
    attributes = {a.key: a.value for a in span.attributes}
    assert attributes["crisp.request_id"].string_value == "mine"
    assert attributes["http.status_code"].int_value == 200
    assert "text" not in str(attributes)


def test_where_nobody_asks_the_application_is_left_alone() -> None:
    assert tracing.traced(APP, {}) is APP
    off = {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}
    assert tracing.traced(APP, off) is APP


def test_a_missing_exporter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT='http://x': traces need"):
        tracing.check({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"})
    tracing.check({})
