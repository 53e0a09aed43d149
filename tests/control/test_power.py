"""Laser power and wavelength, mean photon number on the transmitter's fake light."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from drivers.roles import LightMode, Pilot
from qmodd.control.facts import Railed, Stale
from qmodd.control.loop import LoopFault
from qmodd.control.power import (
    LaserPowerLoop,
    LaserWavelengthLoop,
    MeanPhotonLoop,
    expected_average,
    trim_step,
)
from tests.control.light import Keying, Light


async def steps(loop: LaserPowerLoop | LaserWavelengthLoop | MeanPhotonLoop, n: int) -> None:
    for k in range(n):
        await loop.step(float(k))


def mean_photon(light: Light, on: Callable[[], bool] = lambda: True) -> MeanPhotonLoop:
    light.source.mode = LightMode.KEY
    return MeanPhotonLoop(light.context_, on, lambda: (0.25, 0.5))


async def test_mean_photon_loop_takes_a_change_of_light_out() -> None:
    light, on = Keying(), [True]
    loop = mean_photon(light, lambda: on[0])
    light.heaters.phi0[0] += 0.6  # the filter loses light
    await steps(loop, 30)
    lost = (1 + math.cos(0.6)) / 2
    assert loop.trim_db == pytest.approx(10 * math.log10(lost), abs=0.05)
    table = light.context_.factory.voa
    assert table is not None
    assert table.attenuation(light.biases.volts["voa"]) == pytest.approx(26.4 + loop.trim_db, abs=0.01)
    assert abs(loop.relative_error) < 0.01
    assert loop.facts() == ()
    on[0] = False
    await loop.step(0.0)
    on[0] = True
    light.heaters.phi0[0] += 0.9
    with pytest.raises(Railed, match="cannot be held"):
        await loop.step(0.0)
    light.laser.emitting = False
    with pytest.raises(LoopFault, match="pa3 sees"):
        await loop.step(0.0)


async def test_a_setting_beyond_the_attenuator_is_told() -> None:
    light = Keying()
    record = light.context_.record("mean_photon")
    light.put("mean_photon", {**record.value, "voa_db": 60.0})
    with pytest.raises(Railed, match="outside"):
        await mean_photon(light).step(0.0)


async def test_a_frozen_converter_is_not_used_and_then_ends_the_loop() -> None:
    light = Keying()
    loop = mean_photon(light)
    frozen = await light.read_volts(16)

    async def same(samples: int = 1) -> dict[str, float]:
        return frozen

    light.read_volts = same  # type: ignore[method-assign]
    await steps(loop, 4)
    held, light.heaters.phi0[0] = loop.trim_db, light.heaters.phi0[0] + 0.6
    await steps(loop, 3)
    assert loop.trim_db == held
    assert isinstance(loop.facts()[0], Stale)
    with pytest.raises(Stale, match="the same reading 8 times in a row"):
        await loop.step(0.0)


def test_expected_average_with_and_without_a_pilot() -> None:
    class Values:
        value = {f"i_{s}_{k}_a": (1.0 if k == "signal" else 0.25) * (2.0 if s[0] == "x" else 1.0)
                 for s in ("z0", "z1", "x0", "x1") for k in ("signal", "decoy")}  # fmt: skip

    mean = (0.75 + 0.25 * 2) * 0.625
    assert expected_average(Values(), 0.25, 0.5) == pytest.approx(mean)  # type: ignore[arg-type]
    pilot = Pilot(every=64, gain=10.0)
    wanted = mean * 63 / 64 + 10.0 / 64
    assert expected_average(Values(), 0.25, 0.5, pilot) == pytest.approx(wanted)  # type: ignore[arg-type]
    wanted = mean * 63 / 64 + (0.02 + 10.0 * 0.98) / 64
    assert expected_average(Values(), 0.25, 0.5, pilot, 0.02) == pytest.approx(wanted)  # type: ignore[arg-type]
    trim, railed = trim_step(2.0, 1.0, 0.0, 1.0, 1.0)
    assert (trim, railed) == (1.0, True)


async def test_laser_power_trims_and_tells() -> None:
    light, on = Light(), [True]
    loop = LaserPowerLoop(light.context_, lambda: on[0])
    await loop.step(0.0)
    original = light.powers
    light.powers = lambda: {k: 0.97 * v for k, v in original().items()}  # type: ignore[method-assign]
    await loop.step(0.0)
    assert loop.trim_db > 0.02
    assert light.laser.power == pytest.approx(13.0 + loop.trim_db)
    assert loop.facts() == ()
    with pytest.raises(Railed, match="cannot be held"):
        await steps(loop, 20)
    light.dead = frozenset({"pa6"})
    with pytest.raises(LoopFault, match="pa6 sees"):
        await loop.step(0.0)
    light.laser.emitting = False
    with pytest.raises(LoopFault, match="does not emit"):
        await loop.step(0.0)
    on[0] = False
    await loop.step(0.0)


async def test_laser_wavelength_is_brought_back_in_small_steps() -> None:
    light, on = Light(), [True]
    laser = light.laser
    loop = LaserWavelengthLoop(light.context_, lambda: on[0])
    laser.off_hz = 430e6  # type: ignore[attr-defined]
    last = 0.0
    for _ in range(40):
        await loop.step(0.0)
        assert abs(laser.fine_hz - last) <= 50e6  # type: ignore[attr-defined]
        last = laser.fine_hz  # type: ignore[attr-defined]
    assert abs(laser.off_hz + laser.fine_hz) <= 2e6  # type: ignore[attr-defined]
    writes = laser.writes  # type: ignore[attr-defined]
    laser.off_hz += 1e6  # type: ignore[attr-defined]
    await loop.step(0.0)
    assert laser.writes == writes  # type: ignore[attr-defined]
    on[0] = False
    await loop.step(0.0)
    on[0], laser.fine_hz, laser.off_hz = True, 0.0, 0.0  # type: ignore[attr-defined]
    await loop.step(0.0)
    assert loop.fine_hz == 0.0


async def test_a_laser_too_far_off_says_why() -> None:
    light = Light()
    light.laser.off_hz = 10e9  # type: ignore[attr-defined]
    with pytest.raises(Railed, match=r"\+7000 MHz off at -3000 MHz of fine tuning; 3000 MHz is the range"):
        await steps(LaserWavelengthLoop(light.context_, lambda: True), 80)
    with pytest.raises(Railed, match=r"laser.fine"):
        await steps(LaserWavelengthLoop(light.context_, lambda: True, range_hz=20e9), 150)
    light.laser.emitting = False
    with pytest.raises(LoopFault, match="does not emit"):
        await LaserWavelengthLoop(light.context_, lambda: True).step(0.0)
