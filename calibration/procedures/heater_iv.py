"""R(P) of every heater from five points of I-V, with the supply monitor as an independent witness."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import Array, Resistance, fit_resistance
from calibration.names import HEATER_MONITOR, HEATERS
from calibration.procedure import Procedure
from calibration.record import Record, block_diagonal

# Shares of the largest current; the lowest still gives a voltage far above the monitor's noise.
SHARES = (0.30, 0.50, 0.68, 0.84, 0.97)


class HeaterIV(Procedure):
    """R(P) = R0 (1 + rho P) of all heaters (reference control B1, pair A6.1).

    Names the heater that is open, shorted, or whose current the supply does not see.
    """

    name: ClassVar[str] = "heater_iv"
    valid_s: ClassVar[float] = 30 * 86_400.0

    async def calibrate(self, context: CalibrationContext) -> Record:
        channels = HEATERS[context.side]
        raw: dict[str, Array] = {}
        fits: dict[str, Resistance] = {}
        for channel in channels:
            await context.heaters.set_current(channel, 0.0)
        await context.sleep(context.settings.rail_settle_s)
        idle_a = (await context.rail.read()).current_a
        try:
            for i, channel in enumerate(channels):
                current, voltage = await self._sweep(context, channel, idle_a)
                raw[f"{channel}_a"], raw[f"{channel}_v"] = current, voltage
                fits[channel] = fit_resistance(current, voltage)
                _within(context, channel, fits[channel])
                self.report(context, (i + 1) / len(channels), f"{channel}: {fits[channel].r0_ohm:.1f} ohm")
        finally:
            await context.heaters.monitor(None)
        value: dict[str, float] = {}
        for channel, fit in fits.items():
            value[f"{channel}_r0_ohm"], value[f"{channel}_rho_per_w"] = fit.r0_ohm, fit.rho_per_w
        return await self.make_record(
            context,
            value,
            raw,
            names=tuple(value),
            covariance=block_diagonal([np.asarray(f.covariance, dtype=np.float64) for f in fits.values()]),
            residual_rms=max(f.residual_rms for f in fits.values()),
        )

    async def _sweep(self, context: CalibrationContext, channel: str, idle_a: float) -> tuple[Array, Array]:
        top = min(context.heaters.max_current_a, (context.settings.heater_max_power_w / 100.0) ** 0.5)
        currents, voltages = np.array(SHARES) * top, np.zeros(len(SHARES))
        await context.heaters.monitor(channel)
        try:
            for k, amperes in enumerate(currents):
                await context.heaters.set_current(channel, float(amperes))
                await context.settle()
                volts = (await context.adc.read_volts(context.settings.samples))[HEATER_MONITOR]
                voltages[k] = volts * context.settings.heater_monitor_divider
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
        return currents, voltages

    async def _diagnose(self, context: CalibrationContext, channel: str, amperes: float, volts: float) -> None:
        low, high = context.settings.heater_resistance_ohm
        seen = f"{volts:.3f} V at {amperes * 1e3:.1f} mA, {volts / amperes:.0f} ohm"
        if channel in await context.heaters.open_circuits() or volts / amperes > high:
            raise CalibrationRefused(self.name, f"heater {channel!r} is open: {seen}; {high:.0f} ohm is the limit")
        if volts / amperes < low:
            raise CalibrationRefused(self.name, f"heater {channel!r} is shorted: {seen}; {low:.0f} ohm is the limit")


def _within(context: CalibrationContext, channel: str, fit: Resistance) -> None:
    low, high = context.settings.heater_resistance_ohm
    if not low <= fit.r0_ohm <= high:
        raise CalibrationRefused(
            "heater_iv", f"heater {channel!r}: R0 {fit.r0_ohm:.1f} ohm is outside {low:.0f} to {high:.0f} ohm"
        )
