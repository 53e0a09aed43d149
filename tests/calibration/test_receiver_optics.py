"""Clicks by bin to phases: exact on exact light, honest on counted light."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.receiver_optics import Reading, balanced_rad, coupler_phase, share_of

EFFICIENCY = (0.8, 0.86)


def light(split: float, combine: float, t: float, long: float = 0.75, late: float = 1.1, v: float = 0.98) -> Reading:
    """Mean clicks for a million photons a pulse."""
    e, n = 1e6, 1e6 * late
    ls, ll = math.cos(split / 2) ** 2, long * math.sin(split / 2) ** 2
    bar, cross = math.cos(combine / 2) ** 2, math.sin(combine / 2) ** 2
    wave = 2 * v * math.sqrt(ls * ll * bar * cross * e * n) * math.cos(t)
    x = [
        [EFFICIENCY[0] * c for c in (bar * ls * e, bar * ls * n + cross * ll * e + wave, cross * ll * n)],
        [EFFICIENCY[1] * c for c in (cross * ls * e, cross * ls * n + bar * ll * e - wave, bar * ll * n)],
    ]
    return Reading.of(np.array([2 * e, 2 * n]), np.array(x))


angles = st.floats(0.3, math.pi - 0.3)


@settings(max_examples=60)
@given(angles, angles, st.floats(-3, 3), st.floats(0.6, 0.9), st.floats(0.8, 1.25))
def test_every_phase_comes_back(split: float, combine: float, t: float, long: float, late: float) -> None:
    seen = light(split, combine, t, long, late)
    assert coupler_phase(seen.arms()[0] + math.log(long), split)[0] == pytest.approx(split, abs=1e-9)
    assert coupler_phase(seen.ports()[0], combine)[0] == pytest.approx(combine, abs=1e-9)
    assert seen.mean_interference()[0] == pytest.approx(0.98 * math.cos(t), abs=1e-9)
    assert math.exp(seen.efficiencies()[0]) == pytest.approx(EFFICIENCY[0] / EFFICIENCY[1])
    assert coupler_phase(seen.ports()[0], -combine)[0] == pytest.approx(-combine, abs=1e-9)


def test_uncertainties_are_those_of_counting() -> None:
    rng = np.random.default_rng(1)
    mean = light(1.7, 1.5, 1.2)
    scale = 0.01
    squares = {"arms": [], "ports": [], "efficiencies": [], "basis": [], "mean_interference": []}  # type: ignore[var-annotated]
    for _ in range(400):
        seen = Reading.of(
            rng.poisson(mean.z * scale).astype(float),
            rng.poisson(mean.x * scale).astype(float),
        )
        for name, found in squares.items():
            truth = getattr(mean, name)()[0]
            value, sigma = getattr(seen, name)()
            found.append(((value - truth) / sigma) ** 2)
    for name, found in squares.items():
        assert 0.8 < float(np.mean(found)) < 1.25, name


def test_a_reading_goes_through_its_row() -> None:
    seen = light(1.2, 1.0, 0.4)
    back = Reading.from_row(seen.row())
    assert np.array_equal(back.x, seen.x)
    assert np.array_equal(back.z, seen.z)
    empty = Reading.of(np.zeros(2), np.zeros((2, 3)))
    assert math.isfinite(empty.arms()[0])
    assert empty.arms()[1] > 1.0


def test_slope_of_a_coupler() -> None:
    for phase in (0.7, 1.6, 2.8, -1.2, 5.0):
        ratio = -2.0 * math.log(abs(math.tan(phase / 2)))
        step = 1e-6
        up = coupler_phase(ratio + step, phase)[0]
        at, slope = coupler_phase(ratio, phase)
        assert at == pytest.approx(phase, abs=1e-9)
        assert (up - at) / step == pytest.approx(slope, rel=1e-4)


def test_shares_and_balance() -> None:
    assert share_of(0.0, 0.02, 1e6) == pytest.approx((0.5, 0.005))
    share, sigma = share_of(20.0, 3.0, 1000.0)
    assert share == pytest.approx(1.0, abs=1e-8)
    assert sigma == pytest.approx(5e-4)
    assert balanced_rad(1.0) == pytest.approx(math.pi / 2)
    assert math.cos(balanced_rad(0.7) / 2) ** 2 == pytest.approx(0.7 * math.sin(balanced_rad(0.7) / 2) ** 2)
