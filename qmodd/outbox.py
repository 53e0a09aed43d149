"""The durable queue of what must reach the NOC or a KMS. Core owns it, so uplink may be killed at any time.

A row leaves it only on proof of delivery: the broker's PUBACK for events and alarms, the receiver's signed
acknowledgement for keys (a PUBACK is not delivery, reference mqtt). Of a retained topic the newest value stays, also
after it was published, so that the present truth can be told again to a broker that has forgotten it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

Kind = Literal["key", "event", "alarm", "state"]
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024 - 4096
MAX_SUFFIX_CHARS = 200

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    suffix TEXT NOT NULL,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    kind TEXT NOT NULL,
    expiry REAL,
    dedupe BLOB UNIQUE,
    state TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS rows_order ON rows (state, retain DESC, id);
CREATE UNIQUE INDEX IF NOT EXISTS rows_retained ON rows (suffix) WHERE retain = 1;
"""


class OutboxDamaged(Exception):
    """The queue's file cannot be used; names it."""


@dataclass(frozen=True)
class Row:
    """One message. `suffix` is the topic below the module's root; `expiry` is UTC in seconds since 1970 or None."""

    id: int
    suffix: str
    payload: bytes
    qos: int
    retain: bool
    kind: Kind
    expiry: float | None
    dedupe: bytes | None


@dataclass
class Outbox:
    """SQLite, WAL, synchronous=FULL except for `state` (written anew at every start). `path` None keeps it in memory.

    Row states: `waiting` to be published; `sent` a key batch that the broker has and its receiver has not acknowledged;
    `published` the newest value of a retained topic. Raises OutboxDamaged when the file cannot be opened.
    """

    path: Path | None
    listeners: list[Callable[[], None]] = field(default_factory=list)
    # Told suffix, payload and retain flag of every message, keys excepted.
    taps: list[Callable[[str, bytes, bool], None]] = field(default_factory=list)
    _synchronous: str = field(default="FULL", init=False)
    _depth: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        try:
            self.database = self._open()
        except sqlite3.DatabaseError as e:
            raise OutboxDamaged(f"{self.path}: {e}") from None

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        database = sqlite3.connect(self.path or ":memory:", isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA secure_delete=ON")
            database.executescript(_SCHEMA)
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing; on disk when it returns if durable, else safe against a kill but not a power cut."""
        if self._depth:
            yield self.database  # part of the transaction around it
            return
        self._set_synchronous("FULL" if durable else "NORMAL")
        self.database.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield self.database
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        else:
            self.database.execute("COMMIT")
        finally:
            self._depth -= 1

    def _set_synchronous(self, mode: str) -> None:
        if mode != self._synchronous:
            self.database.execute(f"PRAGMA synchronous={mode}")
            self._synchronous = mode

    def put(
        self,
        suffix: str,
        payload: bytes,
        *,
        kind: Kind,
        qos: int = 1,
        retain: bool = False,
        expiry: datetime | None = None,
        dedupe: UUID | bytes | None = None,
    ) -> int:
        """Queue a message and return its row id; a row with the same `dedupe` is returned instead of a second one.

        A retained message replaces the one before it on its topic (an empty payload clears the topic).
        Raises ValueError on a payload over `MAX_PAYLOAD_BYTES`, a bad topic, or a retained key.
        """
        _check(suffix, payload, kind, retain)
        mark = dedupe.bytes if isinstance(dedupe, UUID) else dedupe
        with self.transaction(durable=kind != "state") as db:
            if mark is not None:
                known = db.execute("SELECT id FROM rows WHERE dedupe = ?", (mark,)).fetchone()
                if known:
                    return int(known[0])
            if retain:
                db.execute("DELETE FROM rows WHERE suffix = ? AND retain = 1", (suffix,))
            cursor = db.execute(
                "INSERT INTO rows (suffix, payload, qos, retain, kind, expiry, dedupe, state) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting')",
                (suffix, payload, qos, retain, kind, expiry.timestamp() if expiry else None, mark),
            )
            row_id = int(cursor.lastrowid or 0)
        self._tell()
        if kind != "key":
            for tap in self.taps:
                tap(suffix, payload, retain)
        return row_id

    def pending(self, limit: int = 1000, *, skip: frozenset[int] | set[int] = frozenset()) -> list[Row]:
        """What waits, at most `limit` rows: the present truth (retained) first, then everything else in order."""
        cursor = self.database.execute(
            "SELECT id, suffix, payload, qos, retain, kind, expiry, dedupe FROM rows WHERE state = 'waiting' "
            "ORDER BY retain DESC, id"
        )
        rows: list[Row] = []
        for r in cursor:
            if r[0] not in skip:
                rows.append(Row(r[0], r[1], r[2], r[3], bool(r[4]), r[5], r[6], r[7]))
                if len(rows) >= limit:
                    break
        cursor.close()
        return rows

    def published(self, row_id: int) -> None:
        """The broker has confirmed it: events and alarms go, retained values and keys stay in another state."""
        with self.transaction(durable=False) as db:
            db.execute("DELETE FROM rows WHERE id = ? AND kind != 'key' AND (retain = 0 OR payload = x'')", (row_id,))
            db.execute(
                "UPDATE rows SET state = CASE kind WHEN 'key' THEN 'sent' ELSE 'published' END WHERE id = ?", (row_id,)
            )

    def resend(self, row_id: int) -> bool:
        """Put a key batch that was sent back in the queue, same bytes. False when it is no longer there."""
        with self.transaction(durable=False) as db:
            changed = db.execute("UPDATE rows SET state = 'waiting' WHERE id = ? AND state = 'sent'", (row_id,))
        if changed.rowcount:
            self._tell()
        return bool(changed.rowcount)

    def renew(self) -> None:
        """A broker is back: tell the present truth again, and resend every key batch without a receipt."""
        with self.transaction(durable=False) as db:
            db.execute("UPDATE rows SET state = 'waiting' WHERE state != 'waiting'")
        self._tell()

    def delete(self, row_id: int) -> None:
        """Destroy a row, for a key batch on its receiver's signed acknowledgement."""
        with self.transaction() as db:
            db.execute("DELETE FROM rows WHERE id = ?", (row_id,))

    def expire(self, now: datetime) -> int:
        """Drop what nobody wants any more, keys excepted; only for a synchronised clock. Returns how many."""
        with self.transaction(durable=False) as db:
            gone = db.execute("DELETE FROM rows WHERE expiry < ? AND kind != 'key'", (now.timestamp(),))
        return gone.rowcount

    def retained(self, prefix: str = "") -> dict[str, bytes]:
        """The present truth: newest payload by topic suffix."""
        cursor = self.database.execute("SELECT suffix, payload FROM rows WHERE retain = 1 ORDER BY suffix")
        return {suffix: payload for suffix, payload in cursor if suffix.startswith(prefix)}

    def counts(self) -> dict[str, int]:
        """Rows by `<kind>_<state>`."""
        cursor = self.database.execute("SELECT kind, state, COUNT(*) FROM rows GROUP BY kind, state")
        return {f"{kind}_{state}": n for kind, state, n in cursor}

    def close(self) -> None:
        self.database.close()

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()


def _check(suffix: str, payload: bytes, kind: Kind, retain: bool) -> None:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"{suffix}: payload of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES}")
    if not suffix or len(suffix) > MAX_SUFFIX_CHARS or set(suffix) & set("+#\0"):
        raise ValueError(f"topic {suffix!r} cannot be published to")
    if retain and kind == "key":
        raise ValueError("keys are never retained")
