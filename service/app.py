"""The BentoML service: its server, health, metrics and packaging around the HTTP interface.

    crisp serve                          # checks the models and the port first
    bentoml serve                        # in the checkout; settings from CRISP_... variables
    bentoml build                        # packs it, see bentofile.yaml

One service without dependencies on others, and JSON only: nothing here ever unpickles.
"""

from __future__ import annotations

import os

# Before bentoml reads it. Its own commands have read it by now: set it in the shell for those.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import sys
from concurrent.futures import Future

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from starlette.types import ASGIApp

from service import logs, protocol, tracing
from service.access import listening, warn_if_open
from service.api import Api
from service.errors import ServiceError
from service.front import MovesToTheFront, guarded
from service.image import serving_image
from service.metrics import Metrics
from service.settings import Settings
from service.variants import Variants

settings = Settings.from_environment()
check: Future[None] | None = None  # what `crisp serve` began before it imported this


def check_models() -> None:
    """Opens the models once, before the server starts: a worker that fails at it would be started
    again and again. Exits with code 2 and one line where they cannot be used."""
    logs.configure(settings)
    try:
        tracing.check()
        if check is None:
            Variants.load(settings.models, threads=settings.threads)
        else:
            check.result()
    except ServiceError as error:
        print(f"crisp: error: {error}", file=sys.stderr)
        sys.exit(2)


class Crisp:
    """Sentiment of texts, from a sparse, quantised model and its dense baseline."""

    before_start = bentoml.on_deployment(check_models)


crisp = bentoml.service(
    name="crisp",
    workers=1,  # one process owns the cores; its threads are the session's
    # BentoML's own timeout cannot be switched off, and its answer has another shape: ours is first.
    traffic={"timeout": settings.timeout_seconds + 10},
    http={"host": "127.0.0.1"},  # BentoML's default would listen on every interface
    logging={"access": {"enabled": False}},  # ours is in service/logs.py
    image=serving_image(),
    envs=[
        {"name": "BENTOML_DO_NOT_TRACK", "value": "True"},
        {"name": "BENTOML_HOST", "value": "0.0.0.0"},  # in the container; its port is published
    ],
)(Crisp)
api = Api(settings)
if bentoml.server_context.worker_index is not None:  # in the process that serves
    logs.configure(settings)
    protocol.install(settings)
    api.begin_loading()
own = api.app()
crisp.mount_asgi_app(own)


def front(bentoml_app: ASGIApp) -> ASGIApp:
    """All that is served, with our guards in front of it; called where the server starts."""
    if bentoml.server_context.worker_index == 1:
        warn_if_open(settings, listening())
    api.metrics = Metrics(BentoMLContainer.metrics_client.get().registry)
    return guarded(own, bentoml_app, own.routes, settings, api.metrics)


crisp.add_asgi_middleware(MovesToTheFront, build=front)
