"""The texts that a load test sends: endless, seeded streams, generated or out of a file.

Generated texts are English words in random order: what they say does not matter for speed, how
long they are does, and that a tokenizer finds words in them. Their lengths in words (separated by
white space) are drawn from the quantiles of real texts, straight lines in between:

- `sst`: the 872 sentences of SST-2's dev split (Socher et al. 2013), mean 19.5 words;
- `imdb`: the 1,952 reviews of the Large Movie Review Dataset (Maas et al. 2011) that Kaushik et al.
  2020 chose, mean 162 words; the full set has longer ones too;
- `mixed`: four sentences to one review.

    take = itertools.islice(generated_texts("sst", seed=0), 3)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random

from loadtests.errors import LoadTestError
from loadtests.vocabulary import CONTENT_WORDS, FUNCTION_WORDS

WORKLOADS = ("sst", "imdb", "mixed")

# Words of the shortest text, of each further twentieth of the texts, and of the longest.
_SENTENCES = (2, 6, 9, 10, 11, 13, 14, 15, 16, 18, 19, 20, 21, 23, 24, 26, 27, 29, 32, 35, 47)
_REVIEWS = (
    *(14, 58, 81, 98, 111, 117, 124, 129, 137, 144, 150),
    *(159, 168, 178, 189, 203, 222, 240, 261, 290, 330),
)
_REVIEW_SHARE = {"sst": 0.0, "imdb": 1.0, "mixed": 0.2}

# The n-th most frequent word of a language is about 1/n as frequent as the first (Zipf).
_FUNCTION_WEIGHTS = list(accumulate(1 / rank for rank in range(1, len(FUNCTION_WORDS) + 1)))
_FUNCTION_SHARE = 0.45
_COMMA_SHARE = 0.06


def generated_texts(workload: str, seed: int | str) -> Iterator[str]:
    """An endless stream of texts, the same for the same workload and seed.

    Raises LoadTestError where the workload is unknown.
    """
    if workload not in WORKLOADS:
        raise LoadTestError(f"unknown workload {workload!r}; known: {', '.join(WORKLOADS)}")
    return _stream(_REVIEW_SHARE[workload], Random(f"{workload} {seed}"))


def texts_of_file(path: Path, seed: int | str) -> Iterator[str]:
    """An endless stream of the lines of a file, in a seeded order that changes with each pass."""
    return _shuffled(read_texts(path), Random(f"file {seed}"))


def read_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 file, a text each; blank lines are skipped.

    Raises LoadTestError where the file is missing, not UTF-8, or has no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadTestError(
            f"cannot read the texts of {path}: {error.strerror}; expected a file, a text each line"
        ) from None
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise LoadTestError(
            f"{path} is not UTF-8: line {line} has the byte 0x{content[error.start]:02x}; "
            "convert it first, e.g. with iconv"
        ) from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise LoadTestError(f"{path} has no texts; expected one each line")
    return texts


def _stream(review_share: float, random: Random) -> Iterator[str]:
    while True:
        lengths = _REVIEWS if random.random() < review_share else _SENTENCES
        yield _text(_drawn(lengths, random), random)


def _shuffled(texts: list[str], random: Random) -> Iterator[str]:
    while True:
        yield from random.sample(texts, len(texts))


def _drawn(quantiles: tuple[int, ...], random: Random) -> int:
    """A length whose distribution has these equally spaced quantiles."""
    place = random.random() * (len(quantiles) - 1)
    low, high = quantiles[int(place)], quantiles[int(place) + 1]
    return round(low + (place % 1) * (high - low))


def _text(length: int, random: Random) -> str:
    """`length` words in sentences of 8 to 30, each with a capital, some commas and a full stop."""
    words: list[str] = []
    while len(words) < length:
        sentence = [_word(random) for _ in range(min(random.randint(8, 30), length - len(words)))]
        for i in range(len(sentence) - 1):
            if random.random() < _COMMA_SHARE:
                sentence[i] += ","
        sentence[0] = sentence[0].capitalize()
        sentence[-1] += random.choice("...!?")
        words += sentence
    return " ".join(words)


def _word(random: Random) -> str:
    if random.random() < _FUNCTION_SHARE:
        return random.choices(FUNCTION_WORDS, cum_weights=_FUNCTION_WEIGHTS)[0]
    return random.choice(CONTENT_WORDS)
