"""The packed batch: sequences of token ids laid end to end, without padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pack(sequences: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int32] | NDArray[np.int64]]:
    """The inputs of a packed graph for B sequences with T tokens in all.

    `input_ids` int64 [T]; `cu_seqlens` int32 [B+1], the offsets: first 0, last T.
    """
    lengths = [len(ids) for ids in sequences]
    cu_seqlens = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    ids = np.fromiter((i for sequence in sequences for i in sequence), np.int64, sum(lengths))
    return {"input_ids": ids, "cu_seqlens": cu_seqlens}
