"""Bias loops of the modulators, the alignment before keys, and what public counts may and may not do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from drivers.roles import LightMode
from qmodd.control.alignment import align
from qmodd.control.facts import Railed
from qmodd.control.loop import LoopFault
from qmodd.control.modulators import CarverNullLoop, DecoyLock, DecoyMonitor
from tests.control.light import RATIO, Keying

LIVE = 100_000_000


async def test_carver_null_follows_a_drifting_bias() -> None:
    light, on = Keying(2), [True]
    loop = CarverNullLoop(light.context_, lambda: on[0])
    for _ in range(60):
        light.v0["carver"] += 0.005
        await loop.step(0.0)
    assert abs(math.degrees(light.bias("carver"))) < 1.0
    assert abs(loop.error_rad - light.bias("carver")) < 0.03
    assert 0.0 < loop.sigma_rad < math.radians(1.0)
    with pytest.raises(Railed, match="the null has moved"):
        for _ in range(400):
            light.v0["carver"] += 0.01
            await loop.step(0.0)
    on[0] = False
    await loop.step(0.0)


async def test_carver_at_a_peak_or_in_the_dark_is_told() -> None:
    light = Keying(2, noise=1e-4)
    light.put("photodiode_zero", {"pa1_dark_a": light.dark_a, "pa1_noise": 1e-4})
    light.v0["carver"] += light.v_pi["carver"]
    loop = CarverNullLoop(light.context_, lambda: True)
    with pytest.raises(LoopFault, match="no null at the bias"):
        await loop.step(0.0)
    light.laser.emitting = False
    with pytest.raises(LoopFault, match="carver: the dither is seen with"):
        await CarverNullLoop(light.context_, lambda: True).step(0.0)
    assert light.biases.volts["carver"] == light.context_.record("carver_bias").value["null_v"]


# decoy


async def locked(light: Keying, keying: bool = True) -> DecoyLock:
    found = await align(light.context_)
    await light.source.set_mode(LightMode.KEY)
    decoy = light.context_.record("decoy").value
    share = 0.5 * RATIO

    async def write(volts: float) -> None:
        await light.biases.set_voltage("decoy", volts)

    return DecoyLock(
        light.context_,
        lambda: keying,
        found.expected(0.25, 0.5, None),
        share / (0.5 + share),
        decoy["ratio_slope_per_v"],
        found.decoy_v,
        write,
    )


@pytest.mark.parametrize("seed", [1, 2, 5])
async def test_decoy_ratio_is_held_by_the_modules_own_light(seed: int) -> None:
    light = Keying(seed, noise=0.005)
    lock = await locked(light)
    wanted = light.context_.record("decoy").value["ratio"]
    assert light.true_ratio() == pytest.approx(wanted, rel=0.005)
    light.v0["decoy"] += 0.08  # 3.6 degrees: 9 % of the ratio
    assert abs(light.true_ratio() / wanted - 1) > 0.05
    off = []
    for k in range(60):
        # What drifts before the modulators changes nothing: PA0 sees it, too.
        light.heaters.phi0[0] += 0.004
        await lock.step(float(k))
        off.append(light.true_ratio() / wanted - 1)
    assert np.abs(off[20:]).max() < 0.012
    assert lock.volts - lock.peak_v == pytest.approx(0.08, abs=0.02)
    assert lock.facts() == ()


async def test_a_ratio_out_of_reach_ends_the_service() -> None:
    light = Keying()
    lock = await locked(light)
    light.v0["decoy"] += 1.5
    with pytest.raises(Railed, match="decoy modulator: ratio"):
        for k in range(20):
            await lock.step(float(k))
    light.read_volts = no_light  # type: ignore[method-assign]
    with pytest.raises(LoopFault, match="no light to hold it by"):
        await lock.step(0.0)
    with pytest.raises(ValueError, match="weight"):
        DecoyLock(light.context_, lambda: True, 1.0, 0.0, 1.0, 0.0, lock.write)


async def no_light(samples: int = 1) -> dict[str, float]:
    return dict.fromkeys(("pa0", "pa3"), -9.0)


async def test_without_keys_nothing_moves() -> None:
    light = Keying()
    lock = await locked(light, keying=False)
    light.v0["decoy"] += 0.08
    await lock.step(0.0)
    assert lock.volts == lock.peak_v


def gains(ratio: float, eta: float = 0.03, mu: float = 0.54) -> tuple[int, int]:
    return tuple(int(LIVE * 0.375 * -math.expm1(-eta * m)) for m in (mu, mu * ratio))  # type: ignore[return-value]


def test_public_gains_only_watch() -> None:
    monitor = DecoyMonitor(RATIO, lambda _: 0.375)
    for _ in range(100):
        monitor.add(LIVE, *gains(RATIO * 1.02))
    assert monitor.error == pytest.approx(0.02, abs=0.001)
    with pytest.raises(LoopFault, match=r"sees the ratio of the intensities \+6.0 % from"):
        for _ in range(7):
            monitor.add(LIVE, *gains(RATIO * 1.062))
    few = DecoyMonitor(RATIO, lambda _: 0.375)
    few.add(1000, 10, 3)
    assert few.error == 0.0


# alignment


@pytest.mark.parametrize("seed", [1, 3])
async def test_alignment_takes_the_creep_out_by_the_sources_own_light(seed: int) -> None:
    light = Keying(seed, noise=0.005)
    light.v0["state"] += 0.09
    light.v0["decoy"] -= 0.07
    found = await align(light.context_)
    assert abs(math.degrees(light.bias("state"))) < 0.3
    assert light.true_ratio() == pytest.approx(light.context_.record("decoy").value["ratio"], rel=0.005)
    assert found.state_v == light.biases.volts["state"]
    assert abs(found.decoy_error) < 0.006
    assert light.source.mode is LightMode.OFF
    await light.source.set_mode(LightMode.KEY)
    seen = light.powers()
    assert found.expected(0.25, 0.5, None) == pytest.approx(seen["pa3"] / seen["pa0"], rel=0.002)


async def test_a_bias_out_of_its_record_is_not_aligned() -> None:
    light = Keying()
    light.v0["state"] += 0.7
    with pytest.raises(Railed, match=r"state modulator: its set point is \+0\..* V is the limit"):
        await align(light.context_)
