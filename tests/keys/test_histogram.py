from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys import histogram
from qmodd.keys.histogram import fold


def both(*arguments):
    ours = fold(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histogram, "COMPILED", False)
        np.testing.assert_array_equal(fold(*arguments), ours)
    return ours


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 10**12), max_size=60),
    st.floats(2000, 40_000),
    st.integers(1, 3000),
    st.integers(-(10**9), 10**9),
    st.floats(-1, 1),
)
def test_cells_are_those_of_exact_arithmetic(tags, period, cells, origin, fraction):
    t = np.array(sorted(tags), np.int64)
    slow = np.zeros(cells, np.int64)
    unsure = 0
    for click in t.tolist():
        turns = (Fraction(click - origin) + Fraction(1, 2) - Fraction(fraction)) / Fraction(period)
        cell = (turns % 1) * cells
        slow[int(cell)] += 1
        unsure += min(cell % 1, 1 - cell % 1) < Fraction(1, 1000)  # so near to an edge that the period's last bit tells
    ours = both(t, period, cells, origin, fraction)
    assert ours.sum() == len(t)
    assert np.abs(ours - slow).sum() <= 2 * unsure


@pytest.mark.parametrize(("period", "cells"), [(8000, 1000), (8000, 8), (800, 800), (30_000, 6), (8000, 1)])
def test_whole_periods_give_what_integers_give(period, cells):
    rng = np.random.default_rng(cells)
    t = np.cumsum(rng.integers(1, 20_000, 10_001))
    np.testing.assert_array_equal(both(t, period, cells), np.bincount(t % period * cells // period, minlength=cells))


def test_an_hour_of_clicks_keeps_its_phase():
    """To 1e-4 turns, the edges of the cells being half a cell away."""
    t = np.arange(4, 3_600_000_000_000_000, 450_000_000_000 * 8, dtype=np.int64)
    assert both(t, 8000.0, 1000).tolist() == [len(t)] + [0] * 999


def test_more_clicks_than_a_chunk_in_one_cell():
    n = 4 * 1024 + 3
    assert both(np.zeros(n, np.int64), 100.0, 10).tolist() == [n] + [0] * 9


@pytest.mark.parametrize(("period", "cells"), [(8000.0, 0), (8000.0, 1 << 17), (1.0, 10), (float("inf"), 10)])
def test_senseless_folds_are_refused(period, cells):
    with pytest.raises(ValueError, match="cannot fold"):
        fold(np.zeros(3, np.int64), period, cells)
