"""How far the labels of int8 or fp16 may be from those of fp32: hand-made logits, at the limits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from export.errors import ParityError
from export.parity import disagreement


def logits(texts: int, flipped: range = range(0), *, scale: float = 1.0) -> NDArray[np.float32]:
    """Logits [texts, 2] that name the labels 1, 0, 1, 0, ..., but for those `flipped`."""
    labels = np.arange(1, texts + 1) % 2
    labels[list(flipped)] ^= 1
    return (scale * np.eye(2, dtype=np.float32)[labels]).astype(np.float32)


@pytest.mark.parametrize(
    ("texts", "allowed"), [(300, 3), (399, 3), (400, 4), (199, 1), (100, 1), (50, 1), (1, 1)]
)
def test_one_text_of_a_hundred_may_differ(texts: int, allowed: int) -> None:
    # Other logits, the same labels: it is these that are compared.
    fp32 = logits(texts, scale=0.1)
    found = disagreement(fp32, logits(texts, range(allowed)), "int8", calibration=texts)
    assert found == {
        "int8_disagreement": pytest.approx(allowed / texts),
        "int8_calibration_texts": texts,
    }
    if texts > allowed:
        share = rf"{100 * (allowed + 1) / texts:.2f}%"
        with pytest.raises(ParityError, match=rf"int8 .* on {share} of {texts} .*allowed: 1%"):
            disagreement(fp32, logits(texts, range(allowed + 1)), "int8", calibration=texts)


def test_other_texts_than_those_of_calibration_are_reported_only() -> None:
    fp32 = logits(350)
    found = disagreement(fp32, logits(350, range(298, 340)), "fp16", calibration=300)
    assert found == {
        "fp16_disagreement": pytest.approx(2 / 300),
        "fp16_calibration_texts": 300,
        "fp16_disagreement_held_out": pytest.approx(40 / 50),
        "fp16_held_out_texts": 50,
    }
    # Two more are too many where they are texts of calibration, however many others agree.
    with pytest.raises(ParityError, match=r"1\.33% of 300 calibration texts"):
        disagreement(fp32, logits(350, range(296, 300)), "fp16", calibration=300)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("text", [7, 320], ids=["of calibration", "held out"])
def test_one_logit_that_is_not_finite_is_refused(value: float, text: int) -> None:
    found = logits(350)
    found[text, found[text].argmax() if value > 0 else found[text].argmin()] = value
    with pytest.raises(ParityError, match="int8 gives 1 of 350 texts logits that are not finite"):
        disagreement(logits(350), found, "int8", calibration=300)
