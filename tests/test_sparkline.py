"""Block characters stand for the numbers in order, and fit."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.sparkline import LEVELS, NOTHING, sparkline, thinned, trace

VALUES = st.lists(st.none() | st.floats(0.0, 1e9, allow_subnormal=False), max_size=60)


def test_from_least_to_greatest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == LEVELS
    assert sparkline([7, None, 0], 8) == f"█{NOTHING}▁"
    assert sparkline([1, 2, 3, 4], 2, low=0.0, high=4.0) == "▇█"
    assert sparkline([None, None], 5) == NOTHING * 2
    assert sparkline([1.0], 0) == ""


def test_what_is_steady_is_drawn_in_the_middle_and_a_drop_to_the_bottom() -> None:
    assert set(trace([100.0, 101.0, 100.5], 9)) <= {"▄", "▅"}
    assert trace([100.0, 100.0, 0.0], 9)[-1] == "▁"
    assert trace([None], 9) == NOTHING


@settings(deadline=None)
@given(VALUES, st.integers(0, 80))
def test_it_has_its_width_and_keeps_the_order(values: list[float | None], width: int) -> None:
    for drawn in (sparkline(values, width), trace(values, width)):
        assert len(drawn) == min(width, len(values))
        known = [(v, d) for v, d in zip(values[len(values) - len(drawn) :], drawn, strict=True) if v is not None]
        assert all(d in LEVELS for _, d in known)
        for (a, x), (b, y) in pairwise(known):
            assert (LEVELS.index(x) <= LEVELS.index(y)) if a <= b else (LEVELS.index(x) >= LEVELS.index(y))


@settings(deadline=None)
@given(VALUES, st.integers(1, 80))
def test_a_long_history_is_thinned_to_means(values: list[float | None], width: int) -> None:
    thin = thinned(values, width)
    assert len(thin) == min(width, len(values))
    known = [v for v in values if v is not None]
    assert all(min(known) * (1 - 1e-9) <= v <= max(known) * (1 + 1e-9) for v in thin if v is not None)
    assert (not known) == all(v is None for v in thin)
