"""The receiver's keys at rest: SQLite with write-ahead log, full synchronisation, secure deletion; each key sealed.

Two processes may work on one file (the receiver and a KME); every change is one transaction. `imported` equals the
sum over all states at all times.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from uuid import UUID

from qmodd.keys.records import wiped
from qmodd.keys.store import StoreRefused
from qmodd.randomness import Randomness
from qmodd.receiver.schema import VERSION, bring_up, tables_of
from qmodd.receiver.sealing import STORE_KEY_FILE, KeyAad, Seals, make_key

STORE_FILE = "keys.sqlite"
BUSY_S = 10.0
IMPORTED = "imported"


class Held(StrEnum):
    """State of a key at the receiver."""

    PENDING = "pending"
    USABLE = "usable"
    HANDED_OUT = "handed_out"
    REVOKED = "revoked"
    EXPIRED = "expired"
    PURGED = "purged"


# Only in these the bytes are still there.
WITH_BYTES = (Held.PENDING, Held.USABLE)
_COLUMNS = (
    "key_id, sender_kid, batch_uuid, link_id, bits, direction, state, "
    "not_before, not_after, purge_by, sealed, handed_to"
)


@dataclass(frozen=True)
class Row:
    """A key as it lies in the table; times are UTC seconds since 1970."""

    key_id: str
    sender_kid: bytes
    batch_uuid: bytes
    link_id: str
    bits: int
    direction: int
    state: Held
    not_before: int
    not_after: int
    purge_by: int
    sealed: bytes | None = field(repr=False)
    handed_to: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", Held(self.state))

    @property
    def aad(self) -> KeyAad:
        return KeyAad(self.key_id, self.link_id, self.state, self.not_after)


def open_database(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    for statement in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "trusted_schema=OFF"):
        db.execute(f"PRAGMA {statement}").fetchall()
    return db


def _sealed_already(path: Path) -> bool:
    """Is there a database whose keys are under a store key that must be somewhere?"""
    if not path.exists():
        return False
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_S)
    try:
        return int(db.execute("PRAGMA user_version").fetchone()[0]) >= VERSION and "held" in tables_of(db)
    finally:
        db.close()


class KeyTable:
    """Methods block: call them in a thread. The key bytes leave it only through `open`."""

    def __init__(self, directory: Path, store_key: Path | None, randomness: Randomness) -> None:
        """`store_key` None: a key of its own beside the database, made now if there is no sealed database yet.

        Raises StoreRefused.
        """
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / STORE_FILE
        if store_key is None:
            store_key = directory / STORE_KEY_FILE
            if not store_key.exists() and not _sealed_already(path):
                make_key(store_key, randomness)
        self.seals = Seals.load(store_key, randomness)
        self._lock = threading.RLock()
        self._destroyed = False
        self._db = open_database(path)
        try:
            bring_up(self._db, self.seals)
        except BaseException:
            self._db.close()
            raise

    def __repr__(self) -> str:
        return "KeyTable(...)"

    def close(self) -> None:
        with self._lock:
            self.seals.wipe()
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, durable on leaving; may be nested, the outermost one counts."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                self._destroyed = False
                raise
            self._db.execute("COMMIT")
            if self._destroyed:  # what was destroyed must not survive in the write-ahead log
                self._destroyed = False
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def select(self, where: str, *values: object) -> list[Row]:
        with self._lock:
            found = self._db.execute(f"SELECT {_COLUMNS} FROM held WHERE {where}", values).fetchall()
        return [Row(*r) for r in found]

    def find(self, key_id: UUID) -> Row | None:
        found = self.select("key_id = ?", str(key_id))
        return found[0] if found else None

    def open(self, key: Row) -> bytearray:
        """To be wiped by the caller. Raises StoreRefused."""
        sealed, data_key = self._material(key)
        with wiped(data_key):
            return self.seals.open(data_key, sealed, key.aad)

    def move(self, key: Row, to: Held) -> None:
        """To a state that keeps the bytes, which are bound to it; only inside a transaction. Raises StoreRefused."""
        sealed, data_key = self._material(key)
        with wiped(data_key), self.transaction() as db:
            after = KeyAad(key.key_id, key.link_id, to, key.not_after)
            again = self.seals.reseal(data_key, sealed, key.aad, after)
            db.execute("UPDATE held SET state = ?, sealed = ? WHERE key_id = ?", (to, again, key.key_id))
            self.count(key.state, -1)
            self.count(to, 1)

    def end(self, key: Row, to: Held) -> None:
        """To a state without bytes; the data key of its batch goes with the last key that needs it."""
        with self.transaction() as db:
            if to is Held.PURGED:
                db.execute("DELETE FROM held WHERE key_id = ?", (key.key_id,))
            else:
                db.execute("UPDATE held SET state = ?, sealed = NULL WHERE key_id = ?", (to, key.key_id))
            self.count(key.state, -1)
            self.count(to, 1)
            db.execute(
                "UPDATE batch SET data_key = NULL WHERE sender_kid = ?1 AND batch_uuid = ?2 AND NOT EXISTS "
                "(SELECT 1 FROM held WHERE sender_kid = ?1 AND batch_uuid = ?2 AND sealed IS NOT NULL)",
                (key.sender_kid, key.batch_uuid),
            )
            self._destroyed = True

    def count(self, state: str, n: int) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT INTO totals (state, n) VALUES (?, ?) ON CONFLICT (state) DO UPDATE SET n = n + excluded.n",
                (state, n),
            )

    def totals(self) -> dict[str, int]:
        """Number of keys per state, and `imported`: their sum at all times."""
        found = {str(s): int(str(n)) for s, n in self.rows("SELECT state, n FROM totals")}
        return {s: found.get(s, 0) for s in [*Held, IMPORTED]}

    def audit(self) -> str | None:
        """None if keys are conserved, else what does not add up."""
        with self.transaction():
            totals = self.totals()
            rows = {str(s): int(str(n)) for s, n in self.rows("SELECT state, COUNT(*) FROM held GROUP BY state")}
        if totals[IMPORTED] != sum(totals[s] for s in Held):
            return f"{totals[IMPORTED]} keys imported but {sum(totals[s] for s in Held)} accounted for"
        for s in Held:
            if s is not Held.PURGED and rows.get(s, 0) != totals[s]:
                return f"{rows.get(s, 0)} keys are {s}, the account says {totals[s]}"
        return None

    def _material(self, key: Row) -> tuple[bytes, bytearray]:
        """What is sealed, and the data key, to be wiped by the caller. Raises StoreRefused."""
        wrapped = self.rows(
            "SELECT data_key FROM batch WHERE sender_kid = ? AND batch_uuid = ?", key.sender_kid, key.batch_uuid
        )
        if key.sealed is None or not wrapped or not isinstance(wrapped[0][0], bytes):
            raise StoreRefused(f"receiver's store: key {key.key_id} has no material")
        return key.sealed, self.seals.data_key(wrapped[0][0], key.batch_uuid)
