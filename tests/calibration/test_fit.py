from __future__ import annotations

from math import erf, pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.detector_fit import Plateau, fit_darks, fit_plateau
from calibration.fit import (
    FitRefused,
    Resistance,
    choose_power,
    fit_fringe,
    fit_resistance,
    gauss_newton,
    linear,
    log_tia_current,
    zero_crossing,
)
from calibration.procedures.sweeps import UNEVEN

POWERS = UNEVEN * 0.11


def fringe(a: float, v: float, phi0: float, p_pi: float, x: np.ndarray = POWERS) -> np.ndarray:
    return a * (1 + v * np.cos(phi0 + pi * x / p_pi))


@settings(max_examples=30, deadline=None)
@given(
    a=st.floats(1e-9, 1e3),
    v=st.floats(0.3, 1.0),
    phi0=st.floats(-pi, pi),
    p_pi=st.floats(0.030, 0.050),
)
def test_a_clean_fringe_is_found_exactly(a: float, v: float, phi0: float, p_pi: float) -> None:
    f = fit_fringe(POWERS, fringe(a, v, phi0, p_pi), 0.026, 0.056)
    assert f.x_pi == pytest.approx(p_pi, rel=1e-4)
    assert f.visibility == pytest.approx(v, rel=1e-3)
    assert np.cos(f.phi0_rad - phi0) == pytest.approx(1.0, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(phi0=st.floats(-pi, pi), p_pi=st.floats(0.030, 0.050), target=st.floats(-pi, pi))
def test_a_chosen_power_has_the_phase_is_inside_and_is_the_least(phi0: float, p_pi: float, target: float) -> None:
    f = fit_fringe(POWERS, fringe(1.0, 0.9, phi0, p_pi), 0.026, 0.056)
    chosen = choose_power(f, target, 0.11)
    assert np.cos(f.phase(chosen.power_w) - target) == pytest.approx(1.0, abs=1e-9)
    assert chosen.margin * 0.11 <= chosen.power_w <= (1 - chosen.margin) * 0.11
    assert chosen.power_w - 2 * f.x_pi < chosen.margin * 0.11
    assert f.phase(chosen.power_w) - target == pytest.approx(2 * pi * chosen.order)


def test_covariance_of_a_fringe_is_honest() -> None:
    """Normalised error squared over parameters and seeds: neither bold nor shy (reference control B2 setting)."""
    rng = np.random.default_rng(1)
    nees, phase_errors = [], []
    for _ in range(200):
        truth = np.array([1.0, 0.9, rng.uniform(-pi, pi), rng.uniform(0.034, 0.046)])
        y = fringe(*truth) + 0.005 * rng.normal(size=8)
        f = fit_fringe(POWERS, y, 0.026, 0.056, sigma=np.full(8, 0.005))
        d = np.array([f.offset, f.visibility, f.phi0_rad, f.x_pi]) - truth
        d[2] = (d[2] + pi) % (2 * pi) - pi
        nees.append(d @ np.linalg.solve(f.covariance, d) / 4)
        null = f.roots(pi, 0.0, 0.11)[0]
        phase_errors.append((truth[2] + pi * null / truth[3] - pi + pi) % (2 * pi) - pi)
        assert f.sigma_phase(null) < 0.05
    assert 0.8 < np.mean(nees) < 1.25
    assert np.degrees(np.std(phase_errors)) < 0.6


@pytest.mark.parametrize(
    ("y", "why"),
    [
        (np.ones(8), "determine only 3 of 4|no fringe|visibility"),
        (fringe(1.0, 0.01, 0.0, 0.04), "visibility"),
        (np.array([0.0, 1, 0, 1, 0, 1, 0, 1]), "residuals|visibility|half period|two periods"),
        (fringe(1.0, 0.9, 0.0, 0.07), "half period|residuals|two periods|visibility"),
    ],
)
def test_bad_fringes_are_refused_with_a_reason(y: np.ndarray, why: str) -> None:
    with pytest.raises(FitRefused, match=why):
        fit_fringe(POWERS, y, 0.026, 0.056)


def test_too_few_points_and_aliases_are_refused() -> None:
    with pytest.raises(FitRefused, match="5 points"):
        fit_fringe(POWERS[:5], POWERS[:5], 0.026, 0.056)
    even = np.linspace(0, 0.11, 8)
    rng = np.random.default_rng(3)
    with pytest.raises(FitRefused, match="two periods"):
        fit_fringe(even, fringe(1, 0.9, 0.4, 0.011, even) + 0.02 * rng.normal(size=8), 0.008, 0.06)


def test_out_of_reach_is_said() -> None:
    f = fit_fringe(POWERS, fringe(1.0, 0.9, 0.0, 0.05), 0.026, 0.056)
    with pytest.raises(FitRefused, match="out of reach"):
        choose_power(f, pi, 0.03)


def test_resistance_and_its_covariance() -> None:
    rng = np.random.default_rng(2)
    i = np.array([0.010, 0.016, 0.022, 0.028, 0.032])
    truth, nees = np.array([92.0, 0.9]), []
    p = i**2 * truth[0] / (1 - i**2 * truth[0] * truth[1])
    for _ in range(200):
        f = fit_resistance(i, p / i + 2e-4 * rng.normal(size=5), 2e-4)
        d = np.array([f.r0_ohm, f.rho_per_w]) - truth
        nees.append(d @ np.linalg.solve(f.covariance, d) / 2)
        assert abs(d[0]) < 0.3
    assert 0.8 < np.mean(nees) < 1.25
    assert fit_resistance(i, p / i).r0_ohm == pytest.approx(92.0)


@settings(max_examples=30, deadline=None)
@given(st.floats(60, 130), st.floats(0.0, 1.2), st.floats(0.0, 0.11))
def test_power_and_current_are_inverse(r0: float, rho: float, watts: float) -> None:
    r = Resistance(r0, rho, np.zeros((2, 2)), 0.0)
    assert r.power(r.current(watts)) == pytest.approx(watts, abs=1e-12)


def test_runaway_short_sweeps_and_negative_resistance_are_refused() -> None:
    with pytest.raises(FitRefused, match="runaway"):
        Resistance(90.0, 6.0, np.zeros((2, 2)), 0.0).power(0.033)
    with pytest.raises(FitRefused, match="5 are needed"):
        fit_resistance(np.ones(4), np.ones(4))
    i = np.linspace(0.01, 0.03, 5)
    with pytest.raises(FitRefused, match="positive"):
        fit_resistance(i, -90 * i)


def test_zero_crossing() -> None:
    x = np.array([0.0, 1.0, 2.0])
    p = zero_crossing(x, 2.0 * (x - 1.3), np.full(3, 0.01))
    assert p.x == pytest.approx(1.3)
    assert p.slope == pytest.approx(2.0)
    assert 0.0 < p.sigma < 0.01
    with pytest.raises(FitRefused, match="not significant"):
        zero_crossing(x, np.array([0.01, -0.01, 0.01]), np.full(3, 0.1))


def test_plateau_and_its_refusals() -> None:
    rng = np.random.default_rng(4)
    bias = np.arange(8e-6, 19e-6, 0.75e-6)
    rate = np.array([5e5 * (1 + erf((b - 14.5e-6) / 1.6e-6)) for b in bias])
    counts = rng.poisson(rate * 0.04) / 0.04
    sigma = np.sqrt(np.maximum(rate * 0.04, 1)) / 0.04
    p = fit_plateau(bias, counts, sigma)
    assert p.centre_a == pytest.approx(14.5e-6, rel=0.01)
    assert p.relative(p.centre_a) == pytest.approx(0.5)
    assert p.slope_per_ua(p.centre_a + 2.2 * p.width_a) < 0.01
    with pytest.raises(FitRefused, match="no plateau"):
        fit_plateau(bias[:9], counts[:9], sigma[:9])
    with pytest.raises(FitRefused, match="no counts"):
        fit_plateau(bias, np.zeros(len(bias)), np.ones(len(bias)))
    with pytest.raises(FitRefused, match="6 are needed"):
        fit_plateau(bias[:4], counts[:4], sigma[:4])


def test_darks_have_a_part_that_follows_the_efficiency_and_one_that_grows() -> None:
    plateau = Plateau(1e6, 14.5e-6, 1.6e-6, np.zeros((3, 3)), np.zeros(0), 0.0)
    bias = np.array([14.0, 16.0, 18.0, 19.0]) * 1e-6
    seconds = np.full(4, 20.0)

    def rate(b: float) -> float:
        return 50.0 * plateau.relative(b) + 50.0 * float(np.exp((b - 19e-6) / 1.1e-6))

    f = fit_darks(bias, np.round(np.array([rate(b) for b in bias]) * seconds), seconds, plateau)
    assert f.follow == pytest.approx(50, rel=0.02)
    assert f.intrinsic == pytest.approx(50, rel=0.02)
    assert f.rate(18.5e-6) == pytest.approx(rate(18.5e-6), rel=0.02)
    assert 0.5 < f.sigma(19e-6) < 5.0
    silent = fit_darks(bias, np.zeros(4), seconds, plateau)
    assert 0.0 < silent.rate(19e-6) < 0.1
    assert silent.sigma(19e-6) > 0.0


def test_darks_are_honest() -> None:
    plateau = Plateau(1e6, 14.5e-6, 1.6e-6, np.zeros((3, 3)), np.zeros(0), 0.0)
    rng = np.random.default_rng(3)
    bias, seconds = np.array([17.6, 18.3, 19.0]) * 1e-6, np.array([0.25, 0.25, 0.6])
    truth = [50.0 * plateau.relative(b) + 50.0 * float(np.exp((b - 19e-6) / 1.1e-6)) for b in bias]
    found = []
    for _ in range(300):
        f = fit_darks(bias, rng.poisson(np.array(truth) * seconds).astype(float), seconds, plateau)
        found.append(((f.rate(19e-6) - truth[2]) / f.sigma(19e-6)) ** 2)
    assert 0.7 < float(np.mean(found)) < 1.3


def test_log_amplifier() -> None:
    assert log_tia_current(0.6, 0.2, 1e-10) == pytest.approx(1e-7)


def test_underdetermined_systems_are_refused() -> None:
    with pytest.raises(FitRefused, match="only 1 of 2"):
        linear(np.ones((3, 2)), np.ones(3))
    with pytest.raises(FitRefused, match="only 1 of 2"):
        gauss_newton(lambda p: np.full(4, p[0] + p[1]), np.ones(2), np.arange(4.0), np.ones(4))
