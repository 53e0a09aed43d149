"""Dark current and reading noise of every monitor photodiode, with no light in the module."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, log, sqrt
from statistics import median
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.factory import Photodiode
from calibration.fit import Array
from calibration.names import PHOTODIODES
from calibration.noise import NOMINAL, scatter
from calibration.plot import Figure, Plot, Series
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.record import Record, diagonal

# Single conversions: their scatter is known to 9 %, their mean to an eighth of it.
READS = 64
# Twenty times the largest dark current of a good diode: above it the zero would hide a signal or a leak of light.
LIMIT_A = 2e-8
# Below this share of a decade over its intercept an amplifier ends at 0 V and tells neither current nor noise.
READABLE = 0.05


class PhotodiodeZero(Procedure):
    """Laser off, 64 single conversions a diode: dark current from their mean, reading noise from their scatter
    (reference control B12). Names the diode that is not dark.

    The amplifiers are logarithmic, so that the relative noise of a photocurrent is the same in the dark and in light.
    """

    name: ClassVar[str] = "photodiode_zero"
    valid_s: ClassVar[float] = 30 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    cost_s: ClassVar[float] = 0.1
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = "V = slope log10(I_dark / intercept); noise = sd(V) ln(10) / slope"

    async def calibrate(self, context: CalibrationContext) -> Record:
        if context.laser is not None:
            await context.laser.enable(False)
        await context.settle()
        rows = [await context.adc.read_volts(1) for _ in range(READS)]
        raw = {name: np.array([row[name] for row in rows]) for name in PHOTODIODES[context.side]}
        value: dict[str, float] = {}
        sigmas: list[float] = []
        noise: dict[str, float] = {}
        for name, volts in raw.items():
            law = context.factory.photodiode(name)
            dark, read, sigma = _dark(law, volts)
            if dark > LIMIT_A:
                raise CalibrationRefused(
                    self.name, f"photodiode {name}: {dark:.3g} A with the laser off; the limit is {LIMIT_A:.0e} A"
                )
            value[f"{name}_dark_a"] = dark
            value[f"{name}_dark_noise_a"] = read
            sigmas.append(sigma)
            if volts.mean() >= READABLE * law.log_slope_v_per_decade:
                noise[name] = scatter(volts) * log(10.0) / law.log_slope_v_per_decade
        typical = median(noise.values()) if noise else NOMINAL
        names = tuple(n for n in value if n.endswith("_dark_a"))
        value |= {f"{name}_noise": noise.get(name, typical) for name in raw}
        residuals = np.concatenate([volts - volts.mean() for volts in raw.values()])
        return await self.make_record(
            context,
            value,
            raw,
            names=names,
            covariance=diagonal(sigmas),
            residual_rms=float(np.sqrt(np.mean(residuals**2))),
            residuals=residuals.tolist(),
        )

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult | None:
        """In the dark only: light in the module hides the zero."""
        if context.laser is not None and (await context.laser.read()).emitting:
            return None
        seen = await context.adc.read_volts(READS // 4)
        read = {}
        for name in PHOTODIODES[context.side]:
            law, known = context.factory.photodiode(name), record.value[f"{name}_dark_a"]
            read[f"{name}_a"] = law.current(seen[name])
            # Dark current doubles in 10 K: a factor of four is another diode, or light.
            if read[f"{name}_a"] > max(4.0 * known, 4.0 * law.log_intercept_a):
                return CheckResult.out_of_spec(
                    f"photodiode {name}: {read[f'{name}_a']:.2g} A in the dark instead of {known:.2g} A", read
                )
        return CheckResult.in_spec(read)

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        series = [
            Series(name, list(range(len(volts))), (1e3 * np.asarray(volts)).tolist()) for name, volts in raw.items()
        ]
        return [Plot("Photodiode amplifiers in the dark", "conversion", "amplifier (mV)", series[:6])]


def _dark(law: Photodiode, volts: Array) -> tuple[float, float, float]:
    """(dark current, its uncertainty by reading alone, and with the amplifier's law), A.

    The amplifier ends at 0 V: below its intercept a dark current is only known to lie between 0 and that.
    """
    slope, mean = law.log_slope_v_per_decade, float(volts.mean())
    if mean < READABLE * slope:
        wide = law.log_intercept_a / sqrt(12.0)
        return 0.5 * law.log_intercept_a, wide, wide
    dark = law.current(mean)
    read = dark * log(10.0) / slope * max(scatter(volts), 1e-6) / sqrt(len(volts))
    return dark, read, hypot(read, dark * law.relative_sigma(dark))
