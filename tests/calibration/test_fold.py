from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.fit import FitRefused
from calibration.fold import find_period, gated, histogram, strongest, wrap


def tags(seed: int, offset: float, n: int, peaks: tuple[float, ...], seconds: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(seed)
    slots = rng.integers(0, int(seconds / 8e-9), n)
    t = (slots * 8000.0 + rng.choice(peaks, n) + 20 * rng.normal(size=n)) * (1 + offset) + 7e12
    return np.sort(t).astype(np.int64)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), offset=st.floats(-4.8e-6, 4.8e-6), n=st.integers(400, 4000))
def test_the_period_is_found_on_a_clock_that_is_off(seed: int, offset: float, n: int) -> None:
    p = find_period(tags(seed, offset, n, (300.0,)), 8000.0, 5e-6)
    assert abs(p.offset - offset) < 1e-9


def test_two_peaks_are_told_apart_and_ordered() -> None:
    t = tags(1, 1e-6, 4000, (500.0, 1300.0))
    p = find_period(t, 8000.0, 5e-6)
    phase = p.fold(t)
    first, share = strongest(phase, p.period_ps, (0.0, 800.0))
    one, _ = strongest(phase, p.period_ps)
    assert share > 0.7
    assert min(abs(float(wrap(one - first, p.period_ps))), abs(float(wrap(one - first - 800, p.period_ps)))) < 30
    assert gated(phase, p.period_ps, first, 200) + gated(phase, p.period_ps, first + 800, 200) > 3990
    assert histogram(phase, p.period_ps).sum() == 5 * 4000


def test_darkness_has_no_period() -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(FitRefused, match="no symbol period"):
        find_period(np.sort(rng.integers(0, 10**11, 1000)), 8000.0, 5e-6)
    with pytest.raises(FitRefused, match="10 tags"):
        find_period(np.arange(10), 8000.0, 5e-6)


def test_wrap() -> None:
    assert wrap(np.array([-4001.0, 0.0, 4000.0]), 8000.0).tolist() == [3999.0, 0.0, -4000.0]
