"""AttentionPattern: exact arithmetic, round trips, and one clear line for each wrong number."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import PatternError, TrainingError
from training.pattern import AttentionPattern

lengths = st.integers(1, 4096)
# As a person writes them: up to six decimal places.
densities = st.integers(1, 1_000_000).map(lambda millionths: millionths / 1_000_000)
counts = st.integers(1, 10_000)
global_tokens = st.none() | st.integers(0, 100)

patterns = st.one_of(
    st.just(AttentionPattern()),
    densities.map(lambda density: AttentionPattern("topk", density=density)),
    counts.map(lambda k: AttentionPattern("topk", k=k)),
    st.builds(
        lambda half, tokens: AttentionPattern("band", window=2 * half + 1, globals=tokens),
        st.integers(0, 500),
        global_tokens,
    ),
    st.builds(
        lambda size, tokens: AttentionPattern("block", size=size, globals=tokens),
        counts,
        global_tokens,
    ),
    st.builds(
        lambda size, density: AttentionPattern("blocktopk", size=size, density=density),
        counts,
        densities,
    ),
    st.builds(lambda k: AttentionPattern("bottomk", k=k), counts),
    st.builds(lambda density: AttentionPattern("random", density=density), densities),
)


@given(densities, lengths)
def test_topk_keeps_exactly_the_rounded_up_share(density: float, length: int) -> None:
    # The decimal that a person wrote, not the binary float nearest to it.
    exact = Fraction(repr(density)) * length
    assert AttentionPattern("topk", density=density).kept(length) == max(1, math.ceil(exact))


def test_topk_is_exact_where_floats_are_not() -> None:
    # 0.1 * 30 and 0.07 * 100 exceed 3 and 7 in floats, so that a ceiling of them is one too many.
    assert math.ceil(0.1 * 30) == 4 or math.ceil(0.07 * 100) == 8
    assert AttentionPattern("topk", density=0.1).kept(30) == 3
    assert AttentionPattern("topk", density=0.07).kept(100) == 7
    assert AttentionPattern("topk", density=0.05).kept(20) == 1
    assert AttentionPattern("topk", density=0.2).kept(25) == 5
    assert AttentionPattern("topk", density=0.2).kept(26) == 6


@given(densities, lengths)
def test_topk_keeps_some_and_never_more_than_there_are(density: float, length: int) -> None:
    pattern = AttentionPattern("topk", density=density)
    assert 1 <= pattern.kept(length) <= length
    assert pattern.kept(length) <= pattern.kept(length + 1) <= pattern.kept(length) + 1


@given(densities)
def test_the_ratio_is_the_density_in_lowest_terms(density: float) -> None:
    num, den = AttentionPattern("topk", density=density).density_ratio
    assert Fraction(num, den) == Fraction(repr(density))
    assert math.gcd(num, den) == 1
    assert den <= 1_000_000


@given(lengths)
def test_density_one_keeps_all(length: int) -> None:
    assert AttentionPattern("topk", density=1.0).kept(length) == length


@given(counts, lengths)
def test_topk_by_k_keeps_k_where_there_are_so_many(k: int, length: int) -> None:
    assert AttentionPattern("topk", k=k).kept(length) == min(k, length)


@given(counts, densities, lengths)
def test_blocktopk_keeps_the_rounded_up_share_of_blocks(
    size: int, density: float, length: int
) -> None:
    pattern = AttentionPattern("blocktopk", size=size, density=density)
    blocks = math.ceil(Fraction(length, size))
    assert pattern.blocks(length) == blocks
    assert pattern.kept_blocks(length) == max(1, math.ceil(Fraction(repr(density)) * blocks))


@given(counts, counts, lengths)
def test_blocktopk_by_k_keeps_k_blocks_where_there_are_so_many(
    size: int, k: int, length: int
) -> None:
    pattern = AttentionPattern("blocktopk", size=size, k=k)
    assert pattern.kept_blocks(length) == min(k, math.ceil(Fraction(length, size)))


def test_only_blocks_are_counted_as_blocks() -> None:
    with pytest.raises(PatternError, match="has no blocks"):
        AttentionPattern("topk", k=1).blocks(10)
    with pytest.raises(PatternError, match="chooses no blocks"):
        AttentionPattern("block", size=2).kept_blocks(10)


@pytest.mark.parametrize(
    "pattern",
    [AttentionPattern(), AttentionPattern("band", window=3), AttentionPattern("block", size=4)],
)
def test_only_topk_has_a_number_of_kept_keys(pattern: AttentionPattern) -> None:
    with pytest.raises(PatternError, match="no fixed number"):
        pattern.kept(10)


@given(patterns)
def test_a_pattern_survives_its_way_through_json(pattern: AttentionPattern) -> None:
    fields = json.loads(json.dumps(pattern.to_dict()))
    assert AttentionPattern.from_dict(fields) == pattern
    assert None not in fields.values()
    assert fields["name"] == pattern.name


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (AttentionPattern(), "dense"),
        (AttentionPattern("topk", density=0.2), "topk(density=0.2)"),
        (AttentionPattern("band", window=5, globals=1), "band(window=5, globals=1)"),
    ],
)
def test_a_pattern_reads_as_its_name_and_numbers(pattern: AttentionPattern, text: str) -> None:
    assert str(pattern) == text


@given(patterns)
def test_global_tokens_default_to_none(pattern: AttentionPattern) -> None:
    assert pattern.global_tokens == (pattern.globals or 0) >= 0


@pytest.mark.parametrize(
    ("name", "numbers", "complaint"),
    [
        (
            "sparse",
            {},
            "unknown attention pattern 'sparse'; known: dense, topk, band, block, blocktopk",
        ),
        ("dense", {"k": 3}, "takes no 'k'"),
        ("band", {"window": 3, "size": 2}, "takes no 'size'"),
        ("topk", {}, "exactly one of density and k"),
        ("topk", {"density": 0.5, "k": 3}, "exactly one of density and k"),
        ("blocktopk", {"size": 8}, "exactly one of density and k"),
        ("blocktopk", {"density": 0.2}, "blocktopk needs a size of at least 1, got None"),
        ("blocktopk", {"size": 0, "k": 1}, "blocktopk needs a size of at least 1, got 0"),
        ("blocktopk", {"size": 8, "density": 1.5}, "density must lie in .0, 1., got 1.5"),
        ("blocktopk", {"size": 8, "k": 1, "globals": 1}, "takes no 'globals'"),
        ("topk", {"density": 0.0}, "density must lie in .0, 1., got 0.0"),
        ("topk", {"density": -0.1}, "density must lie"),
        ("topk", {"density": 1.5}, "density must lie"),
        ("topk", {"density": math.nan}, "density must lie"),
        ("topk", {"density": math.inf}, "density must lie"),
        ("topk", {"k": 0}, "k must be at least 1, got 0"),
        ("band", {}, "odd window of at least 1, got None"),
        ("band", {"window": 4}, "odd window of at least 1, got 4"),
        ("band", {"window": -1}, "odd window"),
        ("band", {"window": 3, "globals": -1}, "globals must not be negative, got -1"),
        ("block", {}, "size of at least 1, got None"),
        ("block", {"size": 0}, "size of at least 1, got 0"),
    ],
)
def test_a_wrong_number_is_refused(name: str, numbers: dict[str, float], complaint: str) -> None:
    with pytest.raises(PatternError, match=complaint) as caught:
        AttentionPattern.from_dict({"name": name, **numbers})
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TrainingError)


def test_unknown_fields_are_named() -> None:
    with pytest.raises(PatternError, match="unknown pattern fields: depth, width"):
        AttentionPattern.from_dict({"name": "dense", "width": 3, "depth": 2})


def test_a_pattern_cannot_change_after_its_check() -> None:
    pattern = AttentionPattern("topk", density=0.2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        pattern.density = 2.0  # type: ignore[misc]
