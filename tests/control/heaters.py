"""A context with nothing but heaters, a supply monitor and records: powers are what was asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

from calibration.context import CalibrationContext
from calibration.record import Record
from drivers.errors import BusFault
from drivers.roles import RailReading

OHM = 90.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class FakeContext:
    """`watts` by channel; `stuck_a`: what the rail draws beyond what was written; `broken`: the bus fails."""

    watts: dict[str, float]
    records: dict[str, Record] = field(default_factory=dict)
    stuck_a: float = 0.0
    broken: bool = False
    writes: int = 0
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        value = {f"{n}_r0_ohm": OHM for n in self.watts}
        self.records["heater_iv"] = Record(
            name="heater_iv", value=value, created=NOW, valid_until=NOW + timedelta(days=1)
        )
        self.drive = self.heaters = self.rail = self.store = self
        self.channels = (*self.watts, "spare") if "ballast" not in self.watts else tuple(self.watts)

    @property
    def typed(self) -> CalibrationContext:
        return cast(CalibrationContext, self)

    # store and records

    def record(self, name: str) -> Record:
        return self.records[name]

    def active(self, name: str) -> Record | None:
        return self.records.get(name)

    # drive

    def power(self, channel: str) -> float:
        return self.watts[channel]

    def max_power(self, channel: str) -> float:
        return 0.110

    def total(self) -> float:
        return math.fsum(self.watts.values())

    async def set_power(self, channel: str, watts: float) -> None:
        if self.broken:
            raise BusFault("heater source: no answer")
        self.watts[channel] = watts
        self.writes += 1
        self.order.append(channel)

    # heaters and rail

    def current(self, channel: str) -> float:
        return math.sqrt(self.watts.get(channel, 0.0) / OHM)

    async def read(self) -> RailReading:
        if self.broken:
            raise BusFault("supply monitor: no answer")
        drawn = sum(self.current(n) for n in self.watts) + 0.004 + self.stuck_a
        return RailReading(4.0, drawn, 4.0 * drawn, 30.0)
