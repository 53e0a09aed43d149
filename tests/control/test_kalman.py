"""The drift filter on drawn phases: gains, honesty of its sigma, models, offset, jumps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.control.kalman import Cusum, DriftFilter


def test_settles_at_the_steady_gain_of_a_walk() -> None:
    """Reference control B6: p = (q + sqrt(q^2 + 4 q r))/2, K = p/(p + r)."""
    rng, f, x = np.random.default_rng(0), DriftFilter(slope_sigma=1e-6), 0.0
    q, r = 1e-4, 1e-2
    f.start(0.0, r, 0.0)
    for k in range(1, 2000):
        x += math.sqrt(q) * rng.normal()
        f.update(x + math.sqrt(r) * rng.normal(), r, float(k))
    before = f.at(2000.0)
    f.update(before.level + 0.1, r, 2000.0)
    p = 0.5 * (q + math.sqrt(q * q + 4 * q * r))
    assert (f.at(2000.0).level - before.level) / 0.1 == pytest.approx(p / (p + r), rel=0.25)


@settings(max_examples=15, deadline=None)
@given(
    walk=st.floats(1e-3, 2e-2), noise=st.floats(3e-3, 5e-2), slope=st.floats(-0.02, 0.02), seed=st.integers(0, 10_000)
)
def test_sigma_is_honest_whatever_the_drift(walk: float, noise: float, slope: float, seed: int) -> None:
    rng, f = np.random.default_rng(seed), DriftFilter()
    x, normalised = 0.0, []
    f.start(0.0, 0.01, 0.0)
    for k in range(1, 600):
        x += slope * 0.2 + walk * math.sqrt(0.2) * rng.normal()
        expected = f.at(0.2 * k)
        if k > 150:
            normalised.append(((x - expected.level) / expected.sigma) ** 2)
        f.update(x + noise * rng.normal(), noise**2, 0.2 * k)
    assert 0.2 < np.mean(normalised) < 3.5


def test_learns_the_slope_and_coasts_on_it() -> None:
    rng, f = np.random.default_rng(1), DriftFilter()
    f.start(0.0, 0.01, 0.0)
    for k in range(1, 600):
        f.update(0.0167 * 0.1 * k + 0.02 * rng.normal(), 4e-4, 0.1 * k)
    now, later = f.at(60.0), f.at(90.0)
    assert now.slope == pytest.approx(0.0167, rel=0.1)
    assert later.level == pytest.approx(0.0167 * 90, abs=0.1)
    assert later.sigma > now.sigma
    assert f.at(10.0).level == f.at(59.9).level, "never back in time"


def test_a_reference_finds_its_offset_beside_rare_true_readings() -> None:
    rng, f = np.random.default_rng(2), DriftFilter(0.05, 0.1)
    f.start(0.0, 0.1, 0.0)
    for k in range(1, 800):
        f.update(0.2 + 0.01 * rng.normal(), 1e-4, 0.1 * k, reference=True)
        if k % 5 == 0:
            f.update(0.05 * rng.normal(), 2.5e-3, 0.1 * k)
    assert f.offset == pytest.approx(0.2, abs=0.02)
    assert 0.0 < f.offset_sigma < 0.02
    assert f.at(80.0).level == pytest.approx(0.0, abs=0.02)
    assert f.at(80.0, reference=True).level == pytest.approx(0.2, abs=0.01)
    f.forget_offset(0.3)
    assert f.offset_sigma == pytest.approx(0.3)
    f.open_up(0.04)
    assert f.at(80.0).sigma > 0.2


def test_start_keeps_the_drift_and_what_is_wrong_is_refused() -> None:
    f = DriftFilter()
    assert not f.known
    for call in (lambda: f.at(0.0), lambda: f.update(0.0, 1.0, 0.0)):
        with pytest.raises(ValueError, match="nothing has been measured"):
            call()
    f.start(1.0, 0.01, 0.0)
    with pytest.raises(ValueError, match="variance"):
        f.update(0.0, 0.0, 1.0)
    for k in range(200):
        f.update(1.0 + 0.01 * k, 1e-4, float(k))
    f.start(-2.0, 1e-4, 200.0)
    assert f.at(210.0).level == pytest.approx(-1.9, abs=0.03)


def test_cusum_finds_a_shift_of_a_deviation_and_leaves_noise_alone() -> None:
    rng, c = np.random.default_rng(3), Cusum()
    assert all(c.see(float(z)) is None for z in rng.normal(size=3000))
    found = [c.see(1.5 + float(z)) for z in rng.normal(size=40)]
    assert any(s is not None and 0.8 < s < 2.5 for s in found)
    down = [Cusum(limit=3.0).see(-5.0)]
    assert down[0] == pytest.approx(5.0)
