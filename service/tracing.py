"""OpenTelemetry traces of requests, where an exporter is configured, and no cost otherwise.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 crisp serve

The standard variables of OpenTelemetry say where the traces go, under which name and how many are
kept (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, ...). A caller's `traceparent` is continued. Under the
span of a request are three for each model that it asks: `tokenize`, `queue` and `inference`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from service import logs
from service.engine import Prediction, Timing
from service.errors import SettingsError
from service.logs import QUIET, request_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_SECONDS_TO_SEND = 5.0  # what is left when the process ends, to a collector that may be gone

_provider: TracerProvider | None = None  # of this process, where somebody asks for traces
_tracer: Tracer | None = None


def endpoint(environment: Mapping[str, str] = os.environ) -> str | None:
    """The variable that asks for traces, if one does."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    return next((name for name in _ENDPOINTS if environment.get(name)), None)


def check(environment: Mapping[str, str] = os.environ) -> None:
    """Raises SettingsError where traces are asked for and their exporter is not installed."""
    asked = endpoint(environment)
    if asked is None:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
    except ModuleNotFoundError:
        raise SettingsError(
            f"{asked}={environment[asked]!r}: traces need the package opentelemetry-exporter-otlp-"
            "proto-http: `pip install -c constraints.txt -e '.[tracing]'`, or unset the variable"
        ) from None


def traced(app: ASGIApp, environment: Mapping[str, str] = os.environ) -> ASGIApp:
    """`app` with a span for each request but those of probes; `app` itself where nobody asks."""
    check(environment)
    if endpoint(environment) is None:
        return app
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource.create().attributes[SERVICE_NAME]  # by the standard variables
    unnamed = str(named).startswith("unknown_service")
    resource = Resource.create({SERVICE_NAME: "crisp" if unnamed else named})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # `end` does
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    global _provider, _tracer
    _provider, _tracer = provider, provider.get_tracer("crisp")
    logs.trace_id = _trace_id

    def name_request(span: Any, _scope: Any) -> None:
        span.set_attribute("crisp.request_id", request_id.get() or "")

    return OpenTelemetryMiddleware(
        app,
        excluded_urls=",".join(f"{path}$" for path in QUIET),
        tracer_provider=provider,
        server_request_hook=name_request,
        exclude_spans=["receive", "send"],
    )


def note(variant: str, timing: Timing, predictions: Sequence[Prediction]) -> None:
    """Adds spans of what `variant` did for the request that is being answered.

    They stand end to end, the last one ends now: where texts ran in several batches, `queue` is all
    the waiting together, and `inference` all the running.
    """
    if _tracer is None:
        return
    facts: dict[str, str | int] = {
        "crisp.variant": variant,
        "crisp.texts": len(predictions),
        "crisp.tokens": sum(prediction.tokens for prediction in predictions),
    }
    end = time.time_ns()
    for name, milliseconds in (
        ("inference", timing.inference_ms),
        ("queue", timing.queue_ms),
        ("tokenize", timing.tokenize_ms),
    ):
        start = end - round(1e6 * milliseconds)
        _tracer.start_span(name, attributes=facts, start_time=start).end(end)
        end = start


async def end() -> None:
    """Sends what is left, before the process ends: a signal ends it, and nothing runs after that.
    A collector that does not answer is not waited for."""
    if _provider is None:
        return
    sending = threading.Thread(target=_provider.shutdown, daemon=True)
    sending.start()
    await asyncio.to_thread(sending.join, _SECONDS_TO_SEND)


def _trace_id() -> str | None:
    """Of the request that is being answered."""
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
