from __future__ import annotations

from math import pi, radians

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.dither import (
    bessel,
    bias_phase,
    extinction_limit_db,
    harmonics,
    quadrature_error,
    waveform,
)
from calibration.fit import FitRefused


def readings(theta: float, depth: float, power: float = 1.0, visibility: float = 0.99, periods: int = 2) -> np.ndarray:
    return power * (1.0 + visibility * np.cos(theta + depth * waveform(8, periods)))


@settings(max_examples=60, deadline=None)
@given(
    error=st.floats(-1.0, 1.0),
    peak=st.booleans(),
    depth=st.floats(0.05, 0.6),
    power=st.floats(1e-9, 1e3),
    visibility=st.floats(0.2, 1.0),
)
def test_phase_and_kind_do_not_depend_on_power_or_visibility(
    error: float, peak: bool, depth: float, power: float, visibility: float
) -> None:
    theta = error if peak else pi + error
    y = readings(theta, depth, power, visibility)
    found = bias_phase(harmonics(y, np.full(len(y), 1e-9 * power)), depth)
    assert found.kind == ("peak" if peak else "null")
    assert found.rad == pytest.approx(error, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(error=st.floats(-0.7, 0.7), rising=st.booleans(), depth=st.floats(0.05, 0.5))
def test_quadrature_servoes_the_second_harmonic(error: float, rising: bool, depth: float) -> None:
    theta = error + (-pi / 2 if rising else pi / 2)
    y = readings(theta, depth)
    found, sigma, slope = quadrature_error(harmonics(y, np.full(len(y), 1e-6)), depth)
    assert found == pytest.approx(error, abs=1e-4)
    assert slope == (1 if rising else -1)
    assert 0.0 < sigma < 1e-3


def test_sigma_of_the_phase_is_honest() -> None:
    rng, squares = np.random.default_rng(1), []
    for _ in range(300):
        error = rng.uniform(-0.2, 0.2)
        clean = readings(pi + error, 0.3)
        sigma = 0.005 * clean
        found = bias_phase(harmonics(clean + sigma * rng.normal(size=len(clean)), sigma), 0.3)
        squares.append(((found.rad - error) / found.sigma) ** 2)
    assert 0.8 < np.mean(squares) < 1.25


def test_an_unseen_dither_and_broken_periods_are_refused() -> None:
    y = np.ones(16)
    with pytest.raises(FitRefused, match="5 are needed"):
        bias_phase(harmonics(y, np.full(16, 0.1)), 0.3)
    with pytest.raises(FitRefused, match="not seen"):
        quadrature_error(harmonics(y, np.full(16, 0.1)), 0.3)
    with pytest.raises(ValueError, match="whole periods"):
        harmonics(np.ones(15), np.ones(15))
    with pytest.raises(ValueError, match="5 points"):
        waveform(4)


def test_extinction_limits_of_the_reference() -> None:
    for error, db in ((1.0, 41), (2.0, 35), (3.6, 30), (5.0, 27)):
        assert extinction_limit_db(radians(error)) == pytest.approx(db, abs=0.5)
    assert bessel(1, 0.3) == pytest.approx(0.148318816, rel=1e-7)
    assert bessel(2, 0.3) == pytest.approx(0.011165862, rel=1e-6)
