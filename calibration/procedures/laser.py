"""Laser to its frequency and power, and light seen in the module."""

from __future__ import annotations

from typing import ClassVar

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.procedure import Procedure
from calibration.record import Record

# Dark or broken below this share of what the raw tap would give for 0 dBm; a live laser is far above.
LIVE_A = 1e-8


class LaserOn(Procedure):
    """Set frequency and power while dark (a tunable laser refuses it emitting), then emit. Names what is missing."""

    name: ClassVar[str] = "laser"
    needs: ClassVar[tuple[str, ...]] = ("photodiode_zero",)

    async def calibrate(self, context: CalibrationContext) -> Record:
        s = context.settings
        await self._emit(context, s.laser_frequency_hz, s.laser_power_dbm)
        reading = await context.need_laser().read()
        value = {
            "set_frequency_hz": s.laser_frequency_hz,
            "set_power_dbm": s.laser_power_dbm,
            "frequency_hz": reading.frequency_hz,
            "power_dbm": reading.power_dbm,
        }
        return await self.make_record(context, value, {"reading": list(value.values())})

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await self._emit(context, record.value["set_frequency_hz"], record.value["set_power_dbm"])

    async def check(self, context: CalibrationContext, record: Record) -> str | None:
        reading = await context.need_laser().read()
        s = context.settings
        if record.value["set_frequency_hz"] != s.laser_frequency_hz:
            return "the configured frequency has changed"
        if record.value["set_power_dbm"] != s.laser_power_dbm:
            return "the configured power has changed"
        return None if reading.emitting else "not emitting"

    async def _emit(self, context: CalibrationContext, frequency_hz: float, power_dbm: float) -> None:
        laser = context.need_laser()
        if not (await laser.read()).emitting:
            await laser.set_frequency(frequency_hz)
            await laser.set_power(power_dbm)
            await laser.enable(True)
            await context.settle()
        reading = await laser.read()
        seen = (await context.photocurrents("pa6"))["pa6"]
        if not reading.emitting:
            raise CalibrationRefused(
                self.name, f"no emission (status 0x{reading.status:04X}, {reading.alarms or 'none'})"
            )
        if seen < LIVE_A:
            raise CalibrationRefused(
                self.name,
                f"it says {reading.power_dbm:.1f} dBm but tap pa6 sees {seen:.2g} A; the least is {LIVE_A:.0e} A",
            )
