"""Laser to its frequency and power, both read back, and light seen in the module."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import ClassVar

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.plot import Figure, Plot, Series
from calibration.procedure import CheckResult, Procedure, Raw
from calibration.record import Record, diagonal
from drivers.roles import LaserReading

# Dark or broken below this share of what the raw tap would give for 0 dBm; a live laser is far above.
LIVE_A = 1e-8
# Five times what individuals differ by (reference pair A7).
FREQUENCY_LIMIT_HZ, POWER_LIMIT_DB = 2.5e9, 0.5
# Last digits of what it says of itself.
FREQUENCY_STEP_HZ, POWER_STEP_DB = 1e6, 0.01


class LaserOn(Procedure):
    """Set frequency and power while dark (a tunable laser refuses it emitting), then emit; both are read back and must
    be within their limits, and the raw tap must see it. Names what is missing."""

    name: ClassVar[str] = "laser"
    needs: ClassVar[tuple[str, ...]] = ("photodiode_zero",)
    cost_s: ClassVar[float] = 2.5
    renews: ClassVar[bool] = True
    equation: ClassVar[str] = "|f - f_set| <= 2.5 GHz, |P - P_set| <= 0.5 dB, I(pa6) >= 10 nA"

    async def calibrate(self, context: CalibrationContext) -> Record:
        s = context.settings
        seen = await self._emit(context, s.laser_frequency_hz, s.laser_power_dbm)
        reading = await context.need_laser().read()
        if why := _off(reading, s.laser_frequency_hz, s.laser_power_dbm):
            raise CalibrationRefused(self.name, why)
        value = {
            "set_frequency_hz": s.laser_frequency_hz,
            "set_power_dbm": s.laser_power_dbm,
            "frequency_hz": reading.frequency_hz,
            "power_dbm": reading.power_dbm,
            "tap_a": seen,
        }
        return await self.make_record(
            context,
            value,
            {"reading": list(value.values())},
            names=("frequency_hz", "power_dbm"),
            covariance=diagonal([FREQUENCY_STEP_HZ / sqrt(12.0), POWER_STEP_DB / sqrt(12.0)]),
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await self._emit(context, record.value["set_frequency_hz"], record.value["set_power_dbm"])

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult | str | None:
        reading = await context.need_laser().read()
        s = context.settings
        if record.value["set_frequency_hz"] != s.laser_frequency_hz:
            return "the configured frequency has changed"
        if record.value["set_power_dbm"] != s.laser_power_dbm:
            return "the configured power has changed"
        read = {"frequency_hz": reading.frequency_hz, "power_dbm": reading.power_dbm}
        if not reading.emitting:
            return CheckResult.out_of_spec("not emitting", read)
        why = _off(reading, s.laser_frequency_hz, s.laser_power_dbm)
        return CheckResult.out_of_spec(why, read) if why else CheckResult.in_spec(read)

    async def _emit(self, context: CalibrationContext, frequency_hz: float, power_dbm: float) -> float:
        """Photocurrent of the raw tap, A."""
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
                self.name,
                f"no emission: the laser reads {reading.power_dbm:.2f} dBm with {power_dbm:.1f} dBm set and on "
                f"(status 0x{reading.status:04X}, {', '.join(reading.alarms) or 'no alarm'}), tap pa6 {seen:.2g} A; "
                f"{LIVE_A:.0e} A is the least",
            )
        if seen < LIVE_A:
            raise CalibrationRefused(
                self.name,
                f"it says {reading.power_dbm:.1f} dBm but tap pa6 sees {seen:.2g} A; the least is {LIVE_A:.0e} A: "
                "photodiode pa6 is dead or the fibre to the chip is dark",
            )
        return seen

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        """How far it is from what was set, against the limits."""
        v = record.value
        df = (v["frequency_hz"] - v["set_frequency_hz"]) / 1e9
        dp = v["power_dbm"] - v["set_power_dbm"]
        f, p = FREQUENCY_LIMIT_HZ / 1e9, POWER_LIMIT_DB
        box = Series("limits", [-f, f, f, -f, -f], [-p, -p, p, p, -p], "line")
        read = Series("read back", [df], [dp])
        return [Plot("Laser against its settings", "frequency error (GHz)", "power error (dB)", [read, box])]


def _off(reading: LaserReading, frequency_hz: float, power_dbm: float) -> str:
    """What is beyond its limit; empty when nothing is."""
    df, dp = reading.frequency_hz - frequency_hz, reading.power_dbm - power_dbm
    if abs(df) > FREQUENCY_LIMIT_HZ:
        return (
            f"frequency {reading.frequency_hz / 1e12:.4f} THz, {df / 1e9:+.2f} GHz from the channel; "
            f"{FREQUENCY_LIMIT_HZ / 1e9:.1f} GHz is the limit"
        )
    if abs(dp) > POWER_LIMIT_DB:
        return f"power {reading.power_dbm:.2f} dBm, {dp:+.2f} dB off; {POWER_LIMIT_DB:.1f} dB is the limit"
    return ""
