"""The thermal plant's fit, its tuning, and the trap of the describing function (reference control B4)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.fit import FitRefused
from calibration.tec import (
    Drive,
    Element,
    TecPlant,
    decayed,
    fit_element,
    fit_plant,
    from_relay,
    naive_ultimate_gain,
    relay_point,
    response,
    simc,
    ultimate,
)

# The plant of B4: true Pu 6.2 s and Ku 3.68; relay of 0.3 A with 0.1 K of hysteresis.
GAIN, TAU, LAG, DEAD = 20.0, 40.0, 1.5, 0.6
RELAY_A, HYSTERESIS_K = 0.3, 0.1


def exact(slope: float, leak: float, dead: float, lag: float) -> TecPlant:
    return TecPlant(slope, leak, dead, lag, np.zeros((4, 4)), 0.0)


def relay(
    hysteresis: float, noise: float = 1e-3, seconds: float = 60.0, lag: float = LAG, seed: int = 1
) -> tuple[np.ndarray, np.ndarray, Drive]:
    """Euler steps of 2 ms, a reading every 0.1 s: nothing of the fit's own mathematics."""
    rng, step, every = np.random.default_rng(seed), 0.002, 50
    delay = [0.0] * round(DEAD / step)
    x = y = 0.0
    drive, at, amperes = -RELAY_A, [-1.0, 0.0], [0.0, -RELAY_A]
    t, seen = [], []
    for n in range(round(seconds / step)):
        if n % every == 0:
            t.append(n * step)
            seen.append(y + noise * rng.normal())
            if (drive > 0 and seen[-1] < -hysteresis) or (drive < 0 and seen[-1] > hysteresis):
                drive = -drive
                at.append(n * step)
                amperes.append(drive)
        delay.append(drive)
        x += step * (-GAIN * delay.pop(0) - x) / TAU
        y += step * (x - y) / lag
    return np.array(t), np.array(seen), Drive(at, amperes)


def limit_cycle(y: np.ndarray, drive: Drive) -> tuple[float, float]:
    """(amplitude, period) of the settled oscillation."""
    switches = [t for t, a in zip(drive.at_s, drive.amperes, strict=True) if a > 0]
    return float(np.abs(y[len(y) // 2 :]).max()), float(np.mean(np.diff(switches[1:])))


def test_the_trap_naive_describing_function_is_wrong_and_the_exact_phase_is_right() -> None:
    true_period, true_gain = ultimate(exact(GAIN / TAU, 1 / TAU, DEAD, LAG))
    assert true_period == pytest.approx(6.2, abs=0.02)
    assert true_gain == pytest.approx(3.68, abs=0.02)
    t, y, drive = relay(HYSTERESIS_K)
    amplitude, period = limit_cycle(y, drive)
    assert period == pytest.approx(10.3, abs=0.4)
    naive = naive_ultimate_gain(amplitude, RELAY_A)
    corrected = 4 * RELAY_A / (math.pi * math.sqrt(amplitude**2 - HYSTERESIS_K**2))
    assert naive == pytest.approx(1.60, abs=0.12)
    assert corrected == pytest.approx(1.76, abs=0.15)
    assert naive < 0.5 * true_gain
    assert period > 1.5 * true_period
    found_period, found_gain = ultimate(fit_plant(t, y, drive, noise_k=1e-3))
    assert found_period == pytest.approx(true_period, rel=0.01)
    assert found_gain == pytest.approx(true_gain, rel=0.01)


def test_the_cycle_point_carries_its_phase() -> None:
    point = relay_point(0.24, 10.3, HYSTERESIS_K, RELAY_A)
    plant = exact(GAIN / TAU, 1 / TAU, DEAD, LAG)
    phase = -(math.atan2(point.omega, plant.leak_per_s) + math.atan(point.omega * LAG) + point.omega * DEAD)
    assert point.phase == pytest.approx(phase, abs=0.1)
    assert point.phase > -math.pi + 0.4
    gain = plant.slope_k_per_a_s / abs(complex(1 / TAU, point.omega)) / abs(complex(1, point.omega * LAG))
    assert point.gain == pytest.approx(gain, rel=0.1)
    with pytest.raises(ValueError, match="no limit cycle"):
        relay_point(0.1, 10.0, 0.1, 0.3)


def test_an_integrating_plant_from_its_triangle_exactly() -> None:
    slope, delay, hysteresis, d = 0.5, 0.6, 0.08, 0.3
    amplitude = hysteresis + slope * d * delay
    period = 4 * amplitude / (slope * d)
    assert from_relay(amplitude, period, hysteresis, d) == pytest.approx((slope, delay))
    with pytest.raises(ValueError, match="no limit cycle"):
        from_relay(0.05, 3.0, 0.08, 0.3)


@settings(max_examples=15, deadline=None)
@given(
    slope=st.floats(0.1, 2.0),
    delay=st.floats(0.2, 2.0),
    share=st.floats(0.3, 0.8),
    leak=st.floats(0.003, 0.02),
    seed=st.integers(0, 1000),
)
def test_a_step_of_any_plant_gives_it_back(slope: float, delay: float, share: float, leak: float, seed: int) -> None:
    t = np.arange(0.0, 16.0, 0.1)
    drive = Drive([0.0, 1.0, 6.0], [0.0, -0.5, -1.0])
    dead, lag = (1 - share) * delay, share * delay
    y = 25.0 + slope * drive.shape(t, leak, dead, lag, 3.9)
    y = y + 3e-4 * np.random.default_rng(seed).normal(size=len(t))
    found = fit_plant(t, y, drive, 3.9)
    assert found.slope_k_per_a_s == pytest.approx(slope, rel=0.03)
    assert found.delay_s == pytest.approx(delay, rel=0.05, abs=0.02)
    assert abs(found.slope_k_per_a_s - slope) < 4 * math.sqrt(found.covariance[0, 0])


def test_first_order_without_a_lag_has_none() -> None:
    t = np.arange(0.0, 20.0, 0.1)
    drive = Drive([0.0, 1.0], [0.0, 0.5])
    y = 0.4 * drive.shape(t, 0.02, 0.8, 0.0, None) + 3e-4 * np.random.default_rng(1).normal(size=len(t))
    found = fit_plant(t, y, drive)
    assert found.lag_s == pytest.approx(0.0, abs=0.08)
    assert found.delay_s == pytest.approx(0.8, abs=0.03)
    assert found.tau_s == pytest.approx(50.0, rel=0.3)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda y: -y, "slope"),
        (lambda y: 0.0 * y, "slope|determine|not determined"),
        (lambda y: y + 0.3 * np.sin(7.0 * np.arange(len(y))), "residuals"),
    ],
)
def test_a_bad_record_is_refused(change, why: str) -> None:  # type: ignore[no-untyped-def]
    t = np.arange(0.0, 12.0, 0.1)
    drive = Drive([0.0, 1.0], [0.0, -0.6])
    y = 0.5 * drive.shape(t, 0.01, 0.1, 0.5, None)
    with pytest.raises(FitRefused, match=why):
        fit_plant(t, change(y) + 1e-4 * np.random.default_rng(2).normal(size=len(t)), drive)


def test_too_few_readings_and_a_current_that_never_stepped() -> None:
    with pytest.raises(FitRefused, match="12 are needed"):
        fit_plant(np.arange(5.0), np.arange(5.0), Drive([0, 1], [0, 1]))
    with pytest.raises(ValueError, match="at least one step"):
        Drive([0.0], [0.0])


def test_simc_gives_the_reference_gains() -> None:
    plant = exact(0.478, 0.0, 0.05, 0.5)
    assert simc(plant, 3 * 0.55) == pytest.approx((0.95, 8.8), rel=0.01)
    assert simc(plant) == pytest.approx((1.90, 4.4), rel=0.01)
    lively = replace(plant, leak_per_s=0.5)
    assert simc(lively)[1] == pytest.approx(2.0)
    with pytest.raises(ValueError, match="tau_c"):
        simc(plant, 0.0)


@given(slope=st.floats(0.05, 5.0), leak=st.floats(0.0, 0.1), dead=st.floats(0.05, 3.0), lag=st.floats(0.0, 3.0))
def test_simc_keeps_a_gain_margin_of_two(slope: float, leak: float, dead: float, lag: float) -> None:
    plant = exact(slope, leak, dead, lag)
    assert simc(plant)[0] < 0.52 * ultimate(plant)[1]


def test_the_element_by_its_voltage_and_the_clamp() -> None:
    rng = np.random.default_rng(3)
    current, difference = np.repeat([0.0, -0.6, -0.9], 20), np.linspace(0.0, -5.0, 60)
    volts = 1.03 * current + 0.0133 * difference + 1e-4 * rng.normal(size=60)
    element = fit_element(current, volts, difference)
    assert element is not None
    assert element.ohm == pytest.approx(1.03, rel=0.01)
    optimum = element.optimum_a(30.0)
    clamp = element.clamp_a(30.0)
    assert optimum == pytest.approx(0.0133 * 303.15 / 1.03, rel=0.02)
    assert clamp is not None
    assert optimum is not None
    assert clamp == pytest.approx(0.7 * optimum)
    level = fit_element(current, volts, np.zeros(60))
    assert level is not None
    assert level.seebeck_v_per_k is None
    assert level.clamp_a(30.0) is None
    assert fit_element(np.zeros(60), volts, difference) is None
    assert fit_element(current, -volts, difference) is None
    assert Element(1.0, 0.0133).optimum_a(30.0) == pytest.approx(4.03, abs=0.01)


@given(rate=st.floats(-0.1, 0.5), lag=st.floats(0.01, 2.0))
def test_response_is_the_integral_of_its_equation(rate: float, lag: float) -> None:
    t = np.linspace(0.0, 8.0, 8001)
    x = decayed(rate, t)
    y = np.zeros(len(t))
    h = t[1]
    for n in range(len(t) - 1):
        middle = 0.5 * (x[n] + x[n + 1])
        y[n + 1] = middle + (y[n] - middle) * math.exp(-h / lag)
    assert np.allclose(response(rate, lag, t), y, atol=2e-4 * max(1.0, float(x[-1])))
    assert response(rate, lag, np.array([-1.0]))[0] == 0.0
