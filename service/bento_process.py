"""Gaps of BentoML's own process management, filled or shown from outside."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import psutil

from service.errors import RequestError
from service.settings import PREFIX, Settings

logger = logging.getLogger("crisp.service")


def forward_hangups() -> None:
    """Lets the main process of `bentoml serve` pass SIGHUP on to the workers, who load the models
    anew. The process manager of BentoML, Circus, would stop and start them instead."""
    from circus.sighandler import SysHandler  # type: ignore[import-untyped]

    def handle_hup(_: SysHandler) -> None:
        for worker in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGHUP)

    SysHandler.handle_hup = handle_hup


def warn_of_bentoml(settings: Settings, environment: Mapping[str, str]) -> None:
    """Says what BentoML does in its own way, where `settings` ask for another."""
    for name in ("HOST", "PORT"):
        if environment.get(f"{PREFIX}{name}"):
            message = "%s%s is not what `bentoml serve` listens on: set BENTOML_%s"
            logger.warning(message, PREFIX, name, name)
    if settings.workers > 1 and environment.get("BENTOML_CONTAINERIZED"):
        logger.warning(
            "a process that ends is not started again by BentoML in a container: use one worker "
            "and more containers"
        )


async def cannot_reload_all() -> None:
    """Raises RequestError 409: nobody here can ask all workers of `bentoml serve` and wait."""
    message = (
        "several processes serve under `bentoml serve`, and a request reaches one of them: send "
        "SIGHUP to the main process, or use `crisp serve`"
    )
    raise RequestError(409, "one_of_several", message)


def forget_the_dead() -> None:
    """Deletes the gauges of processes that were killed: their queues are gone, but the files in
    which prometheus_client keeps what each process counts are not. Counters stay, they count."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return
    for file in Path(folder).glob("gauge_live*.db"):
        process = file.stem.rpartition("_")[2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            file.unlink(missing_ok=True)
