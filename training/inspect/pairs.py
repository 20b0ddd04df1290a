"""Counterfactual pairs: texts and their edits, whose label should turn. Does the model's?

The two files need not be in the same order: each edit is given to the text that it shares most
words with. Source of the test: Kaushik et al. 2020, arXiv 1909.12434.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from training.errors import RunError
from training.statistics import wilson_interval

_MOST = 10**8  # pairs, of which each takes 24 bytes
LEAST_SHARED = 0.3  # of the words of both together; below it, two texts are no pair


@dataclass(frozen=True)
class PairOutcomes:
    """How a model fares on pairs of a text and its edit. Counts of pairs."""

    pairs: int
    should_flip: int  # whose labels differ
    flipped: int  # of those: the prediction changes
    both_right: int  # of those: right about both
    should_stay: int  # whose labels agree
    stayed: int  # of those: the prediction does not change

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"pairs": self.pairs}
        for name, count, of in (
            ("flipped", self.flipped, self.should_flip),
            ("both_right", self.both_right, self.should_flip),
            ("stayed", self.stayed, self.should_stay),
        ):
            if of:
                interval = wilson_interval(count, of).to_dict()
                found[name] = {"share": count / of, "count": count, "of": of} | interval
        return found


def match(texts: Sequence[str], edits: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs (text, edit) of one-to-one matching that share most words, ascending by text.

    What shares less than LEAST_SHARED of its words with its match is left out. Raises RunError
    where there are too many to compare each with each.
    """
    if len(texts) * len(edits) > _MOST:
        raise RunError(
            f"{len(texts):,} texts and {len(edits):,} edits are too many to be compared each with "
            f"each: give at most {math.isqrt(_MOST):,} of both"
        )
    words = [_words(text) for text in (*texts, *edits)]
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*words)))}
    columns = [vocabulary[word] for each in words for word in sorted(each)]
    bounds = np.cumsum([0, *(len(each) for each in words)])
    table = csr_array(
        (np.ones(len(columns)), columns, bounds), shape=(len(words), max(1, len(vocabulary)))
    )
    shared = (table[: len(texts)] @ table[len(texts) :].T).toarray()
    sizes = np.array([len(each) for each in words], dtype=np.float64)
    together = sizes[: len(texts), None] + sizes[None, len(texts) :] - shared
    similarity = shared / np.maximum(together, 1)
    rows, columns_of = linear_sum_assignment(similarity, maximize=True)
    return [
        (int(i), int(j))
        for i, j in zip(rows, columns_of, strict=True)
        if similarity[i, j] >= LEAST_SHARED
    ]


def outcomes(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    edited_labels: NDArray[np.int64],
    edited_predicted: NDArray[np.int64],
) -> PairOutcomes:
    """Counts of paired texts, int64 [P] each."""
    flip = labels != edited_labels
    changed = predicted != edited_predicted
    right = (predicted == labels) & (edited_predicted == edited_labels)
    return PairOutcomes(
        pairs=len(labels),
        should_flip=int(flip.sum()),
        flipped=int((flip & changed).sum()),
        both_right=int((flip & right).sum()),
        should_stay=int((~flip).sum()),
        stayed=int((~flip & ~changed).sum()),
    )


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
