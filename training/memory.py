"""Keeps what a training frees for its next step, instead of handing it back to the system.

The gradient of the embeddings is as large as they are (47 MB for MiniLM) and made anew in every
step. glibc takes what is so large from the system each time, page by page, which was a sixth of a
step of short texts. Other C libraries have no such setting: there nothing happens.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_MOST = 2**31 - 1  # bytes that may lie free


def keep_freed_memory() -> None:
    """Lets this process keep what it frees."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _MOST)
