"""Slope of the logarithmic photodiode amplifiers, by steps of the laser's power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, log, sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import Array, FitRefused, judged, linear
from calibration.noise import reading_noise
from calibration.plot import Figure, Plot, Series
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.procedures.light import must_live, shine
from calibration.record import Record, diagonal
from drivers.roles import LightMode

# Below the working power; steps that the laser knows exactly to its last digit.
STEPS_DB = (0.0, -2.0, -4.0, -6.0)
POWER_STEP_DB = 0.01
SAMPLES = 128
DIODES = ("pa0", "pa1", "pa3", "pa6")
# An amplifier further from its factory's slope than this is another amplifier, or the light did not follow.
LIMIT = 0.01


@dataclass(frozen=True)
class Steepness:
    """An amplifier's law as it is known now. `ratio`: slope over the factory's; `slope_sigma` relative."""

    ratio: float
    slope_sigma: float
    intercept_a: float
    intercept_sigma: float

    def corrected(self, amperes: float) -> float:
        """A photocurrent that was converted with the factory's slope, A."""
        return float(self.intercept_a * (amperes / self.intercept_a) ** (1.0 / self.ratio))

    def relative_sigma(self, amperes: float) -> float:
        """Of a photocurrent, by slope and intercept."""
        return hypot(log(amperes / self.intercept_a) * self.slope_sigma, self.intercept_sigma)


def steepness(context: CalibrationContext, diode: str) -> Steepness:
    """From the record where there is a valid one, else from the factory."""
    law, record = context.factory.photodiode(diode), context.store.active("log_tia")
    sigma, ratio = law.log_slope_relative_sigma, 1.0
    name = f"{diode}_slope_v_per_decade"
    if record is not None and context.store.invalid_reason("log_tia") is None and name in record.value:
        ratio = record.value[name] / law.log_slope_v_per_decade
        sigma = record.sigma(name) / record.value[name]
    return Steepness(ratio, sigma, law.log_intercept_a, law.log_intercept_relative_sigma)


class LogTia(Procedure):
    """Four laser powers 2 dB apart, all diodes that see the laser: log10 of the photocurrent against the power in
    decades has slope 1 if the amplifier's slope is what the factory wrote; both are combined (reference pair A2).

    The next calibration of the mean photon number uses it.
    """

    name: ClassVar[str] = "log_tia"
    needs: ClassVar[tuple[str, ...]] = ("mean_photon",)
    valid_s: ClassVar[float] = 90 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    deferred: ClassVar[bool] = True
    cost_s: ClassVar[float] = 3.0
    equation: ClassVar[str] = "log10 I = a + (slope / slope_factory) P_dBm / 10"

    async def calibrate(self, context: CalibrationContext) -> Record:
        laser, full = context.need_laser(), context.settings.laser_power_dbm
        await shine(context, LightMode.FIX, 0)
        rows: list[dict[str, float]] = []
        power: list[float] = []
        try:
            for n, step in enumerate(STEPS_DB):
                await laser.set_power(full + step)
                await context.settle()
                power.append(round(100.0 * (full + step)) / 100.0)
                rows.append(await context.photocurrents(*DIODES, samples=SAMPLES))
                self.report(context, (n + 1) / len(STEPS_DB))
        finally:
            await laser.set_power(full)
            await shine(context, LightMode.OFF)
        seen = {name: np.array([row[name] for row in rows]) for name in DIODES}
        value: dict[str, float] = {}
        sigmas, residuals = [], []
        for name in DIODES:
            must_live(self.name, name, seen[name], "the laser emits")
            slope, sigma, left = self._slope(context, name, np.array(power) / 10.0, seen[name])
            value[f"{name}_slope_v_per_decade"] = slope
            sigmas.append(sigma)
            residuals += left
        return await self.make_record(
            context,
            value,
            {"power_dbm": power, **seen},
            names=tuple(value),
            covariance=diagonal(sigmas),
            residual_rms=float(np.sqrt(np.mean(np.square(residuals)))),
            residuals=residuals,
        )

    def _slope(
        self, context: CalibrationContext, name: str, decades: Array, amperes: Array
    ) -> tuple[float, float, list[float]]:
        """(V/decade, its sigma, residuals in decades). Raises FitRefused, CalibrationRefused."""
        if amperes.min() <= 0.0:
            raise FitRefused(f"photodiode {name} reads {amperes.min():.2g} A at the lowest laser power")
        noise = reading_noise(context).sigma(name, amperes, SAMPLES) / amperes / log(10.0)
        sigma = np.hypot(noise, POWER_STEP_DB / 10.0 / sqrt(12.0))
        x = decades - decades.mean()
        fit = judged(linear(np.stack([np.ones_like(x), x], axis=1), np.log10(amperes), sigma, absolute=True), name)
        seen, seen_sigma = float(fit.parameters[1]), float(np.sqrt(fit.covariance[1, 1]))
        if abs(seen - 1.0) > LIMIT + 5.0 * seen_sigma:
            raise CalibrationRefused(
                self.name, f"amplifier of {name}: slope {seen - 1.0:+.2%} from the factory's; {LIMIT:.0%} is the limit"
            )
        law = context.factory.photodiode(name)
        known = max(law.log_slope_relative_sigma, 1e-6)
        weights = np.array([1.0 / known**2, 1.0 / seen_sigma**2])
        ratio = float(weights @ np.array([1.0, seen]) / weights.sum())
        slope = law.log_slope_v_per_decade
        return slope * ratio, slope / sqrt(float(weights.sum())), fit.residuals.tolist()

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        power = np.asarray(raw["power_dbm"])
        series = []
        for name in DIODES:
            y = 10.0 * np.log10(np.asarray(raw[name]) / np.asarray(raw[name])[0]) - (power - power[0])
            series.append(Series(name, power.tolist(), y.tolist()))
        return [Plot("Photodiode amplifiers against the laser", "laser power (dBm)", "reading less law (dB)", series)]
