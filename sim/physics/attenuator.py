"""The transmitter's MEMS attenuator: from its drive to its loss, and what can be wrong with it (reference pair A2)."""

from __future__ import annotations

import math

from sim.faults import FaultSchedule
from sim.individuals import voa_db

TARGET = "alice.attenuator"
OFFSET_DB = 3.0
LAG_S = 5.0
TABLE = 0.8
SETTLED = 12.0  # lags after which a step is over


class Attenuator:
    """At 0 V at the start. Times: of the world, s."""

    def __init__(self, table: tuple[float, float, float]) -> None:
        self._table = table
        self._stuck_v: float | None = None
        self._lag_s = 0.0
        self._offset_db = 0.0
        self._factor = 1.0
        self._from_v = 0.0
        self._since = -math.inf
        self.drive_v = 0.0

    def set_volts(self, volts: float, t: float) -> None:
        self._from_v, self._since = self._followed_v(t), t
        self.drive_v = volts

    def apply_faults(self, faults: FaultSchedule, t: float) -> None:
        stuck, offset = faults.active("stuck", TARGET, t), faults.active("offset", TARGET, t)
        slow, table = faults.active("slow", TARGET, t), faults.active("table", TARGET, t)
        self._stuck_v = stuck.number(self.position_v(t)) if stuck else None
        self._offset_db = offset.number(OFFSET_DB) if offset else 0.0
        self._lag_s = slow.number(LAG_S) if slow else 0.0
        self._factor = table.number(TABLE) if table else 1.0

    def position_v(self, t: float) -> float:
        """Drive to which its position belongs, V."""
        return self._followed_v(t) if self._stuck_v is None else self._stuck_v

    def loss_db(self, t: float) -> float:
        """Without drift and temperature, dB."""
        return self._factor * voa_db(self._table, self.position_v(t)) + self._offset_db

    def settled_at(self) -> float:
        """Time from which it stands still."""
        return self._since + SETTLED * self._lag_s if self._lag_s else -math.inf

    def _followed_v(self, t: float) -> float:
        if not self._lag_s:
            return self.drive_v
        return self.drive_v + (self._from_v - self.drive_v) * math.exp(-max(0.0, t - self._since) / self._lag_s)
