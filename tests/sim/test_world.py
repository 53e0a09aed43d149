"""The coupled world: set points, photodiode laws, modes, rates, clicks, determinism, faults, cost."""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt
import pytest

from sim.clock import ManualClock
from sim.faults import Fault
from sim.individuals import factory_record
from sim.ports import AlicePort, BobPort, SourcePort, TaggerPort, TecPort
from sim.scenario import Scenario
from sim.world import World
from tests.sim.tuned import MU, Pair

Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(seed=5).tune()


def _quiet(seed: int = 5, **link: float) -> Scenario:
    zero = dict.fromkeys(Scenario().drifts.model_dump(), 0.0)
    return Scenario.from_mapping({"seed": seed, "drifts": zero, "link": link})


def test_the_world_is_what_electronics_expect() -> None:
    world = World(Scenario(), ManualClock())
    alice: AlicePort = world.alice
    bob: BobPort = world.bob
    source: SourcePort = world.alice.source
    tagger: TaggerPort = world.bob.tagger
    tec: TecPort = world.alice.tec
    assert (alice.name, bob.name) == ("alice", "bob")
    assert source.run_now() == (0, 0)
    assert tagger.collect()[2] == 0
    assert not tec.enabled


def test_starts_dark_and_cold() -> None:
    p = Pair(seed=1)
    p.advance(1.0)
    assert p.alice.laser()[0] is False
    assert p.alice.photocurrents().max() < 1e-9
    assert p.alice.submount_c() == pytest.approx(25.0, abs=0.01)
    assert p.alice.heater_rail() == (0.0, 0.0)
    assert p.bob.detector_rates(1.0).sum() == 0.0
    assert Pair(Scenario.from_mapping({"start": {"bob_c": 31.0}})).bob.submount_c() == 31.0


def test_a_tuned_pair_has_the_figures_of_the_reference(pair: Pair) -> None:
    s = pair.truth.snapshot()
    assert 0.003 < s.qber_z < 0.012
    assert 0.007 < s.qber_x < 0.0225
    assert s.qber_x == pytest.approx(s.qber_x_floor, abs=2e-4)
    assert s.mu[0] == pytest.approx(MU, rel=0.02)
    assert s.mu[1] / s.mu[0] == pytest.approx(1 / 3, rel=0.03)
    assert s.loss_db == pytest.approx(10.0, abs=0.05)
    assert max(map(abs, pair.truth.set_points().values())) < math.radians(5.0)


def test_laser_needs_its_enable_line(pair: Pair) -> None:
    assert pair.alice.laser()[0]
    pair.alice.set_laser_enable(False)
    assert pair.alice.photocurrents()[6] < 1e-9
    pair.alice.set_laser_enable(True)
    assert 1e-5 < pair.alice.photocurrents()[6] < 5e-5
    _, hz, dbm = pair.alice.laser()
    assert abs(hz - 193.4145e12) < 2e9
    assert dbm == pytest.approx(13.0, abs=0.2)


def _net(p: Pair) -> Floats:
    """Photocurrents less the darks."""
    seen = p.alice.photocurrents()
    on = p.alice._laser
    p.alice.set_laser(False, on[1], on[2])
    dark = p.alice.photocurrents()
    p.alice.set_laser(*on)
    out: Floats = seen - dark
    return out


def test_photodiodes_in_every_mode(pair: Pair) -> None:
    source, i = pair.source, pair.alice.individual
    source.start_run()
    seen = {}
    for mode, state, k in [("FIX", 0, 0), ("FIX", 0, 1), ("FIX", 1, 0), ("FIX", 2, 0), ("NULL", 0, 0), ("OFF", 0, 0)]:
        source.schedule(0, mode, state, k)
        seen[mode, state, k] = _net(pair)
    for mode in ("SYNC", "KEY", "CW"):
        source.schedule(0, mode)
        seen[mode, 0, 0] = _net(pair)
    mu = pair.truth.snapshot().mu
    bright = seen["FIX", 0, 0][3]
    assert 50e-9 < bright < 120e-9
    assert seen["FIX", 0, 1][3] / bright == pytest.approx(mu[1] / mu[0], rel=0.01)
    assert seen["FIX", 2, 0][3] / bright == pytest.approx(mu[4] / mu[0], rel=0.01)
    assert seen["SYNC", 0, 0][3] == pytest.approx((bright + seen["FIX", 1, 0][3]) / 2, rel=1e-3)
    assert seen["KEY", 0, 0][3] == pytest.approx(bright * np.mean(mu) / mu[0], rel=0.01)
    leak = seen["NULL", 0, 0][3] / bright
    assert 0.5 * 2 * i.state.xi**2 < leak < 2.5 * 2 * i.state.xi**2
    d = pair.truth.set_points()["c"]
    off = i.carver.xi**2 * math.cos(d / 2) ** 2 + math.sin(d / 2) ** 2
    pulsed, still = seen["KEY", 0, 0][1], seen["OFF", 0, 0][1]
    fringe = 1.0 - pair.alice._fringe() / sum(pair.alice.arms())
    assert pulsed / still * fringe == pytest.approx((0.0125 + 0.9875 * off) / off, rel=0.01)
    # Undriven: the leak of C all through the slot and the AMZI's fringe, in place of two pulses.
    same = seen["NULL", 0, 0][3] * 80 * off * (2.0 - fringe) / (1.0 + 76 * off)
    assert seen["OFF", 0, 0][3] == pytest.approx(same, rel=0.05)
    assert np.allclose(seen["CW", 0, 0], seen["OFF", 0, 0], rtol=1e-3)
    floor = i.shutter_floor + math.sin(pair.truth.set_points()["shutter"] / 2) ** 2
    assert seen["KEY", 0, 0][4] / seen["KEY", 0, 0][3] == pytest.approx(
        0.95 * floor / (pair.alice.monitors.tap[3]), rel=0.1
    )


def test_absolute_mu_from_the_factory_record(pair: Pair) -> None:
    pair.source.start_run()
    pair.source.schedule(0, "FIX", 0, 0)
    record = factory_record(pair.alice.individual, 5)
    attenuation = np.interp(pair.alice.voa_volts(), record["voa"]["volts"], record["voa"]["db"])
    mu = record["mean_photon"]["constant"] * _net(pair)[3] * 8e-9 * 10 ** (-attenuation / 10)
    assert mu == pytest.approx(pair.truth.snapshot().mu[0], rel=0.025)


def test_carver_null_is_the_minimum_of_pa1_and_cw_has_a_fringe() -> None:
    p = Pair(_quiet()).tune()
    p.source.start_run()
    p.source.schedule(0, "KEY")
    volts, v_pi = p.bias[0], p.alice.individual.carver.v_pi
    seen = []
    for d in (-0.2, 0.0, 0.2):
        p.alice.set_bias(0, volts + d * v_pi / math.pi)
        seen.append(p.alice.photocurrents()[1])
    assert seen[0] == pytest.approx(seen[2], rel=0.1)
    assert seen[1] < 0.8 * seen[0]
    p.alice.set_bias(0, volts + v_pi)
    p.source.schedule(0, "CW")
    hertz = [193.4145e12 + f for f in np.arange(8) * 1.25e9 / 8]
    fringe = []
    for f in hertz:
        p.alice.set_laser(True, f, 13.0)
        fringe.append(p.alice.photocurrents()[1])
    visibility = abs(np.fft.fft(fringe)[1]) * 2 / np.fft.fft(fringe)[0].real
    assert visibility == pytest.approx(p.alice.individual.fringe, abs=0.02)
    step = np.angle(np.fft.fft(fringe)[1])
    assert math.degrees(2 * math.pi * 1e6 * 800e-12) == pytest.approx(0.29, abs=0.01)
    assert np.isfinite(step)


def test_modes_change_at_their_slot() -> None:
    p = Pair(_quiet(loss_db=3.0)).tune()
    p.source.start_run()
    p.source.schedule(0, "OFF")
    p.tagger.start()
    first, second = 20_000_000, 25_000_000
    p.source.schedule(first, "FIX", 1)
    p.source.schedule(second, "SYNC")
    p.advance(0.3)
    times, channels, upto = p.tagger.collect()
    z = times[channels == 0] - p.bob.individual.delay_ps[0]
    start, end = p.truth.tag_of_slot(first), p.truth.tag_of_slot(second)
    slots = (z - p.truth.tag_of_slot(0)) / (8000.0 * (1 + p.truth.clock_offset()))
    assert len(z[z < start - 1000]) < 0.02 * len(z)
    middle = (z > start) & (z < end)
    late = (slots[middle] - np.round(slots[middle] - 0.05)) > 0.05
    assert late.mean() > 0.98
    after = slots[z > end + 8000]
    late = (after - np.floor(after + 0.1)) > 0.05
    sent = p.source.symbols(np.floor(after + 0.1).astype(np.int64)) >> 1 & 1
    assert (late == sent).mean() > 0.98
    assert p.source.mode_at(first - 1) == "OFF"
    assert p.source.mode_at(second) == "SYNC"
    assert upto == pytest.approx(0.3e12, abs=2e9 + 1e6)


def test_rates_agree_with_clicks() -> None:
    p = Pair(_quiet()).tune()
    p.source.start_run()
    p.source.schedule(0, "KEY")
    p.advance(0.1)
    p.tagger.start()
    p.advance(0.2)
    _, channels, upto = p.tagger.collect()
    counted = np.bincount(channels, minlength=3) / (upto * 1e-12)
    rates = p.bob.detector_rates(1.0)
    assert np.all(np.abs(counted - rates) < 5 * np.sqrt(counted / 0.2) + 0.01 * counted)


def test_gate_is_the_ungated_stream_seen_through_a_slit(pair: Pair) -> None:
    pair.source.start_run()
    pair.source.schedule(0, "KEY")
    pair.tagger.set_gate(1_000_000_000, 50_000_000_000)
    pair.tagger.start()
    pair.advance(1.0)
    times, channels, _ = pair.tagger.collect()
    assert np.all(times % 50_000_000_000 < 1_000_000_000)
    assert np.all(np.diff(times) >= 0)
    rates = pair.bob.detector_rates(1.0)
    windows = 20
    counts = np.bincount(channels, minlength=3)
    assert np.all(np.abs(counts - rates * windows * 1e-3) < 6 * np.sqrt(rates * windows * 1e-3))
    pair.tagger.set_gate(0, 0)
    pair.tagger.stop()
    with pytest.raises(ValueError, match="open"):
        pair.tagger.set_gate(2, 1)


def _history(seed: int, step: float) -> list[bytes]:
    p = Pair(seed=seed)
    p.power_up(5.0)
    p.source.start_run()
    p.source.set_probabilities(16384, 32768)
    p.source.set_rf("carver", 4.0)
    p.source.set_rf("state", 4.0)
    p.source.schedule(0, "KEY")
    p.tagger.start()
    out = []
    for k in range(4):
        p.advance(step)
        p.alice.set_heater_current(1, 0.005 * k)
        times, channels, _ = p.tagger.collect()
        numbers = [p.alice.photocurrents(), p.bob.detector_rates(0.1), np.array([p.bob.tec.object_c])]
        out += [times.tobytes(), channels.tobytes()] + [n.tobytes() for n in numbers]
    return out


def test_same_calls_same_world() -> None:
    assert _history(3, 0.05) == _history(3, 0.05)
    assert _history(3, 0.05) != _history(4, 0.05)


def test_drawing_early_or_late_is_the_same() -> None:
    early, late = Pair(seed=6), Pair(seed=6)
    seen = []
    for p in (early, late):
        p.power_up(1.0)
        p.alice.set_bias(3, 1.0)
        p.tagger.start()
        for _ in range(10):
            p.advance(0.021)
            if p is early:
                p.world.pump(1.0)
        seen.append(p.tagger.collect())
    assert np.array_equal(seen[0][0], seen[1][0])
    assert seen[0][2] == seen[1][2]


def test_a_closed_gate_draws_nothing_but_time_goes_on() -> None:
    p = Pair(seed=6)
    p.power_up(1.0)
    p.tagger.set_gate(1_000_000_000, 10_000_000_000_000)
    p.tagger.start()
    p.advance(3.0)
    p.tagger.collect()
    p.advance(3.0)
    times, _, upto = p.tagger.collect()
    assert len(times) == 0
    assert upto > 5.9e12


def test_too_many_clicks_for_the_buffers_are_an_error() -> None:
    p = Pair(seed=6)
    p.power_up(1.0)
    p.alice.set_bias(3, 1.0)
    p.tagger.start()
    p.bob.clicks._photon_times = np.empty(2)
    p.advance(1.0)
    with pytest.raises(OverflowError, match="detections"):
        p.tagger.collect()


def test_clicks_that_cross_the_edge_of_a_slice_are_sorted() -> None:
    p = Pair(seed=6)
    p.tagger.start()
    for times, channels in (([10, 30], [0, 1]), ([20, 10**15], [2, 0])):
        p.bob.clicks._ready.append((np.array(times), np.array(channels, np.uint8)))
    p.advance(0.1)
    times, channels, _ = p.tagger.collect()
    assert times.tolist() == [10, 20, 30]
    assert channels.tolist() == [0, 2, 1]


def test_a_long_sleep_is_stepped_inside() -> None:
    a, b = Pair(seed=2), Pair(seed=2)
    for p in (a, b):
        p.power_up(1.0)
    for _ in range(60):
        a.advance(0.5)
    b.advance(30.0)
    assert a.alice.submount_c() == b.alice.submount_c()
    np.testing.assert_array_equal(a.bob.phases(), b.bob.phases())


def test_bob_s_clock_runs_at_its_own_pace() -> None:
    p = Pair(Scenario.from_mapping({"detection": {"clock_offset_ppm": 2.0}, "drifts": {"clock": 0.0}}))
    p.tagger.start()
    p.advance(10.0)
    assert p.tagger.now_ps() == pytest.approx(10e12 + 20e6, abs=100)


FAULTS = [
    Fault(200.0, "cut", "fibre", 10.0),
    Fault(220.0, "open", "alice.heater.2", 10.0),
    Fault(220.0, "short", "bob.heater.1", 10.0),
    Fault(240.0, "dead", "alice.laser", 10.0),
    Fault(260.0, "latched", "bob.detector.1", 10.0),
    Fault(280.0, "stuck", "bob.shutter", 10.0, value=0.0),
    Fault(300.0, "bend", "fibre", 10.0, value=3.0),
    Fault(320.0, "bright", "alice.input", 10.0),
    Fault(320.0, "bright", "bob.input", 10.0, value=1e-6),
    Fault(340.0, "warm", "bob.cryostat", 10.0, value=40.0),
    Fault(360.0, "walk", "bob.clock", 10.0, value=1e-8),
    Fault(380.0, "reversed", "bob.tec", 10.0),
    Fault(380.0, "fan", "alice.tec", 10.0),
]


def test_scripted_faults_come_and_go() -> None:
    p = Pair(_quiet()).tune()
    for fault in FAULTS:
        p.world.faults.add(fault)
    p.world._next_edge = p.world.faults.next_edge(p.clock.t)
    p.source.start_run()
    p.source.schedule(0, "KEY")

    def at(t: float) -> Floats:
        p.advance(t - p.clock.t)
        return p.bob.detector_rates(0.1)

    usual = at(199.0)
    assert at(205.0).sum() < 2000.0
    assert at(215.0) == pytest.approx(usual, rel=0.1)
    at(225.0)
    assert p.alice.heater_open(2)
    assert p.alice.heater_voltage(2) == 4.0
    assert p.bob.heater_voltage(1) < 0.05
    at(235.0)
    assert not p.alice.heater_open(2)
    at(245.0)
    assert not p.alice.laser()[0]
    assert at(265.0)[1] == 0.0
    assert p.bob.detector_voltage(1) > 0.3
    assert at(275.0)[1] == 0.0
    working = float(p.bob.bank.bias[1])
    p.bob.set_detector_bias(1, 0.0)
    p.bob.set_detector_bias(1, working)
    assert p.bob.detector_voltage(1) < 0.01
    assert at(285.0).sum() < 2000.0
    assert at(295.0)[0] == pytest.approx(usual[0], rel=0.1)
    assert at(305.0)[0] == pytest.approx(usual[0] / 2, rel=0.1)
    at(325.0)
    assert p.alice.photocurrents()[5] > 5e-9
    assert p.bob.photocurrents()[0] > 5e-9
    at(345.0)
    assert p.bob.bank.latched.all()
    before = p.truth.clock_offset()
    at(365.0)
    assert p.truth.clock_offset() == before  # the scenario's clock drift is off
    at(385.0)
    assert abs(p.bob.submount_c() - 30.0) > 0.5


def test_bright_light_latches_and_costs_little() -> None:
    p = Pair(_quiet(loss_db=0.0)).tune()
    p.alice.set_bias(3, 0.0)
    p.source.start_run()
    p.tagger.start()
    p.source.schedule(0, "FIX", 2)
    p.advance(0.1)
    p.tagger.collect()
    assert p.bob.bank.latched.all()
    assert p.bob.detector_rates(0.01).sum() == 0.0


def test_refusals(pair: Pair) -> None:
    with pytest.raises(ValueError, match="detector 3"):
        pair.bob.set_detector_bias(3, 0.0)
    with pytest.raises(ValueError, match="period"):
        pair.bob.detector_rates(0.0)
    pair.alice.set_bias(9, 1.0)
    pair.bob.set_bias(1, 1.0)


def test_photons_of_an_idle_world_cost_nothing(pair: Pair) -> None:
    """A budget, not a benchmark: ten times what is measured."""
    pair.tagger.stop()
    start = time.perf_counter()
    pair.advance(60.0)
    assert time.perf_counter() - start < 60 * 0.002


def test_modules_with_ballast_and_wandering_dies() -> None:
    plain, built = Pair(seed=3), Pair(Scenario.from_mapping({"seed": 3, "modules": {"ballast": True}}))
    for p in (plain, built):
        for side in (p.alice, p.bob):
            side.set_heater_rail(True)
            side.set_heater_current(4, 0.02)
        p.advance(0.1)
    assert plain.alice.heater_open(4)
    assert not built.alice.heater_open(4)
    assert built.bob.heater_rail()[1] == pytest.approx(plain.bob.heater_rail()[1] + 0.02)
    np.testing.assert_array_equal(built.alice.individual.heaters.p_pi, plain.alice.individual.heaters.p_pi)
    wander = {"die_noise_k": 0.005, "die_noise_s": 2.0}
    noisy = Pair(Scenario.from_mapping({"seed": 3, "drifts": {"phase": 0.0, "ambient": 0.0}, "modules": wander}))
    seen = []
    for _ in range(400):
        noisy.advance(1.0)
        seen.append((noisy.alice.die_c - noisy.alice.plant.die_c, float(noisy.alice.phases()[2])))
    offset, phase = np.array(seen).T
    assert offset.std() == pytest.approx(0.005, rel=0.25)
    assert np.corrcoef(np.diff(offset), np.diff(phase))[0, 1] > 0.99  # the plant itself drifts slowly
    assert plain.alice.die_c == plain.alice.plant.die_c


def test_dead_photodiode_railed_heater_and_a_wire_without_plateau() -> None:
    faults = [
        {"at": 1.0, "for": 2.0, "on": "alice.photodiode.6", "what": "dead"},
        {"at": 1.0, "for": 2.0, "on": "bob.heater.1", "what": "railed", "value": 0.03},
        {"at": 1.0, "for": 2.0, "on": "bob.detector.2", "what": "plateau"},
    ]
    p = Pair(Scenario.from_mapping({"seed": 3, "fault": faults}))
    p.bob.set_heater_rail(True)
    seen = []
    for _ in range(4):
        p.advance(0.9)
        power = float(p.bob.heaters.powers(p.world.now())[1])
        seen.append((p.alice.photocurrents()[6], power, float(p.bob.bank.widening[2])))
    assert [s[0] > 0.0 for s in seen] == [True, False, False, True]
    assert [s[1] > 0.07 for s in seen] == [False, True, True, False]
    assert [s[2] for s in seen] == [1.0, 8.0, 8.0, 1.0]
