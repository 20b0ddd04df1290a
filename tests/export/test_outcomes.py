"""Whether a model folder tells each text right: of every precision, on a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench_models import classifier, write_folder

from export.outcomes import outcomes
from training.data import read_examples
from training.pattern import AttentionPattern

DEV = Path(__file__).parents[2] / "examples" / "dev.tsv"


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_the_outcomes_are_those_of_torch(precision: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", classifier(), AttentionPattern("dense"), precision)
    texts = read_examples(DEV)
    expected = outcomes(
        write_folder(tmp_path / "fp32", classifier(), AttentionPattern("dense")), texts
    )
    found = outcomes(folder, texts)
    assert found.shape == (len(texts),)
    assert np.count_nonzero(found != expected) <= 1
