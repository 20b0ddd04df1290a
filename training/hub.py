"""Whether the Hugging Face hub can be reached: asked once, before its libraries would retry for
minutes."""

from __future__ import annotations

import functools
import os
from pathlib import Path

TIMEOUT_SECONDS = 5.0


@functools.cache
def hub_is_reachable() -> bool:
    """Whether the hub answers. Where it does not, its libraries are to use their caches alone."""
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode() or os.environ.get("HF_DATASETS_OFFLINE") == "1":
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_SECONDS)
    except Exception:  # of whichever HTTP library the hub's client uses
        return False
    return True


def local_only(source: str | Path) -> bool:
    """Whether `source`, a folder or a hub's name, is to be looked for on this machine alone."""
    return Path(source).is_dir() or not hub_is_reachable()
