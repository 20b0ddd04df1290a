"""The texts that a load test sends: endless, seeded streams, generated or out of a file.

Generated texts are English words in random order: what they say does not matter for speed, how
long they are does. Their lengths in words (separated by white space) follow

- `sst`: the sentences of SST-2 (Socher et al. 2013). A normal distribution, redrawn outside 2..52,
  with the mean 19.5 and standard deviation 8.8 of the 872 sentences of GLUE's dev split.
- `imdb`: the reviews of the Large Movie Review Dataset (Maas et al. 2011). A log-normal
  distribution with median 174 and mean 234, as commonly reported for it, redrawn outside 10..2470.
- `mixed`: four sentences to one review.

    take = itertools.islice(generated_texts("sst", seed=0), 3)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from math import log, sqrt
from pathlib import Path
from random import Random

from loadtests.errors import LoadTestError
from loadtests.vocabulary import CONTENT_WORDS, FUNCTION_WORDS

WORKLOADS = ("sst", "imdb", "mixed")

# What is left of this normal distribution within 2..52 has the mean and deviation of SST-2.
_SENTENCE_MEAN, _SENTENCE_DEVIATION = 18.8, 9.5
# A log-normal of median m and mean a has sigma = sqrt(2 ln(a / m)).
_REVIEW_MU, _REVIEW_SIGMA = log(174), sqrt(2 * log(234 / 174))
_REVIEW_SHARE = 0.2

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
    return _stream(workload, Random(f"{workload} {seed}"))


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


def _stream(workload: str, random: Random) -> Iterator[str]:
    while True:
        yield _text(_words_in_text(workload, random), random)


def _shuffled(texts: list[str], random: Random) -> Iterator[str]:
    while True:
        yield from random.sample(texts, len(texts))


def _words_in_text(workload: str, random: Random) -> int:
    if workload == "imdb" or (workload == "mixed" and random.random() < _REVIEW_SHARE):
        return _redrawn(lambda: random.lognormvariate(_REVIEW_MU, _REVIEW_SIGMA), 10, 2470)
    return _redrawn(lambda: random.normalvariate(_SENTENCE_MEAN, _SENTENCE_DEVIATION), 2, 52)


def _redrawn(draw: Callable[[], float], low: int, high: int) -> int:
    while not low <= (length := round(draw())) <= high:
        pass
    return length


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
