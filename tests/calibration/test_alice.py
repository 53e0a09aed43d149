"""The transmitter's calibrations on a fake that obeys the optical laws; the truth is the fake's own."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest

from calibration.context import CalibrationRefused
from calibration.factory import Attenuator, FactoryRecord
from calibration.graph import bring_up
from calibration.procedures import alice_graph
from calibration.store import RecordStore
from tests.calibration.fakes import FakeAlice, split_target


def degrees(x: float) -> float:
    return float(np.degrees((x + pi) % (2 * pi) - pi))


@pytest.mark.parametrize("seed", range(6))
async def test_the_whole_set_finds_the_working_point(seed: int) -> None:
    a = FakeAlice(seed)
    context = a.context()
    records = await bring_up(alice_graph(), context)
    # The first heater set is moved by its neighbours; d^2/4 of 8 degrees is 0.5 % of light and nothing else.
    assert abs(degrees(a.heaters.phase("filter"))) < 9
    assert abs(degrees(a.heaters.phase("shutter"))) < 2
    assert abs(abs(degrees(a.heaters.phase("split"))) - degrees(split_target(a.long))) < 0.3
    assert abs(degrees(a.bias("carver"))) < 0.3
    assert abs(degrees(a.bias("state"))) < 0.5
    assert abs(degrees(a.bias("decoy"))) < 0.5
    assert a.source.rf["state"] / a.v_rf["state"] == pytest.approx(1.0, abs=0.005)
    assert a.source.rf["carver"] / a.v_rf["carver"] == pytest.approx(1.0, abs=0.02)
    for name in ("carver_bias", "state_bias", "decoy"):
        assert records[name].value["v_pi_v"] == pytest.approx(a.v_pi[name.removesuffix("_bias")], rel=0.005)
    mean = records["mean_photon"].value
    assert mean["mu_signal"] == pytest.approx(0.54)
    assert mean["mu_signal_low"] < 0.54 < mean["mu_signal_high"] < 0.54 * 1.04
    assert mean["decoy_ratio"] == pytest.approx(1 / 3, rel=0.01)
    assert a.time.now < 15


async def test_warm_boot_redoes_nothing_and_restores_every_output() -> None:
    a = FakeAlice(7)
    store = RecordStore()
    await bring_up(alice_graph(), a.context(store))
    powers, volts, rf = a.heaters.power().copy(), dict(a.biases.volts), dict(a.source.rf)
    for channel in a.heaters.amperes:
        a.heaters.amperes[channel] = 0.0
    a.biases.volts = dict.fromkeys(a.biases.volts, 0.0)
    a.source.rf = dict.fromkeys(a.source.rf, 0.0)
    a.laser.emitting = False
    began = a.time.now
    await bring_up(alice_graph(), a.context(store))
    assert all(len(store.history(n)) == 1 for n in store.names())
    assert np.allclose(a.heaters.power(), powers)
    assert a.biases.volts == pytest.approx(volts)
    assert a.source.rf == pytest.approx(rf)
    assert a.laser.emitting
    assert a.time.now - began < 1


async def test_a_new_wish_redoes_what_it_touches() -> None:
    a = FakeAlice(8)
    store = RecordStore()
    await bring_up(alice_graph(), a.context(store))
    await bring_up(alice_graph(), a.context(store, mu_signal=0.4, laser_power_dbm=13.0))
    assert store.active("mean_photon").value["mu_signal"] == pytest.approx(0.4)  # type: ignore[union-attr]
    assert len(store.history("decoy")) == 1
    await bring_up(alice_graph(), a.context(store, decoy_ratio=0.4))
    assert store.active("decoy").value["ratio"] == pytest.approx(0.4, rel=0.02)  # type: ignore[union-attr]


async def refused(a: FakeAlice, **settings: object) -> str:
    with pytest.raises(CalibrationRefused) as e:
        await bring_up(alice_graph(), a.context(**settings))
    return str(e.value)


async def test_an_open_and_a_shorted_heater_are_named() -> None:
    a = FakeAlice(1)
    a.heaters.open = frozenset({"phase"})
    assert "heater 'phase' is open" in await refused(a)
    a.heaters.open = frozenset()
    a.heaters.shorted = frozenset({"split"})
    assert "heater 'split' is shorted" in await refused(a)


async def test_a_supply_that_disagrees_is_named() -> None:
    a = FakeAlice(1)
    a.rail.gain = 0.8
    assert "the supply shows" in await refused(a)


async def test_a_dead_laser_and_a_dead_photodiode_are_told_apart() -> None:
    a = FakeAlice(1)
    a.laser.dead = True
    assert "no emission" in await refused(a)
    a = FakeAlice(1)
    a.dead = frozenset({"pa6"})
    assert "tap pa6 sees" in await refused(a)
    a = FakeAlice(1)
    a.dead = frozenset({"pa0"})
    assert (await refused(a)).startswith("filter_peak: ")
    a = FakeAlice(1)
    a.dead = frozenset({"pa1"})
    assert (await refused(a)).startswith("carver_bias: ")


async def test_light_with_the_laser_off_is_named() -> None:
    a = FakeAlice(1)
    a.dark_a = 1e-6
    assert "with the laser off" in await refused(a)


async def test_a_mean_out_of_reach_and_a_missing_factory_record() -> None:
    assert "outside 0.80" in await refused(FakeAlice(1), mu_signal=1e-4)
    a = FakeAlice(1)
    context = a.context()
    context.factory = FactoryRecord(serial="A1")
    with pytest.raises(CalibrationRefused, match="factory record"):
        await bring_up(alice_graph(), context)


async def test_drive_refuses_nonsense_and_says_what_is_not_calibrated() -> None:
    a = FakeAlice(1)
    context = a.context()
    with pytest.raises(CalibrationRefused, match="not calibrated yet"):
        await context.drive.set_power("phase", 0.01)
    await bring_up(alice_graph(), context, targets=["heater_iv"])
    with pytest.raises(ValueError, match="must not be negative"):
        await context.drive.set_power("phase", -0.01)
    with pytest.raises(CalibrationRefused, match="'spare' is not in the record"):
        context.drive.power("spare")
    await context.drive.set_power("phase", 0.02)
    assert context.drive.total() == pytest.approx(0.02)
    assert context.drive.power("phase") == pytest.approx(0.02)
    with pytest.raises(CalibrationRefused, match="no time tagger"):
        context.need_tags()


async def test_a_saturated_amplifier_is_not_a_reading() -> None:
    a = FakeAlice(1)
    a.dark_a = 2e-4
    with pytest.raises(CalibrationRefused, match="at its rail"):
        await a.context().photocurrents("pa0")


def test_attenuator_tables() -> None:
    table = Attenuator(volts=(0.0, 1.0, 2.0), db=(1.0, 3.0, 9.0))
    assert table.voltage(table.attenuation(1.5)) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="outside"):
        table.voltage(0.5)
    with pytest.raises(ValueError, match="both rise"):
        Attenuator(volts=(0.0, 1.0), db=(3.0, 1.0))
    with pytest.raises(ValueError, match="same length"):
        Attenuator(volts=(0.0, 1.0), db=(3.0,))
