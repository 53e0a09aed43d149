"""Bob's self-test diode: its fringe against the formula, its interlock, what detectors and counts see of it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from sim.faults import Fault
from sim.individuals import draw_bob
from sim.physics.counts import Z0, Z1, Reception, expected
from sim.physics.module import PHOTON_J
from sim.physics.optics import from_db
from sim.physics.source import BIN_S
from sim.scenario import Scenario
from sim.world import World
from tests.sim.tuned import Pair

Floats = npt.NDArray[np.float64]
SHUTTER, DRIVE, DIODE_SHUTTER = 0, 1, 2
PHASE = 2


def quiet(seed: int = 5, **more: object) -> Scenario:
    zero = dict.fromkeys(Scenario().drifts.model_dump(), 0.0)
    return Scenario.from_mapping({"seed": seed, "drifts": zero, **more})


def lit(seed: int = 5, volts: float = 5.0) -> Pair:
    """Both shutters open, detectors unbiased, heaters supplied, the diode on."""
    p = Pair(quiet(seed))
    p.bob.set_heater_rail(True)
    p.bob.set_bias(SHUTTER, 5.0)
    p.bob.set_bias(DIODE_SHUTTER, 5.0)
    p.bob.set_bias(DRIVE, volts)
    p.advance(0.1)
    return p


def biased(p: Pair) -> None:
    for q in range(3):
        p.bob.set_detector_bias(q, 0.88 * p.bob.individual.switch_a[q])


def light_of_diode(p: Pair) -> Floats:
    """Photocurrents less the dark ones."""
    volts = p.bob.diode.drive_v
    seen = p.bob.photocurrents()
    p.bob.set_bias(DRIVE, 0.0)
    dark = p.bob.photocurrents()
    p.bob.set_bias(DRIVE, volts)
    out: Floats = seen - dark
    return out


def test_power_has_a_threshold_and_a_slope() -> None:
    p = lit()
    d, m = p.bob.individual.diode, p.bob.monitors
    for volts in (0.0, 0.8, 1.5, 3.0, 5.0):
        p.bob.set_bias(DRIVE, volts)
        entry = d.slope_w_per_v * max(0.0, volts - d.threshold_v) * from_db(d.coupler_db)
        assert light_of_diode(p)[0] == pytest.approx(entry * m.tap[0] * m.responsivity[0], rel=1e-9, abs=1e-20)
    assert 70e-9 < light_of_diode(p)[0] < 140e-9


def test_photodiodes_see_the_fringe_of_the_formula() -> None:
    p = lit()
    b, i, m = p.bob, p.bob.individual, p.bob.monitors
    watts = b.diode.entry_w() * 0.99 * from_db(i.common_db)
    seen, wanted = [], []
    for amperes in np.linspace(0.0, 0.03, 25):
        b.set_heater_current(PHASE, amperes)
        p.advance(0.01)
        seen.append(light_of_diode(p)[[3, 4]] / (m.tap * m.responsivity)[[3, 4]])
        basis, split, phase, combine = b.phases()
        kappa = math.sin(basis / 2) ** 2
        arm = watts * (from_db(i.basis_db) + (1 - 2 * from_db(i.basis_db)) * kappa) * from_db(i.x_db)
        into, out = math.sin(split / 2) ** 2, math.sin(combine / 2) ** 2
        short, long = 1 - into, into * from_db(i.long_db)
        turn = phase + 2 * math.pi * b.diode.detuning_hz(p.world.now()) * (BIN_S - i.tau_mismatch_s)
        wave = 2 * i.v_mode * math.sqrt(short * long * out * (1 - out)) * math.cos(turn)
        wanted.append([arm * ((1 - out) * short + out * long - wave), arm * (out * short + (1 - out) * long + wave)])
    np.testing.assert_allclose(seen, wanted, rtol=1e-9)
    swing = np.ptp(seen, axis=0)
    assert swing.min() > 0.3 * np.mean(seen)


def test_its_frequency_is_its_own_and_drifts_slowly() -> None:
    p = Pair(seed=5)
    t = np.arange(0.0, 4000.0, 1.0)
    hertz = np.array([p.bob.diode.detuning_hz(x) for x in t])
    assert abs(hertz.mean()) > 50e6
    assert 5e6 < np.ptp(hertz) < 100e6
    assert np.abs(np.diff(hertz)).max() < 1e6
    assert np.ptp([Pair(quiet(5)).bob.diode.detuning_hz(x) for x in t[::500]]) == 0.0
    others = {draw_bob(s).diode.offset_hz for s in range(20)}
    assert len(others) == 20


def test_detectors_see_the_same_light_through_the_closed_shutter() -> None:
    p = lit(volts=1.2)
    p.bob.set_bias(DIODE_SHUTTER, 0.0)
    shares = light_of_diode(p)[[1, 3, 4]] / (p.bob.monitors.tap * p.bob.monitors.responsivity)[[1, 3, 4]]
    biased(p)
    p.advance(0.01)
    light = p.world.light()
    assert light.diode is not None
    eff = p.bob.bank.efficiencies(0.0, np.ones(3))
    np.testing.assert_allclose(light.diode, shares / 0.99 / PHOTON_J * eff, rtol=2e-3)  # currents lose a tap's share
    rates = p.bob.detector_rates(1.0)
    assert light.rates(p.alice.pattern.stretch_now()) == pytest.approx(light.diode + light.darks, rel=1e-9)
    assert np.all(rates > 1e3)
    assert not p.bob.bank.latched.any()
    p.tagger.start()
    p.advance(0.1)
    _, channels, upto = p.tagger.collect()
    counted = np.bincount(channels, minlength=3) / (upto * 1e-12)
    usual = p.world._expected_rates()
    assert np.all(np.abs(counted - usual) < 5 * np.sqrt(usual / 0.1) + 0.01 * usual)


def test_counts_take_it_as_darks() -> None:
    p = Pair(quiet(5)).tune()
    p.alice.set_laser_enable(False)
    p.source.start_run()
    p.source.set_probabilities(16384, 32768)
    p.source.schedule(0, "KEY")
    i = p.bob.individual
    how = Reception(8000.0, 200.0, 5, i.dead_ps, i.recovery_ps, np.ones(3))
    p.bob.set_bias(DRIVE, 1.2)
    light = p.world.light()
    assert light.diode is not None
    law = expected(light, how, 0.25, 0.5)
    gate = 2e-12 * 200.0 * light.steady[0]
    assert law.outcomes[:8, [Z0, Z1]].sum() == pytest.approx(2 * gate * law.live, rel=0.05)


def test_off_it_is_not_there() -> None:
    p = Pair(quiet(5)).tune()
    before = p.world.light()
    assert before.diode is None
    p.bob.set_bias(DRIVE, 0.9)  # below any threshold
    assert p.world.light().diode is None
    np.testing.assert_array_equal(p.world.light().steady, before.darks)
    np.testing.assert_array_equal(p.world.light().cumulative(), before.cumulative())


def test_interlock_holds_the_shutter_while_anything_is_biased() -> None:
    p = lit()
    bright = light_of_diode(p)[0]
    lines = [p.bob.detectors_unbiased]
    p.bob.set_detector_bias(1, 2e-6)  # at once, nothing else is done
    lines.append(p.bob.detectors_unbiased)
    isolation = p.bob.individual.diode.isolation_db
    assert light_of_diode(p)[0] / bright == pytest.approx(10 ** (-isolation / 10), rel=1e-3)
    p.bob.set_bias(DIODE_SHUTTER, 5.0)
    assert p.bob.diode.shutter_db() == isolation
    p.bob.set_detector_bias(1, 0.5e-6)
    lines.append(p.bob.detectors_unbiased)
    assert lines == [True, False, True]
    assert light_of_diode(p)[0] == pytest.approx(bright)


def test_too_much_of_it_latches() -> None:
    p = lit()
    p.world.faults.add(Fault(p.world.now(), "stuck", "bob.diode_shutter", value=1.0))
    biased(p)
    assert p.world.light().rates(p.alice.pattern.stretch_now()).min() > 20e6
    p.advance(0.005)
    p.bob.detector_rates(0.01)
    assert not p.bob.bank.latched.any()
    for _ in range(2):
        p.advance(0.01)
        p.bob.detector_rates(0.01)
    assert p.bob.bank.latched.all()
    p.bob.set_bias(DRIVE, 0.0)
    assert p.bob.detector_rates(0.01).sum() == 0.0


def test_a_shutter_that_hangs_open_does_not_heed_the_interlock() -> None:
    p = lit()
    t = p.world.now()
    p.world.faults.add(Fault(t, "stuck", "bob.diode_shutter", 1.0))
    bright = light_of_diode(p)[0]
    p.bob.set_bias(DIODE_SHUTTER, 0.0)
    biased(p)
    assert light_of_diode(p)[0] == pytest.approx(bright)
    p.advance(1.1)
    assert light_of_diode(p)[0] < 2e-6 * bright


def test_individuals_are_in_their_ranges() -> None:
    for d in (draw_bob(seed).diode for seed in range(200)):
        assert 0.85 <= d.threshold_v <= 1.15
        assert 0.19e-3 <= d.slope_w_per_v <= 0.31e-3
        assert 57.0 <= d.isolation_db <= 63.0
        assert abs(d.offset_hz) <= 20e9


def test_the_same_scenario_gives_the_same_light() -> None:
    seen = [World(quiet(7), p.clock).bob.diode.detuning_hz(3.0) for p in (Pair(quiet(7)), Pair(quiet(7)))]
    assert seen[0] == seen[1]
