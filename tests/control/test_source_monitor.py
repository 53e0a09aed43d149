"""The source's own photodiodes bound what public gains can talk the decoy loop into."""

from dataclasses import dataclass
from typing import Any, cast

import pytest

from calibration.context import CalibrationContext
from qmodd.control.loop import LoopFault
from qmodd.control.power import SourceMonitor


@dataclass
class Diodes:
    pa3: float = 90e-9
    pa0: float = 20e-6

    async def photocurrents(self, *names: str, samples: int | None = None) -> dict[str, float]:
        return {n: getattr(self, n) for n in names}


def monitor(diodes: Diodes, keying: bool = True) -> SourceMonitor:
    return SourceMonitor(cast(CalibrationContext, cast(Any, diodes)), lambda: keying, weight=0.25, held=0.02)


async def test_laser_drift_is_no_fault() -> None:
    diodes = Diodes()
    loop = monitor(diodes)
    for factor in (1.0, 0.97, 1.04, 1.1):
        diodes.pa3, diodes.pa0 = 90e-9 * factor, 20e-6 * factor
        await loop.step(0.0)
    assert abs(loop.change) < 1e-9


@pytest.mark.parametrize("change", [-0.02, 0.02])
async def test_a_decoy_that_was_talked_away_ends_the_service(change: float) -> None:
    diodes = Diodes()
    loop = monitor(diodes)
    await loop.step(0.0)
    diodes.pa3 *= 1.0 + change
    await loop.step(1.0)
    await loop.step(2.0)
    with pytest.raises(LoopFault, match="intervals hold"):
        await loop.step(3.0)


async def test_only_the_light_of_keys_is_looked_at() -> None:
    diodes = Diodes()
    loop = monitor(diodes, keying=False)
    await loop.step(0.0)
    diodes.pa3 *= 2.0
    await loop.step(1.0)
    assert loop.change == 0.0
