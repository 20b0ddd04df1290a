"""Real texts as token ids, for calibrating a peer and for measuring accuracy.

encode = encoder(folder)
encode(["A warm, funny film."])               # [[101, 1037, 4010, ...]]
calibration_texts(encode, [])                 # token ids of the sentences of examples/, and longer
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from export.bench.workloads import IMDB
from export.errors import ModelFolderError
from export.manifest import ModelFolder
from training.data import LabelledTexts, read_examples

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "train.tsv"
LONGER_TEXTS = 36  # made of the examples' 64 sentences: 100 in all
CALIBRATION_TEXTS = 300  # of a file, at most; what NNCF takes by default

Encode = Callable[[Sequence[str]], list[list[int]]]


def encoder(folder: ModelFolder) -> Encode:
    """A function from texts to token ids, special tokens included, cut at the model's limit.

    Raises ModelFolderError where the tokenizer cannot be read.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder.tokenizer))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelFolderError(f"{folder.tokenizer} is no tokenizer: {error}") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(folder.manifest.max_tokens)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]

    return encode


def calibration_texts(
    encode: Encode, given: Sequence[LabelledTexts], *, seed: int = 0
) -> tuple[list[list[int]], str]:
    """Token ids of texts to calibrate on, and where they come from in words.

    Of those that are given, at most CALIBRATION_TEXTS, evenly spaced; where there are none, the
    sentences of examples/, and LONGER_TEXTS made of them, in random order, as long as reviews.
    Labels are not looked at.
    """
    if given:
        texts = [example.text for some in given for example in some.examples]
        texts = texts[:: -(-len(texts) // CALIBRATION_TEXTS)]
        return encode(texts), f"{len(texts)} texts of {', '.join(some.name for some in given)}"
    sentences = [example.text for example in read_examples(EXAMPLES).examples]
    random = np.random.default_rng(seed)
    longer = []
    for length in IMDB.draw(LONGER_TEXTS, random):
        text = ""
        while len(text.split()) < length:
            text += f"{sentences[random.integers(len(sentences))]} "
        longer.append(text)
    found = (
        f"{len(sentences)} sentences of examples/train.tsv and {LONGER_TEXTS} texts made of them"
    )
    return encode([*sentences, *longer]), found
