"""Decoy modulator's bias from public gains, against the optical law."""

import math

import numpy as np
import pytest

from qmodd.control.loop import LoopFault
from qmodd.control.power import DecoyBiasTrim

V_PI, RATIO, ETA, MU = 4.2, 1 / 3, 0.03, 0.54
TURN = 2 * math.acos(math.sqrt(RATIO))
SLOPE = -math.tan(TURN / 2) * math.pi / V_PI


class Plant:
    """D with its peak at `peak_v`: what the receiver counts of both intensities."""

    def __init__(self, peak_v: float, seed: int = 1) -> None:
        self.peak_v = peak_v
        self.volts = 0.0
        self.random = np.random.default_rng(seed)

    async def write(self, volts: float) -> None:
        self.volts = volts

    def counts(self, live: int) -> tuple[int, int]:
        d = math.pi * (self.volts - self.peak_v) / V_PI
        mu = [MU * math.cos((turn + d) / 2) ** 2 for turn in (0.0, TURN)]
        s, k = (int(self.random.poisson(live * 0.375 * -math.expm1(-ETA * m))) for m in mu)
        return s, k

    @property
    def ratio(self) -> float:
        d = math.pi * (self.volts - self.peak_v) / V_PI
        return math.cos((TURN + d) / 2) ** 2 / math.cos(d / 2) ** 2


def trim(plant: Plant) -> DecoyBiasTrim:
    return DecoyBiasTrim(SLOPE, 0.0, RATIO, lambda _: 0.375, plant.write)


@pytest.mark.parametrize("peak_v", [-0.08, 0.08])
async def test_it_finds_back_to_the_ratio(peak_v: float) -> None:
    plant = Plant(peak_v)
    loop = trim(plant)
    assert abs(plant.ratio / RATIO - 1) > 0.05
    for _ in range(12):
        await loop.add(100_000_000, *plant.counts(100_000_000))
    assert abs(plant.ratio / RATIO - 1) < 0.005


async def test_few_counts_add_up_before_it_acts() -> None:
    plant = Plant(0.05)
    loop = trim(plant)
    await loop.add(100_000, *plant.counts(100_000))
    assert plant.volts == 0.0
    for _ in range(200):
        await loop.add(100_000, *plant.counts(100_000))
    assert plant.volts > 0.0


async def test_a_ratio_that_cannot_be_held_ends_the_service() -> None:
    plant = Plant(1.0)
    loop = trim(plant)
    with pytest.raises(LoopFault, match="decoy modulator: ratio"):
        for _ in range(20):
            await loop.add(100_000_000, *plant.counts(100_000_000))
