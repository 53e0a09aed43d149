"""Heaters: the fixed-current solution, compliance, lag, crosstalk, opens and shorts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim.individuals import draw_alice, draw_ballast
from sim.physics.heaters import (
    AGEING_S,
    HEADROOM_V,
    QUIESCENT_A,
    RAIL_V,
    SHUNT_OHM,
    HeaterBank,
    power_at,
    power_within,
)

H = draw_alice(1).heaters
NONE = np.zeros(4, np.bool_)
STILL = np.zeros(4)


def bank() -> HeaterBank:
    b = HeaterBank(H)
    b.set_rail(True, 0.0)
    return b


def test_power_solves_its_own_equation() -> None:
    for current in (0.0, 0.005, 0.02, 0.033):
        p = power_at(current, 90.0, 0.9)
        assert p == pytest.approx(current**2 * 90.0 * (1 + 0.9 * p))
    assert math.isinf(power_at(0.2, 90.0, 0.9))


def test_source_runs_out_of_voltage() -> None:
    for current in (0.05, 0.2):
        power, real = power_within(current, 90.0, 0.9, 3.75)
        assert power / real == pytest.approx(3.75)
        assert power == pytest.approx(real**2 * 90.0 * (1 + 0.9 * power))
    assert power_within(0.01, 90.0, 0.9, 3.75)[1] == 0.01


def test_phase_follows_power_with_crosstalk_and_die() -> None:
    b = bank()
    cold = b.phases(1.0, 30.0, STILL)
    np.testing.assert_allclose(cold, H.phi0)
    b.set_current(2, 0.02, 1.0)
    p = power_at(0.02, H.r0[2], 0.9)
    moved = b.phases(2.0, 30.0, STILL) - cold
    np.testing.assert_allclose(moved, math.pi * H.theta[:, 2] * p / H.p_pi[2])
    assert b.heat() == pytest.approx(p)
    warmer = b.phases(2.0, 30.001, STILL) - b.phases(2.0, 30.0, STILL)
    assert math.degrees(warmer[2]) == pytest.approx(0.70, rel=1e-6)
    assert abs(math.degrees(warmer[1])) <= 0.02


def test_phase_lags_by_the_heater_s_time_constant() -> None:
    b = bank()
    b.set_current(1, 0.02, 1.0)
    full = power_at(0.02, H.r0[1], 0.9)
    assert b.powers(1.0)[1] == 0.0
    assert b.powers(1.0 + H.tau[1])[1] == pytest.approx(full * (1 - math.exp(-1)))
    assert b.powers(1.1)[1] == pytest.approx(full)
    assert b.settled_at() < 1.001


def test_readings() -> None:
    b = bank()
    b.set_current(0, 0.02, 0.0)
    r = H.r0[0] * (1 + 0.9 * b.heat())
    assert b.voltage(0) == pytest.approx(0.02 * r)
    assert b.voltage(1) == 0.0
    assert b.rail() == pytest.approx((RAIL_V - SHUNT_OHM * (0.02 + QUIESCENT_A), 0.02 + QUIESCENT_A))
    assert not b.is_open(4)
    b.set_current(4, 0.001, 0.0)
    assert b.is_open(4)
    assert b.voltage(4) == RAIL_V
    b.set_rail(False, 1.0)
    assert (b.voltage(0), b.rail(), b.is_open(4), b.heat()) == (0.0, (0.0, 0.0), False, 0.0)
    with pytest.raises(ValueError, match="channel 5"):
        b.set_current(5, 0.0, 0.0)


def test_open_and_short() -> None:
    b = bank()
    for i in (0, 1):
        b.set_current(i, 0.02, 0.0)
    b.set_faults(np.arange(4) == 0, np.arange(4) == 1, 1.0)
    assert b.is_open(0)
    assert b.voltage(0) == RAIL_V
    assert b.voltage(1) < 0.02
    assert b.heat() == 0.0
    changes = b.changes
    b.set_faults(np.arange(4) == 0, np.arange(4) == 1, 2.0)
    assert b.changes == changes
    b.set_faults(NONE, NONE, 3.0)
    assert not b.is_open(0)
    assert b.voltage(0) > 1.5


def test_ageing() -> None:
    b = bank()
    b.set_current(0, 0.01, 0.0)
    new = b.heat()
    b.age(AGEING_S, 1.0)
    b.set_current(0, 0.01, 1.0)
    assert b.heat() / new == pytest.approx(1 + 0.001 * math.log(2), rel=1e-4)


def test_no_more_than_the_rail_gives() -> None:
    b = bank()
    b.set_current(0, 0.05, 0.0)
    assert b.voltage(0) == pytest.approx(RAIL_V - HEADROOM_V)


def test_a_ballast_warms_the_die_and_turns_no_phase() -> None:
    ballast = draw_ballast(1, "alice")
    assert ballast != draw_ballast(1, "bob")
    b = HeaterBank(H, ballast)
    b.set_rail(True, 0.0)
    cold = b.phases(1.0, 30.0, STILL)
    b.set_current(4, 0.02, 1.0)
    p = power_at(0.02, ballast.r0, ballast.rho)
    assert b.heat() == pytest.approx(p)
    assert b.powers(2.0).tolist() == [0.0] * 4
    np.testing.assert_array_equal(b.phases(2.0, 30.0, STILL), cold)
    assert not b.is_open(4)
    assert b.voltage(4) == pytest.approx(0.02 * ballast.r0 * (1 + ballast.rho * p))
    assert b.rail()[1] == pytest.approx(0.02 + QUIESCENT_A)
    assert (b.cold_ohm(4), b.rho(4)) == (ballast.r0, ballast.rho)
    b.set_faults(np.arange(5) == 4, NONE, 3.0)
    assert b.is_open(4)
    assert b.heat() == 0.0


def test_a_railed_source_gives_its_own_current() -> None:
    b = bank()
    b.set_current(1, 0.01, 0.0)
    stuck = np.full(5, np.nan)
    stuck[1] = 0.03
    b.set_faults(NONE, NONE, 1.0, stuck)
    changes = b.changes
    b.set_faults(NONE, NONE, 1.5, stuck)
    assert b.changes == changes
    railed = power_at(0.03, H.r0[1], 0.9)
    assert b.heat() == pytest.approx(railed)
    b.set_current(1, 0.005, 2.0)
    assert b.heat() == pytest.approx(railed)
    b.set_faults(NONE, NONE, 3.0)
    assert b.heat() == pytest.approx(power_at(0.005, H.r0[1], 0.9))
    b.set_faults(NONE, NONE, 4.0, stuck)
    b.set_rail(False, 5.0)
    assert b.heat() == 0.0
