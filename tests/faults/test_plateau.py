"""The judgement of `soak.py`: it sees leaks, and takes nothing else for one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plateau import growth, leaks, smallest_leak

MIB = 2.0**20
LOOKS = st.integers(60, 900)
SEEDS = st.integers(0, 2**32)


def series(looks: int, seed: int, leak: float = 0.0, noise: float = 4 * MIB) -> list[float]:
    """So many looks at 300 MiB that come and go a little, and grow by `leak` bytes each time."""
    draw = random.Random(seed)
    return [300 * MIB + leak * i + draw.uniform(-noise, noise) for i in range(looks)]


@given(looks=LOOKS, seed=SEEDS)
def test_what_comes_and_goes_is_no_leak(looks: int, seed: int) -> None:
    assert not leaks(series(looks, seed), 2)


@given(looks=LOOKS, seed=SEEDS, times=st.floats(2, 50))
def test_a_leak_is_seen(looks: int, seed: int, times: float) -> None:
    """Twice what is allowed or more, in that noise."""
    leak = times * 0.02 * 300 * MIB / (looks / 3)
    assert leaks(series(looks, seed, leak), 2)


@given(looks=LOOKS, seed=SEEDS, every=st.integers(2, 12))
def test_a_leak_in_steps_is_seen(looks: int, seed: int, every: int) -> None:
    """As an allocator that takes more whenever what it has is full."""
    leak = 3 * 0.02 * 300 * MIB / (looks / 3)
    samples = [s + leak * (i - i % every) for i, s in enumerate(series(looks, seed))]
    assert leaks(samples, 2)


@given(looks=LOOKS, seed=SEEDS, steps=st.lists(st.floats(0, 0.32), max_size=9))
def test_what_is_allocated_once_in_the_first_third_is_no_leak(
    looks: int, seed: int, steps: list[float]
) -> None:
    samples = [
        sample + sum(20 * MIB for step in steps if i >= step * looks)
        for i, sample in enumerate(series(looks, seed))
    ]
    assert not leaks(samples, 2)


def test_what_is_allocated_late_is_told_from_nothing() -> None:
    flat = [300 * MIB] * 90
    assert growth(flat) == 0
    assert growth([*flat[:60], *(310 * MIB for _ in range(30))]) == 10 * MIB
    with pytest.raises(ValueError, match="at least 3"):
        growth([1.0, 2.0])


def test_the_smallest_leak_that_it_would_have_seen() -> None:
    requests, looks = 30_000, 300
    found = smallest_leak(series(looks, 0, noise=0), 2, requests)
    each_look = found * requests / looks
    assert leaks(series(looks, 0, 1.1 * each_look, noise=0), 2)
    assert not leaks(series(looks, 0, 0.9 * each_look, noise=0), 2)
