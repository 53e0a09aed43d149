"""R(P) of every heater from five points of I-V, with the supply monitor as an independent witness."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, sqrt
from typing import ClassVar

import numpy as np

from calibration.broken import heater_fault, heater_volts
from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import Array, Resistance, fit_resistance
from calibration.names import HEATER_MONITOR, HEATERS
from calibration.noise import LEAST, reading_noise, scatter
from calibration.plot import Figure, Plot, Series
from calibration.procedure import CheckResult, Procedure, Raw
from calibration.record import Record, block_diagonal

# Shares of the largest current; the lowest still gives a voltage far above the monitor's noise.
SHARES = (0.30, 0.50, 0.68, 0.84, 0.97)
# Conversions a point; at both ends they are taken singly, for their scatter.
SAMPLES = 32
# What the converter and the current source are straight to; it does not average out.
LINEARITY = 2e-5
# A heater on the die without a phase of its own, where the module has one.
BALLAST = "ballast"
# Below this current the monitor's voltage says little about R.
CHECKED_A = 0.006
CHECK_LIMIT = 0.01


def heaters_of(context: CalibrationContext) -> tuple[str, ...]:
    """Every heater of the module, its ballast included."""
    extra = (BALLAST,) if BALLAST in context.heaters.channels else ()
    return HEATERS[context.side] + extra


class HeaterIV(Procedure):
    """R(P) = R0 (1 + rho P) of all heaters (reference control B1, pair A6.1).

    Names the heater that is open, shorted, whose source is stuck, or whose current the supply does not see.
    """

    name: ClassVar[str] = "heater_iv"
    valid_s: ClassVar[float] = 30 * 86_400.0
    cost_s: ClassVar[float] = 0.9
    equation: ClassVar[str] = "V / I = R0 (1 + rho V I)"

    async def calibrate(self, context: CalibrationContext) -> Record:
        channels = heaters_of(context)
        raw: dict[str, Array] = {}
        for channel in channels:
            await context.heaters.set_current(channel, 0.0)
        await context.sleep(context.settings.rail_settle_s)
        idle_a = (await context.rail.read()).current_a
        low, high = [], []
        try:
            for i, channel in enumerate(channels):
                current, voltage, ends = await self._sweep(context, channel, idle_a)
                raw[f"{channel}_a"], raw[f"{channel}_v"] = current, voltage
                low.append(ends[0])
                high.append(ends[1] / voltage[-1])
                self.report(context, (i + 1) / len(channels), f"{channel}: {voltage[-1] / current[-1]:.1f} ohm")
        finally:
            await context.heaters.monitor(None)
        # One ADC reads them all: the noise of all channels together is known best.
        floor, share = (max(sqrt(float(np.mean(np.square(e)))), LEAST) for e in (low, high))
        fits = {c: self._fit(context, c, raw[f"{c}_a"], raw[f"{c}_v"], floor, share) for c in channels}
        value: dict[str, float] = {}
        for channel, fit in fits.items():
            value[f"{channel}_r0_ohm"], value[f"{channel}_rho_per_w"] = fit.r0_ohm, fit.rho_per_w
        names = tuple(value)
        return await self.make_record(
            context,
            value | {"monitor_noise": share},
            raw,
            names=names,
            covariance=block_diagonal([np.asarray(f.covariance, dtype=np.float64) for f in fits.values()]),
            residual_rms=max(f.residual_rms for f in fits.values()),
            residuals=np.concatenate([f.residuals for f in fits.values()]).tolist(),
        )

    def _fit(
        self, context: CalibrationContext, channel: str, current: Array, voltage: Array, floor_v: float, share: float
    ) -> Resistance:
        sigma = np.hypot(np.maximum(share * voltage, floor_v) / sqrt(SAMPLES), LINEARITY * voltage)
        fit = fit_resistance(current, voltage, sigma)
        low, high = context.settings.heater_resistance_ohm
        if not low <= fit.r0_ohm <= high:
            raise CalibrationRefused(
                self.name, f"heater {channel!r}: R0 {fit.r0_ohm:.1f} ohm is outside {low:.0f} to {high:.0f} ohm"
            )
        return fit

    async def _sweep(
        self, context: CalibrationContext, channel: str, idle_a: float
    ) -> tuple[Array, Array, tuple[float, float]]:
        """(A, V, scatter of single conversions at the first and at the last point, V)."""
        top = min(context.heaters.max_current_a, (context.settings.heater_max_power_w / 100.0) ** 0.5)
        currents, voltages = np.array(SHARES) * top, np.zeros(len(SHARES))
        ends: list[float] = []
        await context.heaters.monitor(channel)
        try:
            for k, amperes in enumerate(currents):
                await context.heaters.set_current(channel, float(amperes))
                await context.settle()
                if k in (0, len(currents) - 1):
                    singles = np.array([await self._volts(context, 1) for _ in range(SAMPLES)])
                    voltages[k] = singles.mean()
                    ends.append(scatter(singles))
                else:
                    voltages[k] = await self._volts(context, SAMPLES)
                if k == 0:
                    await self._diagnose(context, channel, float(amperes), float(voltages[0]))
            await context.sleep(context.settings.rail_settle_s)
            drawn = (await context.rail.read()).current_a - idle_a
        finally:
            await context.heaters.set_current(channel, 0.0)
        if abs(drawn - currents[-1]) > context.settings.rail_tolerance * currents[-1]:
            raise CalibrationRefused(
                self.name,
                f"heater {channel!r}: {currents[-1] * 1e3:.2f} mA set, the supply shows {drawn * 1e3:.2f} mA more than "
                f"idle; the limit is {context.settings.rail_tolerance:.0%}",
            )
        return currents, voltages, (ends[0], ends[1])

    async def _volts(self, context: CalibrationContext, samples: int) -> float:
        return await heater_volts(context, samples)

    async def _diagnose(self, context: CalibrationContext, channel: str, amperes: float, volts: float) -> None:
        low, high = context.settings.heater_resistance_ohm
        good = low <= volts / amperes <= high and channel not in await context.heaters.open_circuits()
        if not good and (why := await heater_fault(context, channel, amperes, volts)):
            raise CalibrationRefused(self.name, why)

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult | None:
        """The heaters that are powered now, as they are: nothing is moved."""
        channels = [c for c in heaters_of(context) if context.heaters.current(c) >= CHECKED_A]
        if not channels:
            return None
        limit = hypot(CHECK_LIMIT, 5.0 * reading_noise(context).of(HEATER_MONITOR, SAMPLES))
        read: dict[str, float] = {}
        try:
            for channel in channels:
                await context.heaters.monitor(channel)
                await context.settle()
                amperes = context.heaters.current(channel)
                read[f"{channel}_ohm"] = seen = await self._volts(context, SAMPLES) / amperes
                law = context.drive.resistance(channel)
                known = law.r0_ohm * (1.0 + law.rho_per_w * law.power(amperes))
                if abs(seen / known - 1.0) > limit:
                    why = f"heater {channel!r}: {seen:.1f} ohm instead of {known:.1f} ohm; the limit is {limit:.1%}"
                    return CheckResult.out_of_spec(why, read)
        finally:
            await context.heaters.monitor(None)
        return CheckResult.in_spec(read)

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        series: list[Series] = []
        for name in [n.removesuffix("_r0_ohm") for n in record.value if n.endswith("_r0_ohm")]:
            if f"{name}_a" in raw and len(series) < 6:
                i, v = np.asarray(raw[f"{name}_a"]), np.asarray(raw[f"{name}_v"])
                series.append(Series(name, (1e3 * i * v).tolist(), (v / i).tolist()))
        return [Plot("Resistance of the heaters", "heater power (mW)", "V / I (ohm)", series)]
