"""What a process has and begins before it imports BentoML, which takes longer; empty where there is
nothing of the kind, as under `bentoml serve`."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from service.parent import Parent
from service.variants import Variants

models: Future[Variants] | None = None
parent: Parent | None = None  # the supervisor
again = False  # it takes the place of a process that has ended
kept_keys: Path | None = None  # where workers keep the keys that they read last
