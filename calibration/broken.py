"""What is wrong with a part whose reading is out of its limits: named with the reading and the limit."""

from __future__ import annotations

from calibration.context import CalibrationContext
from calibration.names import HEATER_MONITOR

# A heater that nobody drives has no voltage; the monitor's offset, through its divider, is far below this.
STUCK_V = 0.2
SAMPLES = 32


async def heater_volts(context: CalibrationContext, samples: int = SAMPLES) -> float:
    """Voltage of the heater that the monitor is connected to, V."""
    return (await context.adc.read_volts(samples))[HEATER_MONITOR] * context.settings.heater_monitor_divider


async def heater_fault(context: CalibrationContext, channel: str, amperes: float, volts: float) -> str:
    """Open, shorted, or its source does not obey; "" where R is between its limits after all (reference control B1).

    The monitor is connected to it. Where its flag says nothing it is at 0 A afterwards: a source that is stuck shows
    its voltage there, too. Raises drivers.errors.DriverError.
    """
    low, high = context.settings.heater_resistance_ohm
    seen = f"{volts:.3f} V at {amperes * 1e3:.1f} mA, {volts / amperes:.0f} ohm"
    opened = f"heater {channel!r} is open: {seen}; {high:.0f} ohm is the limit"
    if channel in await context.heaters.open_circuits():
        return opened
    await context.heaters.set_current(channel, 0.0)
    await context.settle()
    rest = await heater_volts(context)
    if rest > STUCK_V:
        return (
            f"heater {channel!r}: its current source is stuck: {rest:.3f} V with 0 mA set, {STUCK_V:g} V is the limit; "
            f"before, {seen}"
        )
    if volts > high * amperes:
        return opened
    if volts < low * amperes:
        return f"heater {channel!r} is shorted: {seen}; {low:.0f} ohm is the limit"
    return ""
