"""Looks at the parts that nothing else looks at while a module is in service, and says which one broke.

What a broken heater or photodiode does first is to upset some loop far behind it, whose reason then names the wrong
part. This watch asks the parts themselves, moving nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from calibration.broken import SAMPLES, heater_fault, heater_volts
from calibration.context import CalibrationContext
from calibration.names import HEATER_MONITOR, PHOTODIODES
from calibration.noise import reading_noise
from calibration.procedures.light import LIVE_A
from calibration.procedures.photodiode_zero import READABLE

# Less current than this tells nothing about R.
LEAST_A = 1e-3
# V against R(P) of the record: ageing and the monitor's own error are far below.
OFF, OFF_V = 0.05, 0.05
# In the order of the light of keys: where one sees light, those before it must.
CHAIN = ("pa6", "pa0", "pa1", "pa3")
# Several heaters that give bit by bit the same readings of all inputs: nothing was converted.
FROZEN = 3
# A dark current of this many intercepts of its amplifier lifts its output off the floor.
LIFTS = 1.6

Volts = Mapping[str, float]


@dataclass
class PartsWatch:
    """Voltage of every driven heater against R(P) of its record, photodiodes below their own dark current, and an ADC
    that converts nothing. `broken` is awaited with the diagnosis.

    `walking` is held meanwhile: the heater monitor is shared with the calibrations.
    """

    context: CalibrationContext
    active: Callable[[], bool]
    walking: asyncio.Lock
    broken: Callable[[str], Awaitable[None]]
    checked: dict[str, float] = field(default_factory=dict)

    async def step(self, now_s: float) -> None:
        """Raises drivers.errors.DriverError."""
        if not self.active() or self.walking.locked() or self.context.store.active("heater_iv") is None:
            return
        async with self.walking:
            why = await self._look()
        if why and self.active():
            await self.broken(why)

    async def _look(self) -> str:
        """Name, reading and limit of what is broken; "" when nothing is."""
        heaters, rows = self.context.heaters, list[tuple[str, float, Volts]]()
        try:
            for channel in self._driven():
                amperes = heaters.current(channel)
                await heaters.monitor(channel)
                await self.context.settle()
                volts = await self.context.adc.read_volts(SAMPLES)
                if heaters.current(channel) == amperes:
                    rows.append((channel, amperes, volts))
            return frozen(rows) or self._diodes(rows) or await self._heaters(rows)
        finally:
            await heaters.monitor(None)

    def _driven(self) -> list[str]:
        known, heaters = self.context.record("heater_iv").value, self.context.heaters
        return [c for c in heaters.channels if f"{c}_r0_ohm" in known and heaters.current(c) >= LEAST_A]

    async def _heaters(self, rows: list[tuple[str, float, Volts]]) -> str:
        noise = reading_noise(self.context).of(HEATER_MONITOR, SAMPLES)
        limit = math.hypot(OFF, 5.0 * noise)
        for channel, amperes, row in rows:
            law = self.context.drive.resistance(channel)
            known = amperes * law.r0_ohm * (1.0 + law.rho_per_w * law.power(amperes))
            allowed = limit * known + OFF_V
            volts = row[HEATER_MONITOR] * self.context.settings.heater_monitor_divider
            if abs(volts - known) > allowed:
                volts = await self._again(channel)
            self.checked[channel] = volts / amperes
            if abs(volts - known) > allowed and self.context.heaters.current(channel) == amperes:
                return await heater_fault(self.context, channel, amperes, volts) or (
                    f"heater {channel!r}: {volts / amperes:.1f} ohm at {amperes * 1e3:.1f} mA instead of "
                    f"{known / amperes:.1f} ohm; {limit:.1%} is the limit"
                )
        return ""

    async def _again(self, channel: str) -> float:
        """V, by a reading of its own: one bad one ends no session."""
        await self.context.heaters.monitor(channel)
        await self.context.settle()
        return await heater_volts(self.context)

    def _diodes(self, rows: list[tuple[str, float, Volts]]) -> str:
        zero = self.context.store.active("photodiode_zero")
        if not rows or zero is None:
            return ""
        seen = rows[-1][2]
        for name in PHOTODIODES[self.context.side]:
            law = self.context.factory.photodiode(name)
            floor = READABLE * law.log_slope_v_per_decade
            if seen[name] >= floor:
                continue
            dark = zero.value.get(f"{name}_dark_a", 0.0)
            if dark > LIFTS * law.log_intercept_a:
                return self._dead(name, seen[name], floor, f"its dark current alone was {dark:.2g} A")
            if lit := self._lit_behind(name, seen):
                return self._dead(name, seen[name], floor, lit)
        return ""

    @staticmethod
    def _dead(name: str, volts: float, floor: float, witness: str) -> str:
        return (
            f"photodiode {name} is dead: its amplifier reads {1e3 * volts:.2f} mV; {1e3 * floor:.2f} mV is the least, "
            f"for {witness}"
        )

    def _lit_behind(self, name: str, seen: Volts) -> str:
        """Who sees light that has passed this diode."""
        behind = CHAIN[CHAIN.index(name) + 1 :] if name in CHAIN else ()
        for other in behind:
            amperes = self.context.factory.photodiode(other).current(seen[other])
            if amperes >= LIVE_A:
                return f"{other} behind it sees {amperes:.2g} A"
        return ""


def frozen(rows: list[tuple[str, float, Volts]]) -> str:
    """The converter gave the same numbers for different heaters."""
    if len(rows) < FROZEN or any(row[2] != rows[0][2] for row in rows):
        return ""
    shown = ", ".join(f"{name} {volts:.6g} V" for name, volts in list(rows[0][2].items())[:2])
    return (
        f"monitor ADC is stale: {len(rows)} readings at different heaters are the same to the last bit ({shown}, ...); "
        f"{FROZEN - 1} are the most"
    )
