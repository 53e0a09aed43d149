"""Events that are as durable as what they tell of: written in the same transaction, handed to the event log afterwards.

A crash between the event log and `done` tells one twice, under the same `entry`.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from qmodd.keys.database import Database
from qmodd.keys.records import KeyState

Scalar = str | int | float | bool | None
_EVENT = {
    KeyState.DELIVERED: "key.sealed",
    KeyState.ACKNOWLEDGED: "key.acknowledged",
    KeyState.EXPIRED: "key.expired",
    KeyState.REVOKED: "key.revoked",
    KeyState.PURGED: "key.purged",
}

# All that is ever queued here.
EVENTS = frozenset(_EVENT.values()) | {"key.usable", "key.revocation.confirmed", "key.revocation.complete"}


@dataclass(frozen=True)
class Moved:
    """A key, its state before, and when its block was made (UTC, s)."""

    name: UUID
    state: KeyState
    block: bytes
    recipient: str
    created: float


@dataclass(frozen=True)
class Happening:
    n: int
    event: str
    fields: dict[str, Scalar]


class Happenings:
    """The queue of events in the key store's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def add(db: sqlite3.Connection, event: str, fields: Mapping[str, Scalar]) -> None:
        """In the transaction of what happened."""
        db.execute("INSERT INTO happened (event, fields) VALUES (?, ?)", (event, json.dumps(dict(fields))))

    def moved(self, db: sqlite3.Connection, moved: Sequence[Moved], to: KeyState, why: str, now: float) -> None:
        """One event a recipient for keys that changed their state."""
        self.told(db, _EVENT[to], moved, why, now)

    def told(self, db: sqlite3.Connection, event: str, moved: Iterable[Moved], why: str, now: float) -> None:
        by: dict[str, list[Moved]] = defaultdict(list)
        for m in moved:
            by[m.recipient].append(m)
        for recipient, keys in by.items():
            fields: dict[str, Scalar] = {"recipient": recipient, "keys": len(keys)}
            if len(keys) == 1:
                fields["key_id"] = str(keys[0].name)
            if why:
                fields["why"] = why[:480]
            if event in ("key.acknowledged", "key.usable") and now > 0.0:
                ages = [max(0.0, now - m.created) for m in keys]
                fields |= {"age_s": round(sum(ages) / len(ages), 3), "age_max_s": round(max(ages), 3)}
            self.add(db, event, fields)

    def pending(self, limit: int = 256) -> list[Happening]:
        rows = self._database.rows("SELECT n, event, fields FROM happened ORDER BY n LIMIT ?", limit)
        return [Happening(int(str(n)), str(event), json.loads(str(fields))) for n, event, fields in rows]

    def done(self, up_to: int) -> None:
        """They are in the event log."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM happened WHERE n <= ?", (up_to,))
