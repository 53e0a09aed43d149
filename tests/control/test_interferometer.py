"""Filter and input coupler while keys are made."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qmodd.control.facts import Railed
from qmodd.control.interferometer import FilterPeakLoop, SplitTrim, peak_error, split_slope_per_w
from qmodd.control.loop import LoopFault
from tests.control.light import Light


@pytest.mark.parametrize("degrees", [-20.0, -3.0, 0.0, 5.0, 30.0])
def test_peak_error_law(degrees: float) -> None:
    d, a = math.radians(degrees), math.radians(8.0)

    def seen(x: float) -> float:
        return 0.02 + 1.7 * (1 + math.cos(x)) / 2

    assert peak_error(seen(d + a), seen(d - a), seen(d), a) == pytest.approx(d)
    with pytest.raises(ValueError, match="no peak"):
        peak_error(1.1, 1.1, 1.0, a)


async def test_the_filter_is_left_alone_until_light_is_lost() -> None:
    light, on = Light(), [True]
    loop = FilterPeakLoop(light.context_, lambda: on[0])
    before = light.heaters.current("filter")
    for k in range(6):
        await loop.step(float(k))
    assert light.heaters.current("filter") == before
    light.heaters.phi0[0] += 0.25
    for k in range(5):
        await loop.step(float(k))
    assert loop.corrections == 1
    assert abs(math.remainder(light.heaters.phase("filter"), 2 * math.pi)) < 0.05
    assert loop.error_rad == pytest.approx(0.25, abs=0.05)
    on[0] = False
    await loop.step(0.0)
    assert loop.facts() == ()


async def test_a_filter_that_wanders_off_or_goes_dark_is_told() -> None:
    light = Light()
    loop = FilterPeakLoop(light.context_, lambda: True, limit_rad=0.5)
    await loop.step(0.0)
    before = light.heaters.current("filter")
    light.heaters.phi0[0] += 0.8
    with pytest.raises(Railed, match=r"filter: its peak has moved .* mW from its calibration"):
        for k in range(6):
            await loop.step(float(k))
    assert light.heaters.current("filter") == pytest.approx(before)
    light.heaters.phi0[0] += math.pi - 0.8
    light.dead = frozenset({"pa0"})
    light.dark_a = 1e-13
    with pytest.raises(LoopFault, match="no light behind the filter"):
        await loop.step(9.0)


async def test_a_set_point_that_is_no_peak_is_told() -> None:
    light = Light(noise=1e-5)
    loop = FilterPeakLoop(light.context_, lambda: True)
    await loop.step(0.0)
    light.heaters.phi0[0] += 2.4
    with pytest.raises(LoopFault, match="filter: no peak"):
        for k in range(4):
            await loop.step(float(k))


async def test_the_slope_comes_from_the_identified_fringe() -> None:
    light = Light()
    value = light.context_.record("amzi_split").value

    async def ratio(watts: float) -> float:
        await light.context_.drive.set_power("split", watts)
        kappa = math.sin(light.heaters.phase("split") / 2) ** 2
        return math.log((1 - kappa) / (kappa * light.long))

    up, down = await ratio(value["power_w"] + 1e-5), await ratio(value["power_w"] - 1e-5)
    assert split_slope_per_w(value) == pytest.approx((up - down) / 2e-5, rel=1e-3)


class Coupler:
    def __init__(self) -> None:
        self.watts, self.truth = 0.030, 0.030
        self.rng = np.random.default_rng(1)

    async def write(self, watts: float) -> None:
        self.watts = watts

    def counts(self) -> tuple[int, int]:
        d = math.pi * (self.watts - self.truth) / 0.040
        return int(self.rng.poisson(80_000 * (1 - d))), int(self.rng.poisson(80_000 * (1 + d) * 1.03))


async def test_the_split_follows_the_counts_within_its_calibration() -> None:
    coupler = Coupler()
    trim = SplitTrim(-2 * math.pi / 0.040, 0.040, 0.030, coupler.write)
    for _ in range(200):
        await trim.add(*coupler.counts(), 1.0)
        coupler.truth += 1e-6
    assert coupler.watts == pytest.approx(coupler.truth, abs=5e-5)
    assert abs(trim.error) < 0.01
    assert trim.facts() == ()
    await trim.add(0, 10, 1.0)
    # Somebody outside keeps early light: the coupler does not follow further than its calibration allows.
    for _ in range(400):
        await trim.add(60_000, 90_000, 1.0)
    assert abs(coupler.watts - 0.030) == pytest.approx(0.035 * 0.040 / math.pi)
    assert "at the end of its trim" in str(trim.facts()[0])
