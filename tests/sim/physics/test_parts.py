"""Modulator bias, drifts, fibre, detectors, rates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim.individuals import Modulator, stream
from sim.physics.bob import shutter_db
from sim.physics.detectors import Bank, dark_rate, jitter_table, observed_rate, relative_efficiency
from sim.physics.drifts import Drifts
from sim.physics.fibre import CUT_DB, Fibre
from sim.physics.modulators import BiasCreep
from sim.physics.rates import KEEP_S, RateMeter
from sim.scenario import Link

MOD = Modulator(v_pi=4.0, v_rf=4.0, offset=1.0, xi=0.08)


def test_bias_phase_is_linear_and_creeps_with_the_logarithm_of_time() -> None:
    c = BiasCreep((MOD, MOD), 1.0)
    quiet = np.zeros(2)
    assert c.phases(30.0, quiet)[0] == pytest.approx(-math.pi / 4)
    c.set_volts(0, 5.0)
    assert c.phases(30.0, quiet)[0] == pytest.approx(math.pi)
    t = 0.0
    for dt, n in ((0.2, 500), (2.0, 500), (20.0, 500)):
        for _ in range(n):
            c.step(dt)
        t += dt * n
        moved = math.degrees(c.phases(30.0, quiet)[0] - math.pi)
        assert moved == pytest.approx(2.0 * 1.25 * math.log(1 + t / 30.0), rel=0.05)
    assert c.phases(31.0, quiet)[1] - c.phases(30.0, quiet)[1] == pytest.approx(math.radians(-0.5))


def test_creep_of_two_opposite_steps_cancels_in_the_long_run() -> None:
    c = BiasCreep((MOD,), 1.0)
    c.set_volts(0, 4.0)
    c.step(10.0)
    c.set_volts(0, 0.0)
    for _ in range(100):
        c.step(60.0)
    assert abs(c.phases(30.0, np.zeros(1))[0] + math.pi / 4) < math.radians(0.05)


def test_drifts_have_their_widths() -> None:
    d = Drifts(stream(1, "d"), 0.2)
    d.ou("ou", 2.0, 4.0)
    d.walk("walk", 0.5, 200)
    with pytest.raises(ValueError, match="already"):
        d.walk("ou", 1.0)
    seen = []
    for _ in range(5000):
        d.step()
        seen.append(d["ou"])
    assert np.std(seen) == pytest.approx(2.0, rel=0.25)
    assert np.std(d.row("walk")) == pytest.approx(0.5 * math.sqrt(1000.0), rel=0.2)
    still = d.row("walk").copy()
    d.rescale("walk", 0.0)
    d.step()
    assert np.array_equal(d.row("walk"), still)


def test_fibre() -> None:
    f = Fibre(Link(loss_db=10.0))
    assert f.transit_ps == pytest.approx(50 * 4.897e6)
    f.walk_db, f.bend_db = 0.1, 2.0
    assert f.loss_db == pytest.approx(12.1)
    f.cut = True
    assert f.loss_db == CUT_DB
    f.warmer_k = 1.0
    assert f.delay_ps == pytest.approx(38.0 * 50 * 0.1)
    assert Fibre(Link(loss_db=10.0, length_km=2.0)).transit_ps == pytest.approx(2 * 4.897e6)
    g = np.random.default_rng(2)
    seen = []
    for _ in range(4000):
        f.turn_polarisation(tuple(g.normal(0, 0.2, 3)))
        seen.append(f.alignment)
    assert abs(np.mean(seen)) < 0.15
    assert np.std(seen) == pytest.approx(1 / math.sqrt(3), rel=0.2)


def test_efficiency_and_darks_against_bias() -> None:
    switch = 20e-6
    assert relative_efficiency(0.0, switch) < 1e-10
    assert relative_efficiency(0.72 * switch, switch) == pytest.approx(0.5)
    assert relative_efficiency(0.92 * switch, switch) > 0.999
    assert dark_rate(0.92 * switch, switch, 100.0) == pytest.approx(100.0, rel=1e-3)
    assert dark_rate(0.0, switch, 100.0) == 0.0
    above, below = (dark_rate(b * switch, switch, 100.0) for b in (0.97, 0.92))
    assert above - below == pytest.approx(50 * (math.exp(1e-6 / 1.1e-6) - 1), rel=0.01)


def _bank() -> Bank:
    return Bank(np.full(3, 0.8), np.full(3, 100.0), np.full(3, 20e-6))


def test_a_wide_curve_has_no_plateau() -> None:
    b = _bank()
    b.widening[0] = 8.0
    seen = []
    for amperes in (17e-6, 18e-6, 19e-6):
        for q in (0, 1):
            b.set_bias(q, amperes)
        seen.append(b.efficiencies(0.0, np.ones(3))[:2])
    rise = np.diff(np.log(seen), axis=0)
    assert rise[:, 0].min() > 0.03
    assert rise[:, 1].max() < 0.015
    assert dark_rate(18e-6, 20e-6, 100.0, 8.0) < dark_rate(18e-6, 20e-6, 100.0)


def test_latching_by_current_warmth_and_light() -> None:
    b = _bank()
    for q in range(3):
        b.set_bias(q, 18e-6)
    assert b.efficiencies(0.0, np.ones(3)) == pytest.approx([0.8] * 3, rel=0.01)
    assert b.voltage(0) < 2e-3
    b.set_bias(0, 20.5e-6)
    assert b.latched.tolist() == [True, False, False]
    assert b.voltage(0) > 0.5
    b.set_bias(0, 10e-6)
    assert b.latched[0]
    assert b.dark_rates(0.0)[0] == 0.0
    b.set_bias(0, 0.0)
    assert not b.latched[0]
    b.note_warming(25.0)
    assert b.latched.tolist() == [False, True, True]
    for q in (1, 2):
        b.set_bias(q, 0.0)
        b.set_bias(q, 18e-6)
    bright = np.array([0.0, 30e6, 30e6])
    b.note_rates(bright, 1.000)
    b.note_rates(np.array([0.0, 30e6, 1e6]), 1.005)
    b.note_rates(bright, 1.011)
    assert b.latched.tolist() == [False, True, False]


def test_jitter_is_centred_with_the_right_width_and_tail() -> None:
    q = jitter_table(40.0)
    assert np.interp(0.5, np.linspace(0, 1, len(q)), q) == pytest.approx(0.0, abs=0.1)
    half = np.interp([0.16, 0.84], np.linspace(0, 1, len(q)), q)
    assert np.diff(half)[0] / 2 == pytest.approx(math.hypot(40, 100) / 2.3548, rel=0.05)
    outside = 1 - np.diff(np.interp([-200.0, 200.0], q, np.linspace(0, 1, len(q))))[0]
    assert outside == pytest.approx(0.00105, abs=0.0004)


def test_shutter_and_dead_time_law() -> None:
    assert shutter_db(0.0) == shutter_db(-1.0) == 60.0
    assert shutter_db(4.5) == shutter_db(5.0) == 0.0
    assert observed_rate(np.array([1e6]), np.array([15e-9]), np.array([4e-9])) == pytest.approx(1e6 / 1.019)


class Level:
    def __init__(self) -> None:
        self.rate = 1e6

    def __call__(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.full(3, self.rate)


def test_rates_average_over_the_period() -> None:
    level = Level()
    meter = RateMeter(level, stream(1, "r"))
    meter.note(0.0)
    assert meter.measure(0.0, 0.1) == pytest.approx([1e6] * 3, rel=0.02)
    meter.note(1.0)
    level.rate = 0.0
    assert meter.measure(1.05, 0.1) == pytest.approx([5e5] * 3, rel=0.02)
    meter.note(1.1)
    level.rate = 2e6
    assert meter.measure(1.15, 0.1) == pytest.approx([1e6] * 3, rel=0.02)
    assert meter.measure(1.15, 0.2) == pytest.approx([(1e6 * 0.05 + 2e6 * 0.05) / 0.2] * 3, rel=0.03)
    for t in np.arange(1.2, 3.0, 0.2):
        meter.note(float(t))
    assert len(meter._past) < 5
    meter.note(3.0 + KEEP_S)
    meter.note(3.1 + KEEP_S)
    assert not meter._past


def test_rates_are_counts() -> None:
    meter = RateMeter(Level(), stream(2, "r"))
    seen = np.array([meter.measure(0.0, 0.01) for _ in range(300)])
    assert seen.std() == pytest.approx(math.sqrt(1e6 / 0.01), rel=0.15)
