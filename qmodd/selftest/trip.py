"""The hardware watchdog put to the test: it must take the heater rail away by itself, and come back afterwards.

Runs before a session toggles the watchdog line: every output is at zero then, so that a rail that stays on warms
nothing. A watchdog that never trips is seen by nothing else, and is the last that stands between a hung core and light.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from drivers.errors import DriverError
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Finding, Limits

PART = "watchdog"
# 0.5 s by the board; later than 1 s is too late for what it is there for (reference control C).
TRIPS_S = Limits(0.2, 1.0, 0.4, 0.75)
RAIL_OFF_V = Limits(-0.05, 0.3)
POLL_S = 0.01
# The rail's capacitors, then two windows of the monitor's mean.
SWITCH_S = 0.15
YES = Limits.exactly(1.0)


async def trip_findings(bench: Bench) -> list[Finding]:
    """About 0.8 s; 1.2 s where it does not trip. Both enables are low afterwards and the watchdog is armed again.

    The caller toggles nothing meanwhile, and has every heater at zero. A platform that does not answer is a finding.
    """
    try:
        return await _tripped(bench)
    except DriverError as e:
        needs = (bench.bus("platform"),)
        return [Finding("watchdog.answers", 0.0, "", YES, bench.part("platform"), needs, str(e))]


async def _tripped(bench: Bench) -> list[Finding]:
    platform = bench.module.platform
    needs = (bench.part("platform"), bench.bus("platform"))
    try:
        await _toggle(bench)
        await platform.write("heater_enable", True)
        seconds = await _wait(bench)
        await bench.sleep(SWITCH_S)
        volts, why = await _rail(bench)
    finally:
        for line in ("laser_enable", "heater_enable"):
            await platform.write(line, False)
    high = [line for line in ("laser_enable", "heater_enable") if await platform.read(line)]
    await _toggle(bench)
    armed = not await platform.read("watchdog_tripped")
    late = "an enable was high and its line was not toggled: it must trip by itself"
    low = f"{', '.join(high)} was set low and is high: the watchdog cannot be armed again"
    enables = Finding("watchdog.enables_low", float(not high), "", YES, needs[0], needs[1:], low if high else "")
    trips = Finding("watchdog.trips", seconds, "s", TRIPS_S, PART, needs, late, sigma=POLL_S)
    rail_needs = (*needs, *((bench.part("rail"), bench.bus("rail")) if bench.has("rail") else ()))
    dropped = Finding("watchdog.drops_rail", volts, "V", RAIL_OFF_V, PART, rail_needs, "the heater rail stays on")
    again = Finding("watchdog.rearms", float(armed), "", YES, PART, needs, "stays tripped with both enables low")
    return [enables, trips, replace(dropped, skipped=why), again]


async def _toggle(bench: Bench) -> None:
    """Both levels, so that the line has changed whatever it was."""
    for level in (False, True):
        await bench.module.platform.write("watchdog", level)


async def _wait(bench: Bench) -> float:
    """Seconds until the line says so; those that were waited for it when it does not."""
    begun = bench.clock.monotonic()
    while bench.clock.monotonic() - begun <= TRIPS_S.high + POLL_S:
        await bench.sleep(POLL_S)
        if await bench.module.platform.read("watchdog_tripped"):
            return bench.clock.monotonic() - begun
    return bench.clock.monotonic() - begun


async def _rail(bench: Bench) -> tuple[float, str]:
    """(V, why there is none)."""
    if not bench.has("rail"):
        return math.nan, "this module has no monitor of the rail"
    try:
        return (await bench.context.rail.read()).bus_v, ""
    except DriverError as e:
        return math.nan, str(e)


def passed(findings: Sequence[Finding]) -> bool:
    return bool(findings) and all(f.ok or f.skipped for f in findings)
