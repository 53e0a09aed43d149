from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.fit import FitRefused
from qmodd.selftest.burn_in import fit_log_drift, log_times


@given(
    st.floats(10.0, 1e3),
    st.floats(-0.01, 0.01),
    st.floats(1.0, 200.0),
    st.integers(4, 40),
)
def test_law_is_found_again(start: float, slope: float, tau: float, count: int) -> None:
    hours = log_times(168.0, count, 0.1)
    drift = fit_log_drift(hours, start * (1.0 + slope * np.log1p(hours / tau)), tau)
    assert drift.start == pytest.approx(start, rel=1e-9)
    assert drift.slope == pytest.approx(slope, abs=1e-9)
    assert drift.after(1000.0, tau) == pytest.approx(slope * np.log1p(1000.0 / tau), abs=1e-7)


def test_uncertainty_holds_the_truth() -> None:
    rng = np.random.default_rng(4)
    hours, pulls = log_times(24.0, 16, 0.05), []
    for _ in range(300):
        values = 90.0 * (1.0 + 1e-3 * np.log1p(hours / 100.0)) * (1.0 + 2e-5 * rng.normal(size=len(hours)))
        drift = fit_log_drift(hours, values, 100.0)
        pulls.append((drift.slope - 1e-3) / drift.slope_sigma)
    assert 0.85 < float(np.std(pulls)) < 1.3  # 14 degrees of freedom: t-distributed


def test_refuses_what_tells_nothing() -> None:
    with pytest.raises(FitRefused, match="3 readings"):
        fit_log_drift(np.arange(3.0), np.ones(3), 1.0)
    with pytest.raises(FitRefused, match="one moment"):
        fit_log_drift(np.zeros(5), np.ones(5), 1.0)
    with pytest.raises(FitRefused, match="at the start is 0"):
        fit_log_drift(np.arange(5.0), np.zeros(5), 1.0)
    with pytest.raises(ValueError, match="3 readings from"):
        log_times(24.0, 3, 0.1)
    with pytest.raises(ValueError, match="from 30 h to 24 h"):
        log_times(24.0, 8, 30.0)


def test_moments_are_even_in_the_logarithm() -> None:
    hours = log_times(24.0, 9, 0.1)
    assert (hours[0], hours[-1]) == (0.0, pytest.approx(24.0))
    assert np.ptp(np.diff(np.log(hours[1:]))) < 1e-9
