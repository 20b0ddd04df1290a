"""Traces go to a real collector over OTLP, one span a request, and nowhere where nobody asks."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_server import ROOT, crisp, free_port, running
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from service import logs, tracing
from service.api import Api
from service.errors import SettingsError
from service.middleware import RequestId
from service.settings import Settings

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


async def hello(_: Request) -> Response:
    record = logging.LogRecord("crisp", 20, "", 0, "hello", (), None)
    return PlainTextResponse(logs.facts_of(record).get("trace_id", ""))


TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TEXTS = {"texts": ["a warm film", "a dull one"]}

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
        monkeypatch.setattr(tracing, "_provider", None)  # as they were, afterwards
        monkeypatch.setattr(tracing, "_tracer", None)
        monkeypatch.setattr(logs, "trace_id", None)
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
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-ID": "mine"}
    answer = ask(app, "/predict", **headers)
    ask(app, "/livez")
    assert answer.text == TRACE  # the log says it too
    (span,) = arrived(collector)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
    assert span.name == "GET /predict"
    attributes = {a.key: a.value for a in span.attributes}
    assert attributes["crisp.request_id"].string_value == "mine"
    assert attributes["http.status_code"].int_value == 200
    assert "text" not in str(attributes)


def ask_the_service(models_dir: Path, path: str, *, sampled: bool = True) -> httpx.Response:
    """What the HTTP interface answers in this process to TEXTS, traced."""

    async def scenario() -> httpx.Response:
        api = Api(Settings(models=models_dir, threads=1))
        app = api.app()
        transport = httpx.ASGITransport(tracing.traced(api.exchange(app)))  # type: ignore[arg-type]
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            parent = f"00-{TRACE}-{CALLER}-{int(sampled):02}"
            return await client.post(path, json=TEXTS, headers={"traceparent": parent})

    return asyncio.run(scenario())


def by_name(spans: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for span in spans:
        found.setdefault(span.name, []).append(span)
    return found


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("OTEL_SERVICE_NAME", "", "crisp"),
        ("OTEL_SERVICE_NAME", "shop", "shop"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,deployment=a", "shop"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment=a", "crisp"),
    ],
)
def test_it_has_the_name_that_the_standard_variables_give_it(
    variable: str, value: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    tracing.traced(Starlette())
    provider: Any = tracing._provider
    assert provider.resource.attributes["service.name"] == name
    assert ("deployment" in provider.resource.attributes) == ("deployment" in value)
    provider.shutdown()


def test_under_a_request_are_spans_of_its_parts(collector: list[Any], models_dir: Path) -> None:
    answer = ask_the_service(models_dir, "/predict")
    found = by_name(arrived(collector))
    assert set(found) == {"POST /predict", "tokenize", "queue", "inference"}
    (request,), timing = found.pop("POST /predict"), answer.json()["timing"]
    assert request.parent_span_id.hex() == CALLER
    ends = []
    for name in ("tokenize", "queue", "inference"):
        (part,) = found[name]
        assert part.trace_id.hex() == TRACE
        assert part.parent_span_id == request.span_id
        spent = (part.end_time_unix_nano - part.start_time_unix_nano) / 1e6
        assert spent == pytest.approx(timing[f"{name}_ms"], abs=1e-3)
        attributes = {a.key: a.value for a in part.attributes}
        assert attributes["crisp.variant"].string_value == "sparse"
        assert attributes["crisp.texts"].int_value == 2
        tokens = sum(one["tokens"] for one in answer.json()["predictions"])
        assert attributes["crisp.tokens"].int_value == tokens
        ends += [part.start_time_unix_nano, part.end_time_unix_nano]
    assert ends[1:5:2] == ends[2:6:2]  # end to end
    assert ends[-1] <= request.end_time_unix_nano
    assert "warm" not in str(found)


def test_each_model_of_a_comparison_has_its_own(collector: list[Any], models_dir: Path) -> None:
    ask_the_service(models_dir, "/compare")
    found = by_name(arrived(collector))
    for name in ("tokenize", "queue", "inference"):
        variants = {
            attribute.value.string_value
            for span in found[name]
            for attribute in span.attributes
            if attribute.key == "crisp.variant"
        }
        assert variants == {"dense", "sparse"}


def test_an_explanation_has_them_too(collector: list[Any], models_dir: Path) -> None:
    answer = ask_the_service(models_dir, "/explain")
    spans = {span.name: span for span in arrived(collector)}
    told = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert list(told) == ["queue", "tokenize", "inference"]
    for name, milliseconds in told.items():
        spent = (spans[name].end_time_unix_nano - spans[name].start_time_unix_nano) / 1e6
        assert spent == pytest.approx(float(milliseconds), abs=0.006)
    assert float(told["inference"]) > 0


def test_a_caller_who_keeps_no_trace_gets_none(collector: list[Any], models_dir: Path) -> None:
    ask_the_service(models_dir, "/predict", sampled=False)
    ask_the_service(models_dir, "/compare")
    assert len(by_name(arrived(collector))["tokenize"]) == 2  # those of the second


@pytest.mark.slow
def test_a_server_sends_what_it_has_when_it_ends(
    collector: list[Any], models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two workers, and a collector that is asked at the end only."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    port = free_port()
    options = ("--models", str(models_dir), "--port", str(port), "--workers", "2")
    with running(crisp("serve", *options), port, tmp_path / "log") as server:
        for _ in range(8):
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            httpx.post(f"{server.url}/predict", json=TEXTS, headers=headers, timeout=60)
        assert not collector
    found = by_name(collector)
    assert {name: len(spans) for name, spans in found.items()} == dict.fromkeys(
        ("POST /predict", "tokenize", "queue", "inference"), 8
    )
    assert server.log.count(f"trace_id={TRACE}") == 8
    assert "Traceback" not in server.log


@pytest.mark.slow
def test_a_collector_that_is_gone_harms_nobody(models_dir: Path, tmp_path: Path) -> None:
    port = free_port()
    command = crisp("serve", "--models", str(models_dir), "--port", str(port))
    gone = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with running(command, port, tmp_path / "log", **gone) as server:
        assert httpx.post(f"{server.url}/predict", json=TEXTS, timeout=60).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def test_where_nobody_asks_nothing_of_it_is_loaded() -> None:
    code = (
        "import sys\n"
        "from service import logs, tracing\n"
        "assert tracing.traced(print, {}) is print\n"
        "assert tracing._tracer is None and logs.trace_id is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


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
