"""Reads the monitors: all of them at one moment, each device once, whatever one of them says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol, cast

from drivers.errors import DriverError
from qmodd.app.outputs import Readings, readings
from qmodd.app.wiring import Wiring
from qmodd.monitoring.monitors import Frozen, Monitor, Monitors, monitors_of

PERIOD_S = 10.0
# A photodiode's amplifier at its upper rail, and close to it.
RAIL_V, NEAR_RAIL_V = 1.195, 1.15
SUPPLY = ("vin_v", "vout_v", "temperature_c", "fan_rpm")


class _Read(Protocol):
    async def read(self) -> object: ...


class MonitorDesk:
    """One module's monitors. `step` is a loop's; `serving` says whether the module is in service."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self.monitors = Monitors(())
        self._follow()

    def _follow(self) -> None:
        """Factory record and amplifiers' ranges are those of the photonic module that is in."""
        self._known: Readings = readings(self._wiring.module, self._wiring.factory)
        self.monitors.table = self._table()

    def _table(self) -> tuple[Monitor, ...]:
        module, factory = self._wiring.module, self._wiring.factory
        present = [c for c in module.adc.channels if c in factory.photodiodes]
        diodes = {
            c: (factory.photodiode(c).current(NEAR_RAIL_V), factory.photodiode(c).current(RAIL_V)) for c in present
        }
        bob = self._wiring.config.module.role == "bob"
        return monitors_of(self._wiring.config, diodes, tuple(module.detectors.channels) if bob else ())

    async def step(self, _now_s: float) -> None:
        """Freezes a moment for telemetry. It never fails: what does not answer has a loop that looks after it."""
        if not self._wiring.heartbeats_rest:
            await self.freeze()

    async def freeze(self) -> Frozen:
        """Every source once, all at the same time; what cannot be read is told with its reason."""
        clock = self._wiring.clock
        self._follow()
        sources = list(dict.fromkeys(m.reading.partition(".")[0] for m in self.monitors.table))
        utc, begun = clock.utc(), clock.monotonic()
        found = dict(zip(sources, await asyncio.gather(*(self._read(s) for s in sources)), strict=True))
        span_s = clock.monotonic() - begun
        values: dict[str, float] = {}
        unread: dict[str, str] = {}
        for m in self.monitors.table:
            source, _, name = m.reading.partition(".")
            read = found[source]
            if isinstance(read, str):
                unread[m.name] = read
            elif name not in read:
                unread[m.name] = f"{source} does not tell it"
            else:
                values[m.name] = read[name]
        moment = Frozen(utc, span_s, values, unread, self._serving())
        self.monitors.freeze(moment)
        return moment

    def _serving(self) -> bool:
        return self._wiring.life.activity in ("ready", "keying")

    async def _read(self, source: str) -> Mapping[str, float] | str:
        """Fields of one source, or why there are none."""
        try:
            if source == "supply":
                reading = await self._device("supply").read()
                return {name: float(getattr(reading, name)) for name in SUPPLY}
            if source == "cryostat":
                return {"kelvin": float(cast(Any, await self._device("cryostat").read()).kelvin)}
            return await self._known.sources[source]()
        except DriverError as e:
            return str(e)

    def _device(self, role: str) -> _Read:
        return cast(_Read, self._wiring.module.devices[role])
