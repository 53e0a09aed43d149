"""Health tests of random bits: cut-offs of the standard, sound sources pass at the stated rate, broken ones fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.selftest import health

SEEDS = st.integers(min_value=0, max_value=2**32 - 1)


def bits(seed: int, count: int, p_one: float = 0.5) -> health.Samples:
    return (np.random.default_rng(seed).random(count) < p_one).astype(np.uint8)


@pytest.mark.parametrize(
    ("h", "alpha", "cutoff"),
    [(1.0, 2.0**-20, 21), (1.0, 2.0**-30, 31), (2.0, 2.0**-30, 16), (8.0, 2.0**-20, 4), (0.5, 2.0**-20, 41)],
)
def test_repetition_cutoffs_of_the_standard(h: float, alpha: float, cutoff: int) -> None:
    """SP 800-90B, 4.4.1: H 1 and alpha 2^-20 give 21; H 2 and 2^-30 give 16."""
    assert health.repetition_cutoff(h, alpha) == cutoff


@pytest.mark.parametrize(
    ("h", "window", "cutoff"),
    [(0.2, 512, 491), (0.4, 512, 430), (0.6, 512, 372), (0.8, 512, 325), (1.0, 512, 311), (1.0, 1024, 589)],
)
def test_proportion_cutoffs(h: float, window: int, cutoff: int) -> None:
    """SP 800-90B, 4.4.2, alpha 2^-20: 1 + critbinom(W, 2^-H, 1 - alpha); 589 is the standard's for H 1, W 1024."""
    exact = exact_cutoff(2.0**-h, window, 2.0**-20)
    assert health.proportion_cutoff(h, window, 2.0**-20) == exact
    if (h, window) in ((1.0, 1024), (1.0, 512)):
        assert exact == cutoff


def exact_cutoff(p: float, window: int, alpha: float) -> int:
    """From below, term by term: the smallest k with P(X <= k) >= 1 - alpha, plus 1."""
    total, k = 0.0, -1
    while total < 1.0 - alpha:
        k += 1
        total += math.comb(window, k) * p**k * (1.0 - p) ** (window - k)
    return 1 + k


def test_no_entropy_is_no_source() -> None:
    with pytest.raises(ValueError, match="positive"):
        health.repetition_cutoff(0.0)
    for p in (0.0, 1.0):
        with pytest.raises(ValueError, match="no random bit"):
            health.min_entropy(p)


@given(SEEDS, st.sampled_from([0.5, 0.25, 0.75, 0.05]))
@settings(max_examples=40, deadline=None)
def test_sound_sources_pass(seed: int, p_one: float) -> None:
    assert health.health(bits(seed, 1 << 15, p_one), health.min_entropy(p_one)).ok


@given(SEEDS, st.sampled_from([0, 1]))
@settings(max_examples=20, deadline=None)
def test_a_stuck_source_fails(seed: int, value: int) -> None:
    stream = bits(seed, 1 << 14)
    stream[5000:5060] = value
    found = health.health(stream, 1.0)
    assert found.run >= 60
    assert not found.ok


@given(SEEDS, st.floats(min_value=0.68, max_value=1.0))
@settings(max_examples=20, deadline=None)
def test_a_biased_source_fails(seed: int, p_one: float) -> None:
    found = health.health(bits(seed, 1 << 16, p_one), 1.0)
    assert found.proportion >= found.proportion_cutoff


def test_the_stated_rate_is_kept() -> None:
    """With a mild alpha the share of sound windows that fail is at most alpha, and not far below it."""
    alpha, windows = 0.01, 4000
    cutoff = health.proportion_cutoff(1.0, 1024, alpha)
    streams = bits(5, 1024 * windows).reshape(windows, 1024)
    failed = sum(health.highest_proportion(s) >= cutoff for s in streams)
    # The first value itself is counted, which the standard's formula does not mind: it adds half a count to 512.
    assert 0.3 * alpha < failed / windows < 1.6 * alpha
    runs = sum(health.longest_run(s[:8]) >= health.repetition_cutoff(1.0, 2.0**-7) for s in streams)
    assert runs / windows == pytest.approx(2.0**-7, rel=0.5)


def test_runs_and_proportions_by_hand() -> None:
    assert health.longest_run(np.array([], np.uint8)) == 0
    assert health.longest_run(np.array([1, 1, 0, 0, 0, 1], np.uint8)) == 3
    assert health.highest_proportion(np.array([1, 0, 1, 1, 0, 0, 0, 0], np.uint8), 4) == 4
    assert health.highest_proportion(np.array([1, 0, 1], np.uint8), 4) == 0


@pytest.mark.parametrize(("x", "freedom", "tail"), [(3.841, 1, 0.05), (14.067, 7, 0.05), (18.307, 10, 0.05)])
def test_chi_square_against_tables(x: float, freedom: int, tail: float) -> None:
    assert health.chi_square_tail(x, freedom) == pytest.approx(tail, rel=2e-3)
    assert health.chi_square_cutoff(freedom, tail) == pytest.approx(x, rel=1e-3)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_chi_square_of_sound_bytes(seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, 1 << 15)
    value, freedom = health.chi_square(np.bincount(data, minlength=256), np.full(256, 1 / 256))
    assert freedom == 255
    assert value < health.chi_square_cutoff(freedom)


def test_what_cannot_occur_must_not() -> None:
    value, freedom = health.chi_square(np.array([5, 5, 1]), np.array([0.5, 0.5, 0.0]))
    assert math.isinf(value)
    assert freedom == 1


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_neighbours(seed: int) -> None:
    sound = bits(seed, 1 << 15)
    assert abs(health.lag_z(sound)) < 6.3
    sticky = sound.copy()
    again = bits(seed + 1, 1 << 15, 0.1).astype(bool)
    again[0] = False
    sticky[again] = np.roll(sticky, 1)[again]
    assert health.lag_z(sticky) > 6.3
    assert health.lag_z(np.ones(100, np.uint8)) == 0.0
