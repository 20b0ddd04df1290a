"""Two gaps of BentoML's own process management, filled from outside."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil


def forward_hangups() -> None:
    """Lets the main process of `bentoml serve` pass SIGHUP on to the workers, who load the models
    anew. The process manager of BentoML, Circus, would stop and start them instead."""
    from circus.sighandler import SysHandler  # type: ignore[import-untyped]

    def handle_hup(_: SysHandler) -> None:
        for worker in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGHUP)

    SysHandler.handle_hup = handle_hup


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
