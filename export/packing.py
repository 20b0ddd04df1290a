"""The packed batch: sequences of token ids laid end to end, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray


def pack(sequences: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int32] | NDArray[np.int64]]:
    """The inputs of a packed graph for B sequences with T tokens in all.

    `input_ids` int64 [T]; `cu_seqlens` int32 [B+1], the offsets: first 0, last T.
    """
    offsets = list(accumulate(map(len, sequences), initial=0))
    cu_seqlens = np.array(offsets, np.int32)
    ids = np.fromiter(chain.from_iterable(sequences), np.int64, offsets[-1])
    return {"input_ids": ids, "cu_seqlens": cu_seqlens}
