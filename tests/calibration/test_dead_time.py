"""Dead time from pairs of clicks, and what it does to rates and bins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.dead_time import (
    FIRST_ALIVE,
    LAST,
    awake,
    counted_rate,
    fit_dead_time,
    live_counts,
    pairs_of,
    true_rate,
)
from calibration.fit import FitRefused

PERIOD, BIN = 8000.0, 800.0
RANGES = ((8e-9, 30e-9), (1e-9, 10e-9))


def clicks(seed: int, dead_ps: float, recovery_ps: float, seconds: float, p: float = 0.008) -> npt.NDArray[np.int64]:
    """Tags of a detector that sees three bins, 1:2:1."""
    rng = np.random.default_rng(seed)
    slots = np.flatnonzero(rng.random(int(seconds * 1e12 / PERIOD)) < p)
    times = slots * PERIOD + rng.choice(3, len(slots), p=[0.25, 0.5, 0.25]) * BIN
    chance = rng.random(len(times))
    kept, last = [], -1e12
    for t, u in zip(times, chance, strict=True):
        z = (t - last - dead_ps) / recovery_ps
        if z > 0.0 and u > np.exp(-z):
            kept.append(t + 20.0 * rng.normal())
            last = t
    return np.array(kept).astype(np.int64)


def test_the_fit_is_right_and_honest() -> None:
    squares = []
    for seed in range(8):
        rng = np.random.default_rng(100 + seed)
        dead, recovery = rng.uniform(12e3, 20e3), rng.uniform(3e3, 5e3)
        fit = fit_dead_time(pairs_of(clicks(seed, dead, recovery, 0.4), PERIOD, BIN, 2, 0.4), *RANGES)
        sigma = np.sqrt(np.diag(fit.covariance))
        squares += [
            ((fit.dead_s - dead * 1e-12) / sigma[0]) ** 2,
            ((fit.recovery_s - recovery * 1e-12) / sigma[1]) ** 2,
        ]
        assert fit.dead_s + fit.recovery_s == pytest.approx((dead + recovery) * 1e-12, rel=0.1)
    assert 0.3 < float(np.mean(squares)) < 2.5


def test_pieces_add_up() -> None:
    t = clicks(1, 15e3, 4e3, 0.2)
    half = t[t < 1e11], t[t >= 1e11]
    parts = [pairs_of(h, PERIOD, BIN, 2, 0.1) for h in half]
    whole = pairs_of(t, PERIOD, BIN, 2, 0.2)
    both = parts[0].add(parts[1])
    assert both.total == pytest.approx(whole.total, rel=1e-3)
    assert both.rate_hz == pytest.approx(len(t) / 0.2, rel=0.01)
    assert whole.counts.shape == (LAST, 5)
    assert whole.counts[0].sum() == 0
    assert whole.counts[FIRST_ALIVE:].min() > 0


def test_few_pairs_and_a_strange_detector_are_refused() -> None:
    with pytest.raises(FitRefused, match="300 are needed"):
        fit_dead_time(pairs_of(clicks(1, 15e3, 4e3, 0.01), PERIOD, BIN, 2, 0.01), *RANGES)
    with pytest.raises(FitRefused, match="outside"):
        fit_dead_time(pairs_of(clicks(2, 42e3, 4e3, 0.3), PERIOD, BIN, 2, 0.3), *RANGES)


@settings(max_examples=50)
@given(st.floats(1.0, 1e7), st.floats(1e-9, 4e-8))
def test_rates_come_back(true_hz: float, tau_s: float) -> None:
    assert float(true_rate(counted_rate(true_hz, tau_s), tau_s)) == pytest.approx(true_hz, rel=1e-9)


def test_a_detector_that_is_mostly_blind_is_refused() -> None:
    with pytest.raises(FitRefused, match="blind"):
        true_rate(4e7, 20e-9)
    with pytest.raises(FitRefused, match="blind"):
        live_counts(np.array([3e5, 3e5]), 1e6, 2.4)


def test_later_bins_lose_to_earlier_ones() -> None:
    out = live_counts(np.array([1000.0, 1000.0, 1000.0]), 1e5, 2.5)
    assert out[0] == pytest.approx(1000 / (1 - 0.03 * 2.0))
    assert out[2] == pytest.approx(1000 / (1 - 0.03 * 2.0 - 0.02))


def test_awake() -> None:
    assert awake(np.array([1e-9, 15e-9]), 15e-9, 4e-9).tolist() == [0.0, 0.0]
    assert float(awake(np.array([19e-9]), 15e-9, 4e-9)[0]) == pytest.approx(1 - np.exp(-1))
