"""Other models without a stop: loads them beside what is in use.

The new models are verified, opened and warmed up in a thread while the old ones go on answering.
Only where all of them are good do they take over, all at the same moment; requests that have begun
end with the model that they began with. Otherwise nothing changes, and the error says why.

Where several processes serve, `service/rollout.py` lets all of them `prepare`, and then `take` or
`drop`; `reload` is for one that serves alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from service.errors import ModelsError
from service.metrics import Metrics
from service.rollout import in_progress, refused
from service.variants import Variants

logger = logging.getLogger("crisp.service")


class Reloader:
    """Calls `load` in a thread and, where it succeeds, `use` with what it gave."""

    def __init__(
        self, load: Callable[[Path], Variants], use: Callable[[Variants], None], metrics: Metrics
    ) -> None:
        self._load = load
        self._use = use
        self._reloads = metrics.reloads
        self._prepared: Variants | None = None
        self._loading: object | None = None

    async def prepare(self, models: Path) -> None:
        """Loads what `models` holds, for `take`. Raises ModelsError where it is not good, or was
        dropped meanwhile."""
        loading = self._loading = object()
        try:
            variants = await asyncio.to_thread(self._load, models)
        except ModelsError:
            raise
        except Exception as error:
            logger.exception("the models in %s do not load", models)
            raise ModelsError(f"{type(error).__name__}: {error}") from None
        if self._loading is not loading:
            raise ModelsError("they were dropped before they were loaded")
        self._prepared = variants

    def take(self) -> Variants:
        """Answers with what was prepared, from now on."""
        variants, self._prepared, self._loading = self._prepared, None, None
        assert variants is not None
        self._use(variants)
        self._reloads.labels("ok").inc()
        return variants

    def drop(self) -> None:
        """Forgets what was prepared, or is being."""
        self._prepared = self._loading = None
        self._reloads.labels("failed").inc()

    async def reload(self, models: Path) -> None:
        """Answers with what `models` holds now, from now on.

        Raises RequestError 409: `models_refused` where they are not good, and the old ones stay;
        `reload_in_progress` where somebody else is at it.
        """
        if self._loading is not None:
            raise in_progress()
        try:
            await self.prepare(models)
        except ModelsError as error:
            self.drop()
            raise refused(error) from None
        except asyncio.CancelledError:  # whoever asked has left
            self.drop()
            raise
        logger.info("other models are in use: %s", ", ".join(self.take()))
