"""The filter that tells a drift from the constant that it is seen against."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.control.reference import DriftFilter, log_ratio


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), constant=st.floats(-0.3, 0.3), sigma=st.floats(0.002, 0.05))
def test_the_error_is_known_as_well_as_it_says(seed: int, constant: float, sigma: float) -> None:
    rng, drift = np.random.default_rng(seed), 0.001
    found = DriftFilter(drift, 0.003)
    error = 0.003 * rng.normal()
    worst = 0.0
    for _ in range(300):
        error += drift * rng.normal()
        found.read(constant + error + sigma * rng.normal(), sigma**2, 1.0)
        worst = max(worst, abs(found.error_rad - error) / found.sigma_rad)
        if abs(found.error_rad) > 0.01:
            error -= found.error_rad
            found.moved(-found.error_rad)
    assert worst < 5.5
    # The constant is learnt while the error is known; from then on the error stays known.
    assert found.sigma_rad < 0.003 + 4 * sigma


def test_the_first_reading_is_the_constant_and_no_error() -> None:
    found = DriftFilter(1e-4, 1e-3)
    found.read(0.25, 1e-4, 1.0)
    assert abs(found.error_rad) < 1e-4
    assert found.sigma_rad == pytest.approx(1e-3, rel=0.02)


def test_counts_without_a_ratio_and_readings_without_a_variance() -> None:
    assert list(log_ratio(200, 100)) == pytest.approx([math.log(2), 0.015])
    with pytest.raises(ValueError, match="no ratio"):
        log_ratio(0, 10)
    with pytest.raises(ValueError, match="variance"):
        DriftFilter(1e-3, 1e-3).read(0.0, 0.0, 1.0)
