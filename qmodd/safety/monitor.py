"""The thin loop around the interlocks: reads the hardware, keeps the last seconds, latches, ends the session.

What is latched is on disk before anything else is done about it; then the rails drop, then the session ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from qmodd.safety.interlocks import Limits, Readings, Violation, violations
from qmodd.safety.latches import Latch, LatchStore
from qmodd.safety.watchdog import drop_enables

# What is kept of the readings for a latch, s; and how often an analogue reading must violate, in a row.
RING_S, CONFIRM = 10.0, 3


class SafetyTripped(Exception):
    """An interlock is violated: no output may be on. `alarm`: which one, as in the catalogue of alarms."""

    def __init__(self, alarm: str, why: str) -> None:
        super().__init__(why)
        self.alarm = alarm


class Reader(Protocol):
    """Reads the hardware. What cannot be read is None in the readings, and why is in `unread` by the reading's name."""

    unread: dict[str, str]

    async def read(self, fresh: bool = False) -> Readings:
        """`fresh`: the slow readings, too."""
        ...


@dataclass
class Ring:
    """Readings of the last seconds, with their UTC."""

    period_s: float
    rows: deque[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = deque(maxlen=max(4, round(RING_S / self.period_s)))

    def add(self, at: str, readings: Readings) -> None:
        shown = {k: v for k, v in asdict(readings).items() if v is not None and v != ""}
        self.rows.append({"at": at, **shown})


@dataclass
class SafetyMonitor:
    """`step` raises nothing but DriverError from dropping the rails; `tripped` ends the session. `utc` gives ISO 8601.

    `record` takes events; `told` holds what is wrong and no reason to go dark, by alarm.
    """

    reader: Reader
    limits: Limits
    latches: LatchStore
    ring: Ring
    platform: Any
    utc: Callable[[], str]
    tripped: Callable[[SafetyTripped], None]
    record: Callable[[str, dict[str, Any]], None]
    told: dict[str, str] = field(default_factory=dict)
    _suspect: dict[tuple[str, str], int] = field(default_factory=dict)

    async def step(self, _now_s: float) -> None:
        """Raises drivers.errors.DriverError when the rails could not be dropped."""
        readings = await self.reader.read(fresh=bool(self._suspect))
        self.ring.add(self.utc(), readings)
        found = self._confirmed(violations(readings, self.limits))
        self.told = {v.interlock: v.why for v in found if not v.ends}
        if serious := [v for v in found if v.ends]:
            await self._trip(serious)

    def _confirmed(self, found: Iterable[Violation]) -> list[Violation]:
        now = {(v.interlock, v.reading): v for v in found}
        self._suspect = {key: self._suspect.get(key, 0) + 1 for key in now}
        return [v for key, v in now.items() if v.sudden or self._suspect[key] >= CONFIRM]

    async def _trip(self, found: list[Violation]) -> None:
        for v in found:
            if v.latch:
                self.latch(v.interlock, v.why, (v.reading,))
        first = found[0]
        try:
            await drop_enables(self.platform)
        finally:
            self.tripped(SafetyTripped(first.interlock, "; ".join(dict.fromkeys(v.why for v in found))))

    def latch(self, name: str, cause: str, readings: tuple[str, ...] = ()) -> None:
        """Set for good; told once."""
        set_latch(self.latches, Latch(name, cause, self.utc(), readings, tuple(self.ring.rows)), self.record)


def set_latch(latches: LatchStore, latch: Latch, record: Callable[[str, dict[str, Any]], None]) -> None:
    """On disk, then on record. A disk that does not take it changes nothing of its being in force until a restart."""
    try:
        new = latches.set(latch)
    except OSError as e:
        record("latch.not_stored", {"latch": latch.name, "why": str(e)[:480]})
        new = True
    if new:
        record("latch.set", {"latch": latch.name, "why": latch.cause[:480]})


def still_violates(latch: Latch, readings: Readings, unread: dict[str, str], limits: Limits) -> str:
    """Why a latch may not be cleared now: what still violates, or what cannot be read; "" when its cause is gone."""
    found = [v.why for v in violations(readings, limits) if v.ends and (v.interlock == latch.name or v.latch)]
    missing = [f"{name} cannot be read: {unread[name]}" for name in latch.readings if name in unread]
    return "; ".join([*found, *missing])
