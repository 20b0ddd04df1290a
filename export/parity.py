"""Holds an exported graph against what it came from: torch logits, length by length, and the labels
that int8 gives to real texts against those of fp32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import DistilBertForSequenceClassification

from export.errors import ParityError
from export.op_library import OpLibrary, make_session
from export.packing import pack

FP32_TOLERANCE = 1e-4  # largest difference of a logit between torch and fp32 ONNX
INT8_DISAGREEMENT = 0.01  # largest share of texts on which int8 and fp32 give different labels
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 64, 65, 89, 128, 129, 144, 233, 256, 377, 512)
_PACK_TOKENS = 4096


def onnx_logits(
    model: Path,
    sequences: Sequence[Sequence[int]],
    *,
    library: OpLibrary | None = None,
    progress: str | None = None,
) -> NDArray[np.float32]:
    """Logits float32 [N, C] of token sequences, in their order, computed in packs of some 4,096
    tokens of texts of like length."""
    session = make_session(model, library=library)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    rows: dict[int, NDArray[np.float32]] = {}
    with tqdm(total=len(order), desc=progress, unit="text", disable=progress is None) as bar:
        while order:
            size = max(1, _PACK_TOKENS // max(1, len(sequences[order[0]])))
            batch, order = order[:size], order[size:]
            (logits,) = session.run(["logits"], pack([sequences[i] for i in batch]))
            rows.update(zip(batch, logits, strict=True))
            bar.update(len(batch))
    return np.stack([rows[i] for i in range(len(sequences))])


def fp32_difference(
    model: Path, torch_model: DistilBertForSequenceClassification, vocabulary: int, limit: int
) -> float:
    """Largest absolute difference of a logit between torch and the fp32 graph, over sequences of
    random tokens of each length in LENGTHS up to `limit`, packed together and alone.

    Raises ParityError where it exceeds FP32_TOLERANCE.
    """
    random = np.random.default_rng(0)
    lengths = [length for length in LENGTHS if length < limit] + [limit]
    sequences = [random.integers(0, vocabulary, length).tolist() for length in lengths]
    with torch.inference_mode():
        expected = [torch_model(torch.tensor([ids])).logits[0].numpy() for ids in sequences]
    session = make_session(model)
    together = session.run(["logits"], pack(sequences))[0]
    worst = 0.0
    for ids, packed, reference in zip(sequences, together, expected, strict=True):
        alone = session.run(["logits"], pack([ids]))[0][0]
        difference = max(np.abs(packed - reference).max(), np.abs(alone - reference).max())
        # `not <=` rather than `>`, so that NaN is refused too.
        if not difference <= FP32_TOLERANCE:
            raise ParityError(
                f"the exported graph differs from torch by {difference:.1e} at {len(ids)} tokens "
                f"(allowed: {FP32_TOLERANCE:.0e}); nothing was written"
            )
        worst = max(worst, float(difference))
    return worst


def int8_disagreement(fp32: NDArray[np.float32], int8: NDArray[np.float32]) -> float:
    """Share of the texts on which logits [N, C] of both precisions name different labels.

    Raises ParityError where it exceeds INT8_DISAGREEMENT.
    """
    share = float((fp32.argmax(axis=1) != int8.argmax(axis=1)).mean())
    if not share <= INT8_DISAGREEMENT or not np.isfinite(int8).all():
        raise ParityError(
            f"int8 and fp32 disagree on {share:.2%} of {len(fp32)} calibration texts (allowed: "
            f"{INT8_DISAGREEMENT:.0%}); nothing was written: export with --precision fp32"
        )
    return share
