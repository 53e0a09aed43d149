"""Reads what the interlocks judge from a module's devices; one that fails leaves its readings out and says why.

A module has the lines and devices that its configuration names; what it does not have is not watched (`unwatched`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from drivers.errors import DriverError
from drivers.roles import TecReading
from qmodd.module import Module
from qmodd.safety.guards import DIODE_SHUTTER, HeaterBudget, largest_bias
from qmodd.safety.interlocks import Readings

LINES = ("interlock_ok", "cover_closed", "cryostat_ok", "detectors_unbiased")
# What a temperature may be at all, degrees Celsius; the thermistor's as its loop has it.
PLAUSIBLE_C = {
    "submount_c": (-40.0, 125.0),
    "object_c": (-20.0, 90.0),
    "sink_c": (-40.0, 125.0),
    "supply_c": (-40.0, 150.0),
}
# Slow readings, of what changes slowly and takes its bus long, are taken this rarely, s.
SLOW_S = 2.0
# STATUS_WORD without what a busy supply, a fan and a lost packet set.
SUPPLY_BAD = {
    0x0004: "over-temperature",
    0x0008: "input under-voltage",
    0x0010: "output over-current",
    0x0020: "output over-voltage",
    0x0040: "output off",
    0x0800: "power not good",
}


@dataclass
class ModuleReader:
    """`tec`: the temperature loop's last reading, taken instead of another one; None: read it here.

    `light`, `heat`: whether the enable lines were commanded high. `every_s`: of the slow ones.
    """

    module: Module
    budget: HeaterBudget
    now: Callable[[], float]
    tec: Callable[[], TecReading | None] = lambda: None
    on: Callable[[], tuple[bool, bool]] = lambda: (False, False)
    every_s: float = SLOW_S
    # Told at each reading whether the cover is closed; None: not known.
    cover: Callable[[bool | None], None] = lambda closed: None
    unread: dict[str, str] = field(default_factory=dict)
    _slow: dict[str, Any] = field(default_factory=dict)
    _slow_at: float | None = None

    def unwatched(self) -> list[str]:
        """What the interlocks know and this module does not have."""
        receiver = self.module.config.module.role == "bob"
        lines = [line for line in LINES[: 4 if receiver else 2] if line not in self.module.platform.lines]
        roles = [role for role in ("supply", *(("cryostat",) if receiver else ())) if role not in self.module.devices]
        return [f"line {line}" for line in lines] + roles

    async def read(self, fresh: bool = False) -> Readings:
        """Never raises a DriverError: `unread` says what could not be read. `fresh`: the slow ones, too."""
        self.unread = {}
        found: dict[str, Any] = {}
        lines = self.module.platform.lines
        for line in LINES:
            if line in lines:
                await self._take(found, (line,), _line(self.module, line))
        await self._take(found, ("rail_v", "rail_a"), self._rail)
        await self._thermal(found)
        now = self.now()
        if fresh or self._slow_at is None or now - self._slow_at >= self.every_s:
            self._slow_at, self._slow = now, {}
            await self._slowly(self._slow)
        self._plausible(found | self._slow)
        laser_on, heaters_on = self.on()
        written_a, written_w = self.budget.recent(self.module.heaters)
        good = {k: v for k, v in (found | self._slow).items() if k not in self.unread}
        self.cover(good.get("cover_closed"))
        return Readings(
            **good,
            **self._written(),
            written_a=written_a,
            written_w=written_w,
            laser_on=laser_on,
            heaters_on=heaters_on,
        )

    def _plausible(self, found: dict[str, Any]) -> None:
        """What no chip can be is a sensor's fault, which its own loop tells; it says nothing of the temperature."""
        for name, (low, high) in PLAUSIBLE_C.items():
            value = found.get(name)
            if value is not None and not low < value < high:
                self.unread[name] = f"{name.removesuffix('_c')} reads {value:.1f} C: sensor open or shorted"

    def _written(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if "detectors" in self.module.devices:
            out["bias_a"] = largest_bias(self.module.detectors)
        if DIODE_SHUTTER in self.module.biases.channels:
            out["diode_shutter_v"] = self.module.biases.voltage(DIODE_SHUTTER)
        return out

    async def _thermal(self, found: dict[str, Any]) -> None:
        reading = self.tec()
        if reading is None:
            await self._take(found, ("object_c", "sink_c", "tec_a"), self._tec)
        else:
            found |= {"object_c": reading.object_c, "sink_c": reading.sink_c, "tec_a": reading.current_a}

    async def _tec(self) -> dict[str, Any]:
        r = await self.module.tec.read()
        return {"object_c": r.object_c, "sink_c": r.sink_c, "tec_a": r.current_a}

    async def _rail(self) -> dict[str, Any]:
        r = await self.module.rail.read()
        return {"rail_v": r.bus_v, "rail_a": r.current_a}

    async def _slowly(self, found: dict[str, Any]) -> None:
        await self._take(found, ("submount_c",), lambda: _one("submount_c", self.module.submount.read_celsius()))
        if "supply" in self.module.devices:
            await self._take(found, ("supply_c", "fan_rpm", "supply_fault"), self._supply)
        if "cryostat" in self.module.devices:
            await self._take(found, ("cryostat_k",), self._cryostat)

    async def _supply(self) -> dict[str, Any]:
        supply: Any = self.module.devices["supply"]
        r = await supply.read()
        bad = ", ".join(text for bit, text in SUPPLY_BAD.items() if int(r.status) & bit)
        if bad:
            # Its bits stay until they are cleared: the next reading tells what is so then.
            await supply.clear_faults()
        return {"supply_c": r.temperature_c, "fan_rpm": r.fan_rpm, "supply_fault": bad}

    async def _cryostat(self) -> dict[str, Any]:
        cryostat: Any = self.module.devices["cryostat"]
        return {"cryostat_k": (await cryostat.read()).kelvin}

    async def _take(
        self, found: dict[str, Any], names: tuple[str, ...], read: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        try:
            found |= await read()
        except DriverError as e:
            self.unread |= dict.fromkeys(names, str(e))


def _line(module: Module, line: str) -> Callable[[], Awaitable[dict[str, Any]]]:
    return lambda: _one(line, module.platform.read(line))


async def _one(name: str, reading: Awaitable[Any]) -> dict[str, Any]:
    return {name: await reading}
