"""What a report of calibrations holds: plain data, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from calibration.plot import Figure
from calibration.procedure import Disturbs
from calibration.record import Record
from qmodd.report.dag import State


@dataclass(frozen=True)
class Entry:
    """One calibration: what it is, what became of it, and what it shows. `valid_until` counts renewals."""

    name: str
    about: str
    equation: str
    needs: tuple[str, ...]
    valid_s: float
    disturbs: Disturbs
    cost_s: float
    state: State
    why: str
    seconds: float = 0.0
    record: Record | None = None
    valid_until: datetime | None = None
    figures: tuple[Figure, ...] = ()
    no_figures: str = ""


@dataclass(frozen=True)
class Side:
    """One module with its calibrations, in an order in which each follows what it needs."""

    side: str
    serial: str
    entries: tuple[Entry, ...]

    @property
    def heading(self) -> str:
        kind = {"alice": "Transmitter", "bob": "Receiver"}.get(self.side, self.side)
        return f"{kind} {self.serial}".strip()


@dataclass(frozen=True)
class Report:
    """`taken` is UTC; `seconds` from power-on to the end of the last calibration."""

    what: str
    taken: datetime
    seconds: float
    sides: tuple[Side, ...] = field(default=())

    @property
    def entries(self) -> list[Entry]:
        return [e for side in self.sides for e in side.entries]
