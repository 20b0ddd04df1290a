"""Holds an exported graph against what it came from: torch logits, length by length, and the labels
that int8 or fp16 gives to real texts against those of fp32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import DistilBertForSequenceClassification

from export.errors import ParityError
from export.op_library import OpLibrary, make_session
from export.packing import pack
from training.pattern import AttentionPattern
from training.pruned_model import pruning_of

FP32_TOLERANCE = 1e-4  # largest difference of a logit between torch and fp32 ONNX
NEAR_TIE_TOLERANCE = 1e-2  # the same where top-k may have met a near tie
DRAWS = 3
DISAGREEMENT = 0.01  # largest share of texts on which int8 or fp16 and fp32 name other labels
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 64, 65, 89, 128, 129, 144, 233, 256, 377, 512)
_PACK_TOKENS = 4096


def onnx_logits(
    model: Path,
    sequences: Sequence[Sequence[int]],
    *,
    progress: str | None = None,
    library: OpLibrary | None = None,
    precision: str = "fp32",
) -> NDArray[np.float32]:
    """Logits float32 [N, C] of token sequences, in their order, computed in packs of some 4,096
    tokens of texts of like length. `library`, `precision`: as for `make_session`."""
    session = make_session(model, library=library, precision=precision)
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
    model: Path,
    torch_model: DistilBertForSequenceClassification,
    pattern: AttentionPattern,
    vocabulary: int,
    limit: int,
) -> dict[str, float]:
    """Differences of the logits between torch and the fp32 graph, over sequences of random tokens
    of each length in LENGTHS up to `limit`, packed together and alone.

    `fp32_difference` is the largest over the lengths, of the median over DRAWS sequences of a
    length; `fp32_largest_difference` the largest of all. The two differ where top-k meets a near
    tie: two keys whose scores differ by rounding alone may change places, and one link more or less
    moves a logit by some 1e-5 to 1e-4. Blocks and pruned tokens, which are chosen by rank as well,
    may do the same. A graph that computes something else differs on every draw.

    Raises ParityError where the first (for models that choose nothing by rank: the second) exceeds
    FP32_TOLERANCE, or the second NEAR_TIE_TOLERANCE.
    """
    random = np.random.default_rng(0)
    lengths = [length for length in LENGTHS if length < limit] + [limit]
    session = make_session(model)
    differences = np.array(
        [
            _differences(
                session,
                torch_model,
                [random.integers(0, vocabulary, length).tolist() for length in lengths],
            )
            for _ in range(DRAWS)
        ]
    )  # [DRAWS, lengths]
    typical, largest = np.median(differences, axis=0), differences.max(axis=0)
    ranks = pattern.name in ("topk", "blocktopk") or pruning_of(torch_model) is not None
    judged = typical if ranks else largest
    for length, found, worst in zip(lengths, judged, largest, strict=True):
        # `not <=` rather than `>`, so that NaN is refused too.
        if not found <= FP32_TOLERANCE or not worst <= NEAR_TIE_TOLERANCE:
            raise ParityError(
                f"the exported graph differs from torch by {max(found, worst):.1e} at {length} "
                f"tokens (allowed: {FP32_TOLERANCE:.0e}); nothing was written"
            )
    return {
        "fp32_difference": float(typical.max()),
        "fp32_largest_difference": float(largest.max()),
    }


def _differences(
    session: onnxruntime.InferenceSession,
    torch_model: DistilBertForSequenceClassification,
    sequences: list[list[int]],
) -> list[float]:
    """The largest difference of a logit for each sequence, packed with the others or alone, as a
    share of its largest logit where that exceeds 1."""
    with torch.inference_mode():
        expected = [torch_model(torch.tensor([ids])).logits[0].numpy() for ids in sequences]
    together = session.run(["logits"], pack(sequences))[0]
    found = []
    for ids, packed, reference in zip(sequences, together, expected, strict=True):
        alone = session.run(["logits"], pack([ids]))[0][0]
        difference = np.abs(np.stack([packed, alone]) - reference).max()
        found.append(float(difference / max(1.0, np.abs(reference).max())))
    return found


def disagreement(
    fp32: NDArray[np.float32], found: NDArray[np.float32], precision: str, *, calibration: int
) -> dict[str, float]:
    """Share of texts on which logits [N, C] of fp32 and of `precision` name different labels: of
    the first `calibration` texts, and of the rest, where there is any.

    Raises ParityError where the first share exceeds DISAGREEMENT; one text may always differ, since
    fewer than a hundred cannot show a percent. And where a logit of any text is not finite.
    """
    broken = int((~np.isfinite(found)).any(axis=1).sum())
    if broken:  # what argmax makes of NaN may well be the right label
        raise ParityError(
            f"{precision} gives {broken} of {len(found)} texts logits that are not finite; nothing "
            "was written: export with --precision fp32"
        )
    differ = fp32.argmax(axis=1) != found.argmax(axis=1)
    share = float(differ[:calibration].mean())
    allowed = max(1, int(DISAGREEMENT * calibration))
    if int(differ[:calibration].sum()) > allowed:
        raise ParityError(
            f"{precision} and fp32 disagree on {share:.2%} of {calibration} calibration texts "
            f"(allowed: {DISAGREEMENT:.0%}); nothing was written: export with --precision fp32"
        )
    facts = {
        f"{precision}_disagreement": share,
        f"{precision}_calibration_texts": float(calibration),
    }
    if len(differ) > calibration:
        facts[f"{precision}_disagreement_held_out"] = float(differ[calibration:].mean())
        facts[f"{precision}_held_out_texts"] = float(len(differ) - calibration)
    return facts
