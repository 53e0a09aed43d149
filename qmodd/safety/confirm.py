"""Asks the hardware whether it is dark: what reads otherwise than it was told is worse than what does not answer.

The enable lines are read back when they are written, and so are biases, drives and detectors by their drivers; the
rail's own monitor and the laser are witnesses that no write can fool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from drivers.errors import DriverError
from qmodd.module import Module

# A rail that is off: below this, V or A. The monitor's mean takes some conversions to follow; and where the enables
# cannot be reached, the hardware watchdog takes half a second.
RAIL_OFF_V, RAIL_OFF_A = 0.5, 2e-3
PATIENCE_S, AGAIN_S = 1.0, 0.06
Sleep = Callable[[float], Awaitable[None]]
Witness = Callable[[Module, Sleep], Awaitable[str]]


async def contradictions(module: Module, sleep: Sleep = asyncio.sleep) -> tuple[dict[str, str], dict[str, str]]:
    """(what reads on although it was switched off, what could not be asked): reasons by the device's name."""
    on: dict[str, str] = {}
    silent: dict[str, str] = {}
    witnesses: list[tuple[str, Witness]] = [(module.devices["rail"].name, _rail)]
    if module.config.module.role == "alice":
        witnesses.append((module.devices["laser"].name, _laser))
    for name, ask in witnesses:
        try:
            async with asyncio.timeout(2.0 * PATIENCE_S):
                if why := await ask(module, sleep):
                    on[name] = why
        except (DriverError, TimeoutError) as e:
            silent[name] = str(e) or "no answer in time"
    return on, silent


async def _rail(module: Module, sleep: Sleep) -> str:
    reading = await module.rail.read()
    for _ in range(round(PATIENCE_S / AGAIN_S)):
        if reading.bus_v < RAIL_OFF_V or reading.current_a < RAIL_OFF_A:
            return ""
        await sleep(AGAIN_S)
        reading = await module.rail.read()
    return (
        f"heater rail reads {reading.bus_v:.2f} V and {1e3 * reading.current_a:.0f} mA with its enable low; below "
        f"{RAIL_OFF_V:g} V or {1e3 * RAIL_OFF_A:g} mA is off"
    )


async def _laser(module: Module, _sleep: Sleep) -> str:
    reading = await module.laser.read()
    return f"the laser emits {reading.power_dbm:.1f} dBm with its enable low" if reading.emitting else ""
