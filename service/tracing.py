"""OpenTelemetry traces of requests, where an exporter is configured, and no cost otherwise.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 crisp serve

The standard variables of OpenTelemetry say where the traces go, under which name and how many are
kept (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, ...). A caller's `traceparent` is continued.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp

from service.errors import SettingsError
from service.logs import QUIET, request_id

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


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

    name = environment.get("OTEL_SERVICE_NAME") or "crisp"
    # It sends what is left when the process ends.
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    def name_request(span: Any, _scope: Any) -> None:
        span.set_attribute("crisp.request_id", request_id.get() or "")

    return OpenTelemetryMiddleware(
        app,
        excluded_urls=",".join(f"{path}$" for path in QUIET),
        tracer_provider=provider,
        server_request_hook=name_request,
        exclude_spans=["receive", "send"],
    )
