"""Each optical fault changes what it says and nothing else: all readings of a quiet pair, before and in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from sim.faults import WORLD_KINDS, Fault, understood
from sim.physics.defects import PATHS
from sim.scenario import Scenario, ScenarioError
from tests.sim.tuned import Pair

ALL_RATES = "rate0 rate1 rate2"
BEHIND_PA6 = f"pa0 pa1 pa3 pa4 pa7 {ALL_RATES}"
BEHIND_AMZI = f"pa3 pa4 pa7 {ALL_RATES}"
INSIDE = "pb1 pb3 pb4"


def _quiet(seed: int = 5, **more: object) -> Scenario:
    zero = dict.fromkeys(Scenario().drifts.model_dump(), 0.0)
    return Scenario.from_mapping({"seed": seed, "drifts": zero, **more})


@pytest.fixture(scope="module")
def keying() -> Pair:
    """Sending; detectors biased; biases well away from a null, so that nothing hides behind zero."""
    p = Pair(_quiet()).tune()
    for channel in range(2):
        p.alice.set_bias(channel, p.bias[channel] + 0.3)
    p.alice.set_heater_current(3, 0.012)  # the shutter half open: PA4 and PA7 both see light
    p.alice.set_heater_current(2, 0.010)
    p.source.start_run()
    p.source.schedule(0, "KEY")
    p.advance(1.0)
    return p


@pytest.fixture(scope="module")
def lit() -> Pair:
    """Self-test light in the receiver, detectors unbiased, all heaters warm."""
    p = Pair(_quiet())
    for side in (p.alice, p.bob):
        side.set_heater_rail(True)
        for channel, amperes in enumerate((0.010, 0.013, 0.016, 0.019)):
            side.set_heater_current(channel, amperes)
    for channel in range(3):
        p.bob.set_bias(channel, 5.0)
    p.advance(1.0)
    return p


def readings(p: Pair) -> dict[str, float]:
    """All that electronics and counters can see, less what is noisy by itself."""
    _, hz, dbm = p.alice.laser()
    out = {"hz": hz, "dbm": dbm, "rail_a": p.alice.heater_rail()[1], "rail_b": p.bob.heater_rail()[1]}
    for name, side in (("a", p.alice), ("b", p.bob)):
        out |= {f"p{name}{i}": v for i, v in enumerate(side.photocurrents().tolist())}
        out |= {f"h{name}{i}": side.heater_voltage(i) for i in range(4)}
        out |= {f"open_{name}{i}": float(side.heater_open(i)) for i in range(4)}
    out |= {f"rate{q}": v for q, v in enumerate(p.world._expected_rates().tolist())}
    out |= {f"bias{q}": p.bob.detector_voltage(q) for q in range(3)}
    return out


def struck(p: Pair, kind: str, target: str, value: float | None) -> tuple[dict[str, float], dict[str, float]]:
    """Readings before the fault and 1 ms into it, when heaters have settled and nothing else has moved yet; afterwards
    the pair is whole again."""
    assert understood(kind, target)
    before = readings(p)
    p.world.faults.add(Fault(p.world.now(), kind, target, 0.02, value))
    p.advance(0.001)
    during = readings(p)
    p.advance(0.099)
    for q in range(3):
        amperes = float(p.bob.bank.bias[q])
        p.bob.set_detector_bias(q, 0.0)
        p.bob.set_detector_bias(q, amperes)
    return before, during


def changed(before: dict[str, float], during: dict[str, float]) -> set[str]:
    return {n for n in before if not math.isclose(before[n], during[n], rel_tol=1e-9, abs_tol=1e-18)}


KEYING: list[tuple[str, str, float | None, str]] = [
    ("loss", "alice.path.laser", 3.0, f"pa6 {BEHIND_PA6}"),
    ("loss", "alice.path.filter", 3.0, BEHIND_PA6),
    ("loss", "alice.path.amzi_input", 3.0, f"pa1 {BEHIND_AMZI}"),
    ("loss", "alice.path.amzi", 3.0, f"pa1 {BEHIND_AMZI}"),
    ("loss", "alice.path.state", 3.0, BEHIND_AMZI),
    ("loss", "alice.path.shutter", 3.0, f"pa4 pa7 {ALL_RATES}"),
    ("loss", "alice.path.output", 3.0, f"pa7 {ALL_RATES}"),
    ("loss", "bob.path.z", 3.0, "rate0 pb1"),
    ("loss", "bob.path.x", 3.0, "rate1 rate2 pb3 pb4"),
    ("loss", "bob.path.amzi", 3.0, "rate1 rate2"),
    ("loss", "bob.path.input", 3.0, f"{ALL_RATES} {INSIDE}"),
    ("dim", "alice.laser", None, f"dbm pa6 {BEHIND_PA6}"),
    ("noisy", "alice.laser", None, f"dbm pa6 {BEHIND_PA6}"),
    ("hop", "alice.laser", None, f"hz {BEHIND_PA6}"),
    ("dead", "alice.laser", None, f"pa6 {BEHIND_PA6}"),
    ("stuck", "alice.bias.1", 0.0, BEHIND_AMZI),
    ("stuck", "alice.bias.0", 0.0, f"pa1 {BEHIND_AMZI}"),
    ("swapped", "alice.bias.1", 2.0, BEHIND_AMZI),
    ("swapped", "alice.bias.0", None, f"pa1 {BEHIND_AMZI}"),
    ("weak", "alice.modulator.0", None, f"pa1 {BEHIND_AMZI}"),
    ("weak", "alice.modulator.2", None, BEHIND_AMZI),
    ("extinction", "alice.modulator.0", None, f"pa1 {BEHIND_AMZI}"),
    ("extinction", "alice.modulator.1", None, BEHIND_AMZI),
    ("extinction", "alice.modulator.2", None, BEHIND_AMZI),
    ("open", "alice.rf.0", None, f"pa1 {BEHIND_AMZI}"),
    ("open", "alice.rf.1", None, BEHIND_AMZI),
    ("open", "alice.rf.2", None, BEHIND_AMZI),
    ("stuck", "alice.attenuator", 1.0, f"pa7 {ALL_RATES}"),
    ("offset", "alice.attenuator", None, f"pa7 {ALL_RATES}"),
    ("table", "alice.attenuator", None, f"pa7 {ALL_RATES}"),
    ("short", "alice.photodiode.3", None, "pa3"),
    ("stuck", "alice.photodiode.0", None, "pa0"),
    ("insensitive", "alice.photodiode.1", None, "pa1"),
    ("leaky", "alice.photodiode.4", None, "pa4"),
    ("noisy", "alice.photodiode.6", None, "pa6"),
    ("dead", "alice.photodiode.5", None, "pa5"),
    ("swapped", "alice.photodiode.3", None, "pa3 pa4"),
    ("swapped", "alice.photodiode.0", 6.0, "pa0 pa6"),
    ("weak", "alice.heater.3", None, f"pa4 pa7 {ALL_RATES}"),
    ("dead", "bob.detector.0", None, "rate0"),
    ("insensitive", "bob.detector.1", None, "rate1"),
    ("leaky", "bob.detector.2", None, "rate2"),
    ("noisy", "bob.detector.1", None, "bias1"),
    ("normal", "bob.detector.0", None, "rate0 bias0"),
    ("weak", "bob.detector.2", None, "rate2 bias2"),
    ("latched", "bob.detector.1", None, "rate1 bias1"),
    ("swapped", "bob.detector", None, "rate1 rate2"),
]

LIT: list[tuple[str, str, float | None, str]] = [
    ("loss", "bob.path.input", None, INSIDE),
    ("loss", "bob.path.z", None, "pb1"),
    ("loss", "bob.path.x", None, "pb3 pb4"),
    ("loss", "bob.path.amzi", None, "pb3 pb4"),
    ("stuck", "bob.shutter", 0.0, INSIDE),
    ("dead", "bob.diode", None, f"pb0 {INSIDE}"),
    ("weak", "bob.diode", None, f"pb0 {INSIDE}"),
    ("stuck", "bob.diode_shutter", 1.0, f"pb0 {INSIDE}"),
    ("swapped", "bob.photodiode.3", None, "pb3 pb4"),
    ("insensitive", "bob.photodiode.1", None, "pb1"),
    ("weak", "bob.heater.1", None, "pb3 pb4"),
    ("swapped", "bob.heater.1", 3.0, "hb1 hb3 pb1 pb3 pb4"),
    ("drifted", "bob.heater.2", None, "hb2 pb1 pb3 pb4"),
    ("drifted", "alice.heater.1", None, "ha1"),
    ("swapped", "alice.heater.0", None, "ha0 ha1"),
    ("open", "bob.heater.0", None, "hb0 open_b0 rail_b pb1 pb3 pb4"),
    ("short", "alice.heater.2", None, "ha2"),
]


@pytest.mark.parametrize(("kind", "target", "value", "seen"), KEYING, ids=lambda v: str(v))
def test_in_service(keying: Pair, kind: str, target: str, value: float | None, seen: str) -> None:
    now = changed(*struck(keying, kind, target, value))
    # Light from the fibre is next to nothing for the receiver's own photodiodes: they may or may not tell.
    faint = {"pb0", "pb1", "pb3", "pb4"} if target.startswith("alice") else set(INSIDE.split())
    assert now - faint == set(seen.split()) - faint
    assert now <= set(seen.split()) | (faint if "rate" in seen else set())


@pytest.mark.parametrize(("kind", "target", "value", "seen"), LIT, ids=lambda v: str(v))
def test_in_self_test_light(lit: Pair, kind: str, target: str, value: float | None, seen: str) -> None:
    assert changed(*struck(lit, kind, target, value)) == set(seen.split())


def test_a_loss_is_as_large_as_it_says(keying: Pair, lit: Pair) -> None:
    sides = {"a": keying.alice, "b": lit.bob}
    dark = {n: m.monitors.dark * 2.0 ** ((m.plant.die_c - 30.0) / 10.0) for n, m in sides.items()}
    for p, target, channel in (
        (keying, "alice.path.laser", 6),
        (keying, "alice.path.shutter", 4),
        (keying, "alice.path.output", 7),
        (lit, "bob.path.input", 1),
        (lit, "bob.path.x", 3),
    ):
        name = f"p{target[0]}{channel}"
        before, during = struck(p, "loss", target, 2.0)
        floor = dark[target[0]][channel]
        assert (during[name] - floor) / (before[name] - floor) == pytest.approx(10**-0.2, rel=1e-4)


def test_the_script_may_grow_while_the_world_runs() -> None:
    p = Pair(_quiet())
    p.advance(10.0)
    p.world.faults.add(Fault(12.0, "leaky", "bob.photodiode.0", 1.0))
    seen = []
    for _ in range(5):
        p.advance(0.9)
        seen.append(p.bob.photocurrents()[0] > 1e-8)
    assert seen == [False, False, True, False, False]


def test_a_loose_contact_comes_and_goes() -> None:
    fault = {"at": 1.0, "for": 10.0, "on": "bob.heater.1", "what": "open", "every": 0.5, "share": 0.2}
    p = Pair(Scenario.from_mapping({"seed": 3, "fault": [fault]}))
    p.bob.set_heater_rail(True)
    p.bob.set_heater_current(1, 0.01)
    seen = []
    for _ in range(1200):
        p.advance(0.01)
        seen.append(p.bob.heater_open(1))
    assert not any(seen[:98])
    assert not any(seen[1101:])
    assert sum(seen) == pytest.approx(200, abs=21)
    assert sum(a != b for a, b in pairwise(seen)) == 40
    with pytest.raises(ScenarioError, match="every"):
        Scenario.from_mapping({"fault": [fault | {"every": 0.001}]})


def test_slow_heater_and_slow_attenuator() -> None:
    p = Pair(_quiet()).tune()
    t = p.world.now()
    for fault in (Fault(t, "slow", "bob.heater.2", value=2.0), Fault(t, "slow", "alice.attenuator", value=3.0)):
        p.world.faults.add(fault)
    phase, loss = float(p.bob.phases()[2]), p.alice.voa_loss_db()
    volts = p.alice.voa_volts()
    p.bob.set_heater_current(2, 0.0)
    p.alice.set_bias(3, volts + 0.5)
    assert p.alice.voa_loss_db() == pytest.approx(loss)
    seen = []
    for _ in range(60):
        p.advance(0.5)
        seen.append((float(p.bob.phases()[2]) - phase, p.alice.voa_loss_db() - loss))
        p.world.light()
    moved, lost = np.array(seen).T
    share = (moved - moved[-1]) / (0.0 - moved[-1])
    assert share[3] == pytest.approx(math.exp(-1.0), abs=0.03)
    assert lost[5] / lost[-1] == pytest.approx(1 - math.exp(-1.0), abs=0.03)
    assert p.bob.heater_voltage(2) == 0.0  # the source is not slow


def test_thermistor_and_peltier() -> None:
    def settle(*faults: Fault) -> Iterator[float]:
        p = Pair(_quiet())
        for fault in faults:
            p.world.faults.add(fault)
        p.power_up(60.0)
        tec = p.alice.tec
        yield from (tec.object_c, p.alice.submount_c(), tec.current_a, tec.voltage_v)

    reading, submount, usual, volts = settle()
    assert reading == pytest.approx(30.0, abs=0.01)
    off = tuple(settle(Fault(0.0, "offset", "alice.thermistor", value=2.0)))
    assert off[0] == pytest.approx(30.0, abs=0.01)
    assert off[1] == pytest.approx(28.0, abs=0.01)
    bare = tuple(settle(Fault(0.0, "open", "alice.thermistor")))
    assert bare[0] == -60.0
    assert bare[1] > 45.0
    weak = tuple(settle(Fault(0.0, "weak", "alice.peltier")))
    assert abs(weak[2]) > 1.5 * abs(usual)
    assert weak[3] / weak[2] > 1.5 * volts / usual
    parted = tuple(settle(Fault(0.0, "open", "alice.peltier")))
    assert parted[2] == 0.0
    assert parted[3] == 8.0
    assert submount == pytest.approx(30.0, abs=0.01)


def test_a_noisy_thermistor_is_noisy() -> None:
    p = Pair(_quiet())
    p.world.faults.add(Fault(0.0, "noisy", "bob.thermistor"))
    seen = []
    for _ in range(300):
        p.advance(0.1)
        seen.append((p.bob.tec.object_c, p.alice.tec.object_c))
    assert np.std(seen, axis=0)[0] == pytest.approx(0.1, rel=0.15)
    assert np.std(seen, axis=0)[1] < 1e-3


def test_a_detector_that_does_not_superconduct_cannot_be_reset(keying: Pair) -> None:
    p, working = keying, float(keying.bob.bank.bias[0])
    p.world.faults.add(Fault(p.world.now(), "normal", "bob.detector.0", 1.0))
    p.bob.set_detector_bias(0, 0.0)
    p.bob.set_detector_bias(0, working)
    assert p.bob.detector_voltage(0) > 0.3
    p.advance(1.1)
    p.bob.set_detector_bias(0, 0.0)
    p.bob.set_detector_bias(0, working)
    assert p.bob.detector_voltage(0) < 0.01


def test_kinds_say_where_they_apply() -> None:
    assert understood("loss", "alice.path.amzi_input")
    assert understood("open", "bob.heater.3")
    assert not understood("open", "alice.interlock")
    assert not understood("loss", "bob.path")
    assert not understood("melted", "bob.heater.1")
    assert not understood("dead", "bob.detector.x")
    tried = {kind for kind, _, _, _ in KEYING + LIT}
    elsewhere = {"cut", "bend", "jump", "bright", "railed", "slow", "plateau", "reversed", "fan", "walk", "warm"}
    assert tried | elsewhere == set(WORLD_KINDS)
    paths = {target for kind, target, _, _ in KEYING + LIT if kind == "loss"}
    assert paths == {f"{side}.path.{name}" for side, names in PATHS.items() for name in names}
