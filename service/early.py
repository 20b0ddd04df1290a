"""What a process begins before it imports BentoML, which takes longer; empty where nothing was."""

from __future__ import annotations

from concurrent.futures import Future

from service.variants import Variants

models: Future[Variants] | None = None
