"""Other models without a stop: loads what the models folder holds now, beside what is in use.

The new models are verified, opened and warmed up in a thread while the old ones go on answering.
Only where all of them are good do they take over, all at the same moment; requests that have begun
end with the model that they began with. Otherwise nothing changes, and the error says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from service.errors import ModelsError, RequestError
from service.metrics import Metrics
from service.variants import Variants

logger = logging.getLogger("crisp.service")


class Reloader:
    """Calls `load` in a thread and, where it succeeds, `use` with what it gave."""

    def __init__(
        self, load: Callable[[], Variants], use: Callable[[Variants], None], metrics: Metrics
    ) -> None:
        self._load = load
        self._use = use
        self._reloads = metrics.reloads
        self._busy = False

    async def reload(self) -> Variants:
        """The models that are in use now.

        Raises RequestError 409: `models_refused` where the new ones are not good, and the old ones
        stay; `reload_in_progress` where somebody else is at it.
        """
        if self._busy:
            message = "the models are being loaded already: wait for that, then look at GET /models"
            raise RequestError(409, "reload_in_progress", message)
        self._busy = True
        try:
            variants = await asyncio.to_thread(self._load)
        except ModelsError as error:
            self._reloads.labels("failed").inc()
            logger.error("the models stay as they were: %s", error)
            message = f"the models stay as they were: {error}"
            raise RequestError(409, "models_refused", message) from None
        except Exception:
            self._reloads.labels("failed").inc()
            logger.exception("the models stay as they were")
            raise
        finally:
            self._busy = False
        self._use(variants)
        self._reloads.labels("ok").inc()
        logger.info("other models are in use: %s", ", ".join(variants))
        return variants
