"""Streams of texts: the same for the same seed, of the lengths that they promise."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from statistics import mean, quantiles, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.errors import LoadTestError
from loadtests.vocabulary import CONTENT_WORDS, FUNCTION_WORDS
from loadtests.workloads import WORKLOADS, generated_texts, read_texts, texts_of_file

workloads = st.sampled_from(WORKLOADS)


def lengths(workload: str, number: int = 3000) -> list[int]:
    return [len(text.split()) for text in islice(generated_texts(workload, 0), number)]


@given(workload=workloads, seed=st.integers())
def test_the_same_seed_gives_the_same_texts(workload: str, seed: int) -> None:
    first, second = (list(islice(generated_texts(workload, seed), 5)) for _ in range(2))
    assert first == second


@given(workload=workloads, seed=st.integers(0, 10_000))
def test_another_seed_gives_other_texts(workload: str, seed: int) -> None:
    first, second = (list(islice(generated_texts(workload, s), 5)) for s in (seed, seed + 1))
    assert first != second


@given(workload=workloads, seed=st.integers())
def test_texts_are_words_of_the_vocabulary_within_the_length_bounds(
    workload: str, seed: int
) -> None:
    known = {*FUNCTION_WORDS, *CONTENT_WORDS}
    low, high = {"sst": (2, 47), "imdb": (14, 330), "mixed": (2, 330)}[workload]
    for text in islice(generated_texts(workload, seed), 5):
        words = text.split()
        assert low <= len(words) <= high
        assert {word.strip(",.!?").lower() for word in words} <= known
        assert text[0].isupper()
        assert text[-1] in ".!?"


def test_sst_lengths_are_those_of_the_sentences_of_sst2() -> None:
    found = lengths("sst")
    assert mean(found) == pytest.approx(19.5, abs=0.5)
    assert stdev(found) == pytest.approx(8.8, abs=0.5)
    assert quantiles(found, n=4) == pytest.approx([13, 19, 26], abs=1)


def test_imdb_lengths_are_those_of_the_reviews_of_imdb() -> None:
    found = lengths("imdb", 1500)
    assert mean(found) == pytest.approx(162, rel=0.04)
    assert quantiles(found, n=4) == pytest.approx([117, 150, 203], rel=0.08)


def test_one_text_in_five_of_the_mix_is_a_review() -> None:
    found = lengths("mixed", 1500)
    assert mean(length > 47 for length in found) == pytest.approx(0.2, abs=0.04)


def test_an_unknown_workload_is_refused() -> None:
    with pytest.raises(LoadTestError, match="unknown workload 'tweets'; known: sst, imdb, mixed"):
        generated_texts("tweets", 0)


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1))
def test_each_pass_over_a_file_gives_each_text_once(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n\n".join(texts), encoding="utf-8")
    stream = texts_of_file(path, seed=1)
    assert sorted(islice(stream, len(texts))) == sorted(texts)
    assert sorted(islice(stream, len(texts))) == sorted(texts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no texts"),
        (b" \n\t\n", "has no texts"),
        (b"fine\ncaf\xe9\n", "not UTF-8: line 2 has the byte 0xe9"),
    ],
)
def test_a_file_without_readable_texts_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    with pytest.raises(LoadTestError, match=message):
        read_texts(path)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.txt"):
        with pytest.raises(LoadTestError, match="cannot read the texts of"):
            read_texts(path)
