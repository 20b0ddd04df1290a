"""TokenPruning: exact arithmetic, what it promises of every length, one clear line for each
schedule that makes no sense."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import PruningError, TrainingError
from training.pruning import TokenPruning

lengths = st.integers(1, 20_000)
shares = st.integers(1, 1_000_000).map(lambda millionths: millionths / 1_000_000)
schedules = st.builds(
    lambda keep, floor: TokenPruning(tuple(sorted(keep, reverse=True)), floor),
    st.lists(shares, max_size=8),
    st.integers(1, 600),
)


@given(schedules, lengths)
def test_a_layer_keeps_exactly_the_rounded_up_share(pruning: TokenPruning, length: int) -> None:
    for layer, share in enumerate(pruning.keep):
        above = max(0, length - pruning.floor)
        # The decimal that a person wrote, not the binary float nearest to it.
        expected = min(length, pruning.floor) + math.ceil(Fraction(repr(share)) * above)
        assert pruning.kept(layer, length) == expected


def test_it_is_exact_where_floats_are_not() -> None:
    assert math.ceil(0.07 * 100) == 8  # one too many
    assert TokenPruning((0.07,), floor=1).kept(0, 101) == 1 + 7


@given(schedules, lengths)
def test_no_layer_keeps_none_more_than_before_or_more_of_a_shorter_text(
    pruning: TokenPruning, length: int
) -> None:
    before = length
    for layer in range(len(pruning.keep)):
        kept = pruning.kept(layer, length)
        assert min(length, pruning.floor) <= kept <= before
        assert kept <= pruning.kept(layer, length + 1) <= kept + 1
        before = kept


@given(st.lists(st.just(1.0), max_size=5), st.integers(1, 99), lengths)
def test_shares_of_one_drop_nothing(keep: list[float], floor: int, length: int) -> None:
    pruning = TokenPruning(tuple(keep), floor)
    assert all(pruning.kept(layer, length) == length for layer in range(len(keep)))


@given(schedules)
def test_it_survives_its_way_through_json(pruning: TokenPruning) -> None:
    assert TokenPruning.from_dict(json.loads(json.dumps(pruning.to_dict()))) == pruning


@given(schedules.filter(lambda pruning: bool(pruning.keep)))
def test_it_is_parsed_as_it_is_typed(pruning: TokenPruning) -> None:
    typed = ", ".join(str(share) for share in pruning.keep)
    assert TokenPruning.parse(typed, pruning.floor) == pruning


def test_it_reads_as_its_numbers() -> None:
    assert str(TokenPruning((0.9, 0.5), floor=24)) == "keep 0.9, 0.5; floor 24"


@pytest.mark.parametrize(
    ("keep", "floor", "complaint"),
    [
        ((0.5, 0.0), 16, r"after layer 1 must lie in \(0, 1\], got 0.0 .*keeps no token"),
        ((-0.5,), 16, r"after layer 0 must lie in \(0, 1\], got -0.5"),
        ((1.1,), 16, r"after layer 0 must lie in \(0, 1\], got 1.1"),
        ((1e-7,), 16, "the finest is 1e-06"),
        ((math.nan,), 16, r"must lie in \(0, 1\], got nan"),
        ((0.5, 0.6), 16, "cannot come back: after layer 1 0.6 would be kept, after layer 0 0.5"),
        ((0.5,), 0, "floor must be at least 1 token, got 0"),
    ],
)
def test_wrong_numbers(keep: tuple[float, ...], floor: int, complaint: str) -> None:
    with pytest.raises(PruningError, match=complaint):
        TokenPruning(keep, floor)


@given(schedules, st.integers(1, 12))
def test_it_fits_models_of_one_more_layer_alone(pruning: TokenPruning, layers: int) -> None:
    if layers == len(pruning.keep) + 1:
        pruning.require_layers(layers)
    else:
        with pytest.raises(TrainingError, match=f"needs {layers - 1} shares .*, got"):
            pruning.require_layers(layers)


def test_wrong_fields_and_spellings() -> None:
    with pytest.raises(PruningError, match="unknown pruning fields: rate"):
        TokenPruning.from_dict({"keep": [0.5], "rate": 1})
    with pytest.raises(PruningError, match="needs the field keep"):
        TokenPruning.from_dict({"floor": 4})
    with pytest.raises(PruningError, match=r"expected shares with commas .*, got '0\.9;0\.8'"):
        TokenPruning.parse("0.9;0.8", 16)
