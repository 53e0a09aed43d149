"""Readings of every thermometer of a module along time, for the checks of its temperature control."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibration.plot import Plot, Series
from drivers.chips.pmbus import PmbusSupply
from drivers.roles import TecReading
from qmodd.selftest.bench import Bench

# All looks of a run, for the check of the heat sink in a later level.
NOTE = "tec_looks"


@dataclass(frozen=True)
class Look:
    """One moment: s of the monotonic clock, the controller's readings, TMP117; the supply's temperature where known."""

    at_s: float
    tec: TecReading
    witness_c: float
    inlet_c: float | None = None


@dataclass
class Watch:
    bench: Bench
    looks: list[Look] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.looks = self.bench.notes.setdefault(NOTE, [])

    async def once(self) -> Look:
        """Raises drivers.errors.DriverError."""
        context = self.bench.context
        begun = self.bench.clock.monotonic()
        tec = await context.tec.read()
        at = 0.5 * (begun + self.bench.clock.monotonic())
        look = Look(at, tec, await context.submount.read_celsius(), await self._inlet())
        self.looks.append(look)
        return look

    async def look(self, for_s: float, every_s: float) -> list[Look]:
        """Readings over a time, the first at once."""
        start, end = len(self.looks), self.bench.clock.monotonic() + for_s
        while True:
            await self.once()
            if self.bench.clock.monotonic() >= end:
                return self.looks[start:]
            await self.bench.sleep(every_s)

    async def _inlet(self) -> float | None:
        """The supply's own temperature, C: it stands in the same air as the heat sink. None without such a supply."""
        supply = self.bench.module.devices.get("supply")
        return (await supply.read()).temperature_c if isinstance(supply, PmbusSupply) else None

    def figure(self, bench: Bench) -> None:
        """Course of chip, witness and sink."""
        if not self.looks:
            return
        t0 = self.looks[0].at_s
        t = [k.at_s - t0 for k in self.looks]
        series = [
            Series("thermistor", t, [k.tec.object_c for k in self.looks], "line"),
            Series("TMP117", t, [k.witness_c for k in self.looks], "line"),
            Series("heat sink", t, [k.tec.sink_c for k in self.looks], "line"),
        ]
        bench.figures["temperature"] = Plot("Temperatures during the relay", "time (s)", "temperature (C)", series)
