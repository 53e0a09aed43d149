"""Supplies: what the power supply says over PMBus, the heater rail by two witnesses, and that its enable switches it.

The supply monitor (INA228) and the heater source's own monitor pin, on which the unconnected channel shows the rail as
soon as it is driven, see the same voltage: where they disagree it is the monitor, where they agree the rail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from calibration.broken import STUCK_V, heater_volts
from calibration.names import HEATER_MONITOR
from drivers.chips.ltc2672 import Ltc2672
from drivers.chips.pmbus import PmbusSupply, SupplyReading, SupplyStatus
from drivers.errors import DriverError
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.power_on_common import NONE, SPARE, YES, device, guarded, of_device, through

VIN_V = Limits(40.0, 57.0, 43.0, 54.0)
VOUT_V = Limits(11.4, 12.6, 11.6, 12.4)
IOUT_A = Limits(0.2, 10.0)
SUPPLY_C = Limits(0.0, 70.0, 5.0, 60.0)
FAN_SHARE = Limits(0.8, 1.2, 0.9, 1.1)
RAIL_NOMINAL_V = 4.0
RAIL_V = Limits.around(RAIL_NOMINAL_V, 0.2, 0.12)
RAIL_OFF_V = Limits(-0.05, 0.3)
# The source's own consumption; every heater at zero.
IDLE_A = Limits(-0.002, 0.012)
NO_CURRENT_A = Limits(-0.002, 0.002)
SPARE_TEST_A = 1e-3
# The rail's capacitors, then two windows of the monitor's mean.
SWITCH_S = 0.15
SPIN_S, SPIN_TRIES = 0.4, 7
FAN_BITS = SupplyStatus.FAN
# Bits that only repeat others, or tell of transactions, which the burst counts.
TOLD_ELSEWHERE = SupplyStatus.FAN | SupplyStatus.CML | SupplyStatus.BUSY | SupplyStatus.NONE_OF_THE_ABOVE
SEEN_BY = ("heaters", "adc")


async def supply(bench: Bench) -> list[Finding]:
    """Voltages, current, temperature, status and fan of the power supply."""
    pmbus = device(bench, "supply")
    if not isinstance(pmbus, PmbusSupply):
        return [skipped("supply_output", "supply", "this module has no such part")]
    return await guarded(bench, "supply", "supply", _supply(bench, pmbus))


async def _supply(bench: Bench, pmbus: PmbusSupply) -> list[Finding]:
    wanted = await pmbus.fan_wanted()
    got = await _spun_up(bench, pmbus, wanted)
    bad = SupplyStatus(got.status & ~TOLD_ELSEWHERE)
    said = f"STATUS_WORD 0x{got.status:04x}: {bad!r}" if bad else ""
    values: list[tuple[str, float, Limits, str, str]] = [
        ("supply_input", got.vin_v, VIN_V, "V", "look at what feeds the module"),
        ("supply_output", got.vout_v, VOUT_V, "V", "out of its tolerance: overloaded or broken"),
        ("supply_current", got.iout_a, IOUT_A, "A", "the controller alone takes more than the least"),
        ("supply_temperature", got.temperature_c, SUPPLY_C, "C", "air inlet blocked, or the supply is failing"),
        ("supply_status", float(bad), NONE, "", said),
    ]
    out = [of_device(bench, "supply", name, value, limits, unit, hint) for name, value, limits, unit, hint in values]
    share = got.fan_rpm / wanted if wanted else 0.0
    hint = f"set to {wanted:.0f} rpm, turns at {got.fan_rpm:.0f} rpm: blocked, worn or unplugged"
    fan = through(bench, ["supply"], "fan", "fan_speed", share, FAN_SHARE, hint=hint, needs=("supply_output",))
    # A fan that stands heats the supply; and the supply's own flag for it is about the fan.
    heated = [replace(f, needs=(*f.needs, "fan")) if f.name == "supply_temperature" else f for f in out]
    flag = through(bench, ["supply"], "fan", "fan_status", float(bool(got.status & FAN_BITS)), NONE)
    return [*heated, fan, flag]


async def _spun_up(bench: Bench, pmbus: PmbusSupply, wanted: float) -> SupplyReading:
    """The reading once the fan has had its time since it was switched on, or turns already."""
    for _ in range(SPIN_TRIES):
        got = await pmbus.read()
        if FAN_SHARE.warn_low * wanted <= got.fan_rpm <= FAN_SHARE.warn_high * wanted:
            break
        await bench.sleep(SPIN_S)
    return got


async def heater_rail(bench: Bench) -> list[Finding]:
    """Both witnesses with the rail on and, while no heater is driven, off; the rail is left as it was found."""
    heaters = bench.module.heaters
    found = await guarded(bench, "rail", "rail", _monitor(bench, "rail", on=True))
    if not _idle(bench):
        why = "heaters are driven: their rail is not switched under them"
        return [*found, skipped("rail_off", "rail heater", why)]
    before = heaters.current(SPARE)
    found += await guarded(bench, "heaters", "rail_witness", _witness(bench, on=True))
    found.append(await _pin(bench, on=True))
    if found[-1].ok:
        try:
            await bench.module.platform.write("heater_enable", False)
            await bench.sleep(SWITCH_S)
            found.append(await _pin(bench, on=False))
            found += await guarded(bench, "rail", "rail_off", _monitor(bench, "rail_off", on=False))
            found += await guarded(bench, "heaters", "rail_off_witness", _witness(bench, on=False))
        finally:
            await bench.module.platform.write("heater_enable", True)
        await bench.sleep(SWITCH_S)
        found += await guarded(bench, "rail", "rail_again", _monitor(bench, "rail_again", on=True))
    await heaters.set_current(SPARE, before)
    return found


async def _pin(bench: Bench, *, on: bool) -> Finding:
    """The enable line at its pin, which is on while a module is up."""
    level = await bench.module.platform.read("heater_enable")
    hint = f"the pin is {'high' if level else 'low'} after it was set {'high' if on else 'low'}"
    name = "line.heater_enable" if on else "line.heater_enable_off"
    return of_device(bench, "platform", name, float(level), YES if on else NONE, hint=hint)


def _idle(bench: Bench) -> bool:
    heaters = bench.module.heaters
    return all(heaters.current(c) == 0.0 for c in heaters.channels if c != SPARE)


async def _monitor(bench: Bench, name: str, *, on: bool) -> Sequence[Finding]:
    """What the supply monitor reads; it is the one to blame where the other witness sees nothing wrong."""
    got = await bench.module.rail.read()
    line = (bench.part("platform"), bench.bus("platform"))
    needs = ("rail heater", *line, "supply")
    hint = "the monitor pin of the heater source sees another voltage" if on else "reads a voltage with the rail off"
    limits = RAIL_V if on else RAIL_OFF_V
    out = [of_device(bench, "rail", f"{name}_voltage", got.bus_v, limits, "V", hint, needs)]
    if not on:
        hint = "reads a current where none can flow: its input is off"
        out.append(of_device(bench, "rail", f"{name}_current", got.current_a, NO_CURRENT_A, "A", hint, line))
    elif _idle(bench):
        hint = "" if IDLE_A.low <= got.current_a <= IDLE_A.high else await _who_gives(bench)
        idle = f"{name}_idle_current"
        needs = (*line, "rail heater", bench.bus("heaters"))
        out.append(through(bench, ["rail"], bench.part("heaters"), idle, got.current_a, IDLE_A, "A", hint, needs))
    return out


async def _who_gives(bench: Bench) -> str:
    """Heaters that have a voltage although nothing is set; in the words of the calibrations."""
    heaters, context = bench.module.heaters, bench.context
    stuck = []
    try:
        for channel in heaters.channels if HEATER_MONITOR in bench.module.adc.channels else ():
            await heaters.monitor(channel)
            await bench.sleep(context.settings.settle_s)
            volts = await heater_volts(context)
            if channel != SPARE and volts > STUCK_V:
                why = f"its current source is stuck: {volts:.3f} V with 0 mA set, {STUCK_V:g} V is the limit"
                stuck.append(f"heater {channel!r}: {why}")
        await heaters.monitor(None)
    except DriverError as error:
        return f"a source gives current that nobody asked for; which one cannot be told: {error}"
    return "; ".join(stuck) or "a source gives current that nobody asked for, or takes none for itself"


async def _witness(bench: Bench, *, on: bool) -> Sequence[Finding]:
    heaters = device(bench, "heaters")
    if not isinstance(heaters, Ltc2672) or "heater_monitor" not in bench.module.adc.channels:
        return []
    await heaters.set_current(SPARE, SPARE_TEST_A)
    await heaters.monitor(SPARE)
    try:
        await bench.sleep(bench.context.settings.settle_s)
        volts = (await bench.module.adc.read_volts(8))["heater_monitor"]
    finally:
        await heaters.monitor(None)
    volts *= bench.context.settings.heater_monitor_divider
    name = "rail_at_heater_source" if on else "rail_off_at_heater_source"
    limits = RAIL_V if on else RAIL_OFF_V
    hint = "supply of the heaters is off its value" if on else "its enable does not switch it off"
    needs = (bench.part("platform"), bench.bus("platform"), "supply", "monitor_off", "monitor_reference")
    return [through(bench, SEEN_BY, "rail heater", name, volts, limits, "V", hint, needs)]


CHECKS: tuple[Check, ...] = (
    Check("supply", Level.POWER_ON, supply, parts=("supply",), lane="slow"),
    Check("heater_rail", Level.POWER_ON, heater_rail, parts=("platform", "heater_rail")),
)
