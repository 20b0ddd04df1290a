"""The BentoML service: its server, health, metrics and packaging around the HTTP interface.

    crisp serve                          # checks the models and the port first
    bentoml serve                        # in the checkout; settings from CRISP_... variables
    bentoml build                        # packs it, see bentofile.yaml

One service without dependencies on others, and JSON only: nothing here ever unpickles.
"""

from __future__ import annotations

import gc
import os

# Before bentoml reads it. Its own commands have read it by now: set it in the shell for those.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import sys

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from starlette.types import ASGIApp

from service import early, keys, logs, metric_files, protocol, tracing
from service.access import listening, warn_if_open
from service.api import Api
from service.bento_process import (
    cannot_reload_all,
    forget_the_dead,
    forward_hangups,
    warn_of_bentoml,
)
from service.cores import threads_of_worker
from service.errors import ServiceError
from service.front import OTHER, MovesToTheFront, guarded
from service.image import serving_image
from service.lifecycle import Lifecycle
from service.memory import MALLOC
from service.metrics import Metrics
from service.settings import Settings
from service.variants import Variants

_SWITCH_SECONDS = 0.0005

settings = Settings.from_environment()


def check_settings() -> None:
    """Raises ServiceError where what the settings name, models aside, cannot be used."""
    tracing.check()
    if settings.keys is not None:
        keys.KeyRing(settings.keys, early.kept_keys)


def before_workers() -> None:
    """Called by `bentoml serve` in its main process, before the workers start.

    Opens the models once: a worker that fails at it would be started again and again. Exits with
    code 2 and one line where they cannot be used.
    """
    logs.configure(settings)
    warn_of_bentoml(settings, os.environ)
    try:
        check_settings()
        Variants.load(settings.models, device=settings.device)
    except ServiceError as error:
        print(f"crisp: error: {error}", file=sys.stderr)
        sys.exit(2)
    forward_hangups()


class Crisp:
    """Sentiment of texts, from a sparse, quantised model and its dense baseline."""

    before_start = bentoml.on_deployment(before_workers)

    async def __is_ready__(self) -> bool:
        """What BentoML answers at /readyz."""
        return not api.stopping


crisp = bentoml.service(
    name="crisp",
    workers=settings.workers,
    # BentoML's own timeout cannot be switched off, and its answer has another shape: ours is first.
    traffic={"timeout": settings.timeout_seconds + 10},
    http={"host": "127.0.0.1"},  # BentoML's default would listen on every interface
    logging={"access": {"enabled": False}},  # ours is in service/logs.py
    image=serving_image(),
    envs=[
        {"name": "BENTOML_DO_NOT_TRACK", "value": "True"},
        *({"name": name, "value": value} for name, value in MALLOC.items()),
        {"name": "BENTOML_HOST", "value": "0.0.0.0"},  # in the container; its port is published
    ],
)(Crisp)
index = bentoml.server_context.worker_index  # None in the main process of `bentoml serve`
api = Api(settings, threads_of_worker(settings, index or 1))
if index is not None:
    logs.configure(settings)
    protocol.install(settings)
    metric_files.install()
    api.begin_loading(early.models)
own = api.app()
crisp.mount_asgi_app(own)


def front(bentoml_app: ASGIApp) -> ASGIApp:
    """All that is served, with our guards in front of it; called where the server starts."""
    # What has been imported stays: looked through again and again, it took a sixth of the time that
    # a request spends in Python.
    gc.freeze()
    # The thread that runs a model needs the interpreter between two batches; with the default of
    # 5 ms it waited for the event loop while the cores had nothing to do.
    sys.setswitchinterval(_SWITCH_SECONDS)
    if index == 1:
        warn_if_open(settings, listening())
    hang_up = api.reload_here
    if early.parent is not None:
        api.reload_all = hang_up = early.parent.reload
    elif settings.workers > 1:
        api.reload_all = cannot_reload_all
    api.metrics = Metrics(BentoMLContainer.metrics_client.get().registry)
    answers = api.metrics.http_requests
    protocol.refused = lambda _status: answers.labels(OTHER, _status).inc()
    if early.again:
        api.metrics.restarts.inc()
    forget_the_dead()
    # A request has `timeout_seconds` at most, so that is enough to finish those that were accepted.
    api.lifecycle = Lifecycle(settings.drain_seconds, settings.timeout_seconds, hang_up)
    api.lifecycle.install()
    return guarded(api.exchange(own), bentoml_app, own.routes, settings, api.metrics)


crisp.add_asgi_middleware(MovesToTheFront, build=front)
