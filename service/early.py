"""What a process has and begins before it imports BentoML, which takes longer; empty where there is
nothing of the kind, as under `bentoml serve`."""

from __future__ import annotations

from concurrent.futures import Future

from service.parent import Parent
from service.variants import Variants

models: Future[Variants] | None = None
parent: Parent | None = None  # the supervisor
