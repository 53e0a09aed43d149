"""How far each key has come at both sites: one row a key beside the key store's, in the same database.

What a site says about a key only ever goes up: nothing, HAS (its recipient has acknowledged it), GONE (given up, its
recipient may still hold it), CLEAR (given up, its recipient has confirmed that or never had it). Each side keeps what
the far one said last, and what the far one has confirmed to have heard. So words may be lost, repeated and reordered,
and a crash at any moment costs a repetition at most.

A key is usable once both sites say HAS. It is given up everywhere once one site says GONE.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from qmodd.keys.database import Database

MOST_IN_A_NOTICE = 1024


class Level(IntEnum):
    """What a site says about a key."""

    NOTHING = 0
    HAS = 1
    GONE = 2
    CLEAR = 3


class Notice(IntEnum):
    """What this site's recipient was told about a key, and has confirmed."""

    NOTHING = 0
    USABLE_SENT = 1
    USABLE = 2
    REVOKE_SENT = 3
    REVOKED = 4


@dataclass(frozen=True)
class Untold:
    """One key of which the far module has not heard the newest; `n` is its place in the ledger."""

    n: int
    block: UUID
    number: int
    level: Level


class HandoverLedger:
    """Writing methods take part in the transaction that they are called in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- what happens here; in the transaction that changes the state of the key ---

    @staticmethod
    def delivered(db: sqlite3.Connection, ids: Iterable[UUID], batch: UUID | None, now: float) -> None:
        db.executemany(
            "INSERT INTO handover (id, held, batch, delivered) VALUES (?, 1, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "held = 1, batch = COALESCE(excluded.batch, batch), delivered = COALESCE(delivered, excluded.delivered), "
            # Given up while it was being sealed: the recipient has to hear of it after all.
            "mine = CASE WHEN mine = 3 AND held = 0 THEN 2 ELSE mine END",
            [(i.bytes, batch.bytes if batch else None, now) for i in ids],
        )

    @staticmethod
    def acknowledged(db: sqlite3.Connection, ids: Iterable[UUID], now: float) -> None:
        db.executemany(
            "INSERT INTO handover (id, held, mine, acknowledged) VALUES (?, 1, 1, ?) ON CONFLICT (id) DO UPDATE SET "
            "held = 1, mine = MAX(mine, 1), acknowledged = COALESCE(acknowledged, excluded.acknowledged)",
            [(i.bytes, now) for i in ids],
        )

    @staticmethod
    def given_up(db: sqlite3.Connection, ids: Iterable[UUID], why: str, now: float) -> None:
        """GONE, or CLEAR at once for a key that was never sealed for the recipient."""
        db.executemany(
            "INSERT INTO handover (id, mine, ended, why) VALUES (?, 3, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "mine = MAX(mine, CASE held WHEN 1 THEN 2 ELSE 3 END), ended = COALESCE(ended, excluded.ended), "
            "why = CASE why WHEN '' THEN excluded.why ELSE why END",
            [(i.bytes, now, why[:200]) for i in ids],
        )

    @staticmethod
    def forgotten(db: sqlite3.Connection, ids: Iterable[UUID]) -> None:
        db.executemany("DELETE FROM handover WHERE id = ?", [(i.bytes,) for i in ids])

    # --- what the far module says ---

    @staticmethod
    def far_says(db: sqlite3.Connection, ids: Sequence[UUID], level: Level) -> list[UUID]:
        """Take it down; returns the keys that have to be given up here now, too."""
        db.executemany(
            "INSERT INTO handover (id, far) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET far = MAX(far, excluded.far)",
            [(i.bytes, level) for i in ids],
        )
        if level < Level.GONE:
            return []
        alive = []
        for i in ids:
            if db.execute("SELECT 1 FROM handover WHERE id = ? AND mine < 2", (i.bytes,)).fetchone():
                alive.append(i)
        return alive

    @staticmethod
    def far_heard(db: sqlite3.Connection, ids: Sequence[UUID], level: Level) -> None:
        # Never more than was said: a far side that claims to have heard more would hide what is still to come.
        db.executemany(
            "UPDATE handover SET told = MAX(told, MIN(mine, ?)) WHERE id = ?", [(level, i.bytes) for i in ids]
        )

    def untold(self, after: int, limit: int) -> list[Untold]:
        """What the far module has not confirmed to have heard, in the ledger's order behind place `after`."""
        rows = self._database.rows(
            "SELECT h.n, k.block, k.number, h.mine FROM handover h JOIN keys k ON k.id = h.id "
            "WHERE h.mine > h.told AND h.n > ? ORDER BY h.n LIMIT ?",
            after,
            limit,
        )
        return [
            Untold(int(str(n)), UUID(bytes=b), int(str(number)), Level(int(str(mine))))
            for n, b, number, mine in rows
            if isinstance(b, bytes)
        ]

    # --- notices to this site's recipients ---

    def unsaid(self, recipients: Sequence[str]) -> dict[tuple[str, str], list[tuple[UUID, str]]]:
        """Keys with their reasons that a recipient has to be told of, by (recipient, `usable` or `revoke`)."""
        rows = self._database.rows(
            "SELECT k.recipient, h.mine, h.id, h.why FROM handover h JOIN keys k ON k.id = h.id "
            "WHERE ((h.mine = 1 AND h.far = 1 AND h.said = 0) OR (h.mine = 2 AND h.said < 3)) "
            f"AND k.recipient IN ({', '.join('?' * len(recipients))}) ORDER BY h.n LIMIT ?",
            *recipients,
            4 * MOST_IN_A_NOTICE,
        )
        out: dict[tuple[str, str], list[tuple[UUID, str]]] = {}
        for recipient, mine, raw, why in rows:
            if isinstance(raw, bytes):
                kind = "usable" if mine == Level.HAS else "revoke"
                keys = out.setdefault((str(recipient), kind), [])
                if len(keys) < MOST_IN_A_NOTICE:
                    keys.append((UUID(bytes=raw), str(why)))
        return out

    def said(self, ids: Sequence[UUID], notice: Notice) -> None:
        with self._database.transaction() as db:
            db.executemany("UPDATE handover SET said = MAX(said, ?) WHERE id = ?", [(notice, i.bytes) for i in ids])

    @staticmethod
    def confirmed_usable(db: sqlite3.Connection, ids: Sequence[UUID], now: float) -> list[UUID]:
        """Keys that their recipient may hand out now and could not before."""
        new = []
        for i in ids:
            cursor = db.execute(
                "UPDATE handover SET said = 2, usable = ? WHERE id = ? AND mine = 1 AND said < 2", (now, i.bytes)
            )
            if cursor.rowcount:
                new.append(i)
        return new

    @staticmethod
    def confirmed_revoked(db: sqlite3.Connection, ids: Sequence[UUID]) -> list[UUID]:
        """Keys of which this site is clear now and was not before."""
        new = []
        for i in ids:
            cursor = db.execute("UPDATE handover SET said = 4, mine = 3 WHERE id = ? AND mine = 2", (i.bytes,))
            if cursor.rowcount:
                new.append(i)
        return new

    @staticmethod
    def completed(db: sqlite3.Connection, ids: Sequence[UUID]) -> int:
        """How many of them have just become clear at both sites."""
        sql = "UPDATE handover SET done = 1 WHERE id = ? AND mine = 3 AND far = 3 AND done = 0"
        return sum(db.execute(sql, (i.bytes,)).rowcount for i in ids)

    # --- questions ---

    def waiting_for_far(self) -> int:
        """Keys that this site's recipients hold and that are not known to be at the far site."""
        return self._number("SELECT COUNT(*) FROM handover WHERE mine = 1 AND far = 0")

    def revoking(self) -> int:
        """Keys given up of which not both sites are clear yet."""
        return self._number("SELECT COUNT(*) FROM handover WHERE done = 0 AND (mine >= 2 OR far >= 2)")

    def _number(self, sql: str) -> int:
        return int(str(self._database.rows(sql)[0][0]))

    def adopt(self) -> None:
        """Rows for keys that a version without this ledger has delivered or ended, and for what it did to those that
        have one: their states in the key store count."""
        with self._database.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO handover (id, held, mine) SELECT id, 1, "
                "CASE state WHEN 'delivered' THEN 0 WHEN 'acknowledged' THEN 1 ELSE 2 END "
                "FROM keys WHERE state != 'distilled'"
            )
            db.execute(
                "UPDATE handover SET held = 1 WHERE held = 0 AND mine < 2 AND id IN "
                "(SELECT id FROM keys WHERE state != 'distilled')"
            )
            db.execute(
                "UPDATE handover SET mine = 1 WHERE mine < 1 AND id IN "
                "(SELECT id FROM keys WHERE state = 'acknowledged')"
            )
            db.execute(
                "UPDATE handover SET held = 1, mine = 2 WHERE mine < 2 AND id IN "
                "(SELECT id FROM keys WHERE state IN ('revoked', 'expired'))"
            )
            db.execute("DELETE FROM handover WHERE id NOT IN (SELECT id FROM keys)")
