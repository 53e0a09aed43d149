"""Dark current of every monitor photodiode, with no light in the module."""

from __future__ import annotations

import math
from typing import ClassVar

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.names import PHOTODIODES
from calibration.procedure import Procedure
from calibration.record import Record, diagonal

READS = 4
# Twenty times the largest dark current of a good diode: above it the zero would hide a signal or a leak of light.
LIMIT_A = 2e-8


class PhotodiodeZero(Procedure):
    """Laser off, read, take the mean (reference control B12). Names the diode that is not dark."""

    name: ClassVar[str] = "photodiode_zero"
    valid_s: ClassVar[float] = 30 * 86_400.0

    async def calibrate(self, context: CalibrationContext) -> Record:
        if context.laser is not None:
            await context.laser.enable(False)
        await context.settle()
        rows = [await context.adc.read_volts(context.settings.samples) for _ in range(READS)]
        value: dict[str, float] = {}
        sigmas: list[float] = []
        raw: dict[str, list[float]] = {}
        for name in PHOTODIODES[context.side]:
            diode = context.factory.photodiode(name)
            volts = raw[name] = [row[name] for row in rows]
            mean, scatter = _mean(volts)
            dark, sigma = _dark(diode.log_intercept_a, mean, scatter, diode.log_slope_v_per_decade)
            if dark > LIMIT_A:
                raise CalibrationRefused(
                    self.name, f"photodiode {name}: {dark:.3g} A with the laser off; the limit is {LIMIT_A:.0e} A"
                )
            value[f"{name}_dark_a"] = dark
            sigmas.append(sigma)
        return await self.make_record(context, value, raw, names=tuple(value), covariance=diagonal(sigmas))


def _mean(values: list[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))


def _dark(intercept_a: float, volts: float, scatter: float, slope: float) -> tuple[float, float]:
    """The amplifier ends at 0 V: below its intercept a dark current is only known to lie between 0 and that."""
    if volts < 0.05 * slope:
        return 0.5 * intercept_a, intercept_a / math.sqrt(12.0)
    dark = intercept_a * 10.0 ** (volts / slope)
    return dark, dark * math.log(10.0) / slope * max(scatter, 1e-5) / math.sqrt(READS)
