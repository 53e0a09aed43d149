"""The durable queue of what must reach the NOC or a KMS. Core owns it, so uplink may be killed at any time.

A row leaves it only on proof of delivery: the broker's PUBACK for events and alarms, the receiver's signed
acknowledgement for keys (a PUBACK is not delivery, reference mqtt). Of a retained topic the newest value stays, also
after it was published, so that the present truth can be told again to a broker that has forgotten it.

A commit is with the kernel when it returns, so no kill loses it, and costs no wait for the disk; `sync` waits, in a
thread, and `keep_synced` does so behind every commit. What must not be told to anybody before it is on the disk is put
as `held` and let go by `release`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from qmodd.migrate import bring_up
from qmodd.outbox_schema import MIGRATIONS

Kind = Literal["key", "event", "alarm", "state"]
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024 - 4096
MAX_SUFFIX_CHARS = 200
# The log is copied into the file above this.
CHECKPOINT_BYTES = 4 * 1024 * 1024


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
    """SQLite with write-ahead log. `path` None keeps it in memory. Threads take turns; listeners and taps are called in
    the thread that put something.

    Row states: `held` until it is released; `waiting` to be published; `sent` a key batch that the broker has and its
    receiver has not acknowledged; `published` the newest value of a retained topic. Raises OutboxDamaged when the file
    cannot be opened, qmodd.migrate.SchemaTooNew.
    """

    path: Path | None
    listeners: list[Callable[[], None]] = field(default_factory=list)
    # Told suffix, payload and retain flag of every message, keys excepted.
    taps: list[Callable[[str, bytes, bool], None]] = field(default_factory=list)
    _depth: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._log = -1
        self._unsynced = threading.Event()
        try:
            self.database = self._open()
        except sqlite3.DatabaseError as e:
            raise OutboxDamaged(f"{self.path}: {e}") from None

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        database = sqlite3.connect(self.path or ":memory:", isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute("PRAGMA secure_delete=ON")
            if self.path is not None:
                # Checkpoints wait for the disk: `sync` makes them, on a connection of its own.
                database.execute("PRAGMA wal_autocheckpoint=0")
                database.execute(f"PRAGMA journal_size_limit={CHECKPOINT_BYTES // 4}")
            bring_up(database, str(self.path), MIGRATIONS)
            if self.path is not None:
                self._log = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CREAT, 0o600)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; safe against a kill when it returns, against a power cut after `sync`."""
        with self._lock:
            if self._depth:
                yield self.database  # part of the transaction around it
                return
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
        self._unsynced.set()

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Every row of a question."""
        with self._lock:
            return self.database.execute(sql, values).fetchall()

    def sync(self) -> None:
        """What was committed is on the disk when it returns. Waits for the disk: call it in a thread."""
        self._unsynced.clear()
        if self._log < 0:
            return
        os.fdatasync(self._log)
        if os.fstat(self._log).st_size > CHECKPOINT_BYTES:
            checkpointing = sqlite3.connect(self.path or "", isolation_level=None)
            try:
                checkpointing.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                checkpointing.close()

    def keep_synced(self) -> Callable[[], None]:
        """Starts a thread that syncs behind every commit; returns what stops it (everything is on the disk then)."""
        stopping = threading.Event()

        def work() -> None:
            while not stopping.is_set():
                self._unsynced.wait()
                self.sync()

        thread = threading.Thread(target=work, name="outbox", daemon=True)
        thread.start()

        def stop() -> None:
            stopping.set()
            self._unsynced.set()
            thread.join()
            self.sync()

        return stop

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
        held: bool = False,
    ) -> int:
        """Queue a message and return its row id; a row with the same `dedupe` is returned instead of a second one.

        A retained message replaces the one before it on its topic (an empty payload clears the topic). `held`: it waits
        for `release`, and nobody is told before.
        Raises ValueError on a payload over `MAX_PAYLOAD_BYTES`, a bad topic, or a retained key.
        """
        _check(suffix, payload, kind, retain)
        mark = dedupe.bytes if isinstance(dedupe, UUID) else dedupe
        with self.transaction() as db:
            if mark is not None:
                known = db.execute("SELECT id FROM rows WHERE dedupe = ?", (mark,)).fetchone()
                if known:
                    return int(known[0])
            if retain:
                db.execute("DELETE FROM rows WHERE suffix = ? AND retain = 1", (suffix,))
            cursor = db.execute(
                "INSERT INTO rows (suffix, payload, qos, retain, kind, expiry, dedupe, state) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (suffix, payload, qos, retain, kind, expiry.timestamp() if expiry else None, mark, _state(held)),
            )
            row_id = int(cursor.lastrowid or 0)
        if not held:
            self._tell()
        if kind != "key":
            for tap in self.taps:
                tap(suffix, payload, retain)
        return row_id

    def release(self, row_ids: Iterable[int] | None = None) -> int:
        """Let go of rows that were held (None: all of them, at a start). How many."""
        with self.transaction() as db:
            if row_ids is None:
                changed = db.execute("UPDATE rows SET state = 'waiting' WHERE state = 'held'").rowcount
            else:
                sql = "UPDATE rows SET state = 'waiting' WHERE id = ? AND state = 'held'"
                changed = sum(db.execute(sql, (i,)).rowcount for i in row_ids)
        if changed:
            self._tell()
        return changed

    def pending(self, limit: int = 1000, *, skip: frozenset[int] | set[int] = frozenset()) -> list[Row]:
        """What waits, at most `limit` rows: the present truth (retained) first, then everything else in order."""
        rows: list[Row] = []
        with self._lock:
            cursor = self.database.execute(
                "SELECT id, suffix, payload, qos, retain, kind, expiry, dedupe FROM rows WHERE state = 'waiting' "
                "ORDER BY retain DESC, id"
            )
            for r in cursor:
                if r[0] not in skip:
                    rows.append(Row(r[0], r[1], r[2], r[3], bool(r[4]), r[5], r[6], r[7]))
                    if len(rows) >= limit:
                        break
            cursor.close()
        return rows

    def published(self, row_id: int) -> None:
        """The broker has confirmed it: events and alarms go, retained values and keys stay in another state."""
        with self.transaction() as db:
            db.execute("DELETE FROM rows WHERE id = ? AND kind != 'key' AND (retain = 0 OR payload = x'')", (row_id,))
            db.execute(
                "UPDATE rows SET state = CASE kind WHEN 'key' THEN 'sent' ELSE 'published' END WHERE id = ?", (row_id,)
            )

    def resend(self, row_id: int) -> bool:
        """Put a key batch that was sent back in the queue, same bytes. False when it is no longer there."""
        with self.transaction() as db:
            changed = db.execute("UPDATE rows SET state = 'waiting' WHERE id = ? AND state = 'sent'", (row_id,))
        if changed.rowcount:
            self._tell()
        return bool(changed.rowcount)

    def renew(self) -> None:
        """A broker is back: tell the present truth again, and resend every key batch without a receipt."""
        with self.transaction() as db:
            db.execute("UPDATE rows SET state = 'waiting' WHERE state NOT IN ('waiting', 'held')")
        self._tell()

    def delete(self, row_id: int) -> None:
        """Destroy a row, for a key batch on its receiver's signed acknowledgement."""
        with self.transaction() as db:
            db.execute("DELETE FROM rows WHERE id = ?", (row_id,))

    def expire(self, now: datetime) -> int:
        """Drop what nobody wants any more, keys excepted; only for a synchronised clock. Returns how many."""
        with self.transaction() as db:
            gone = db.execute("DELETE FROM rows WHERE expiry < ? AND kind != 'key'", (now.timestamp(),))
        return gone.rowcount

    def retained(self, prefix: str = "") -> dict[str, bytes]:
        """The present truth: newest payload by topic suffix."""
        found = self.rows("SELECT suffix, payload FROM rows WHERE retain = 1 ORDER BY suffix")
        return {suffix: payload for suffix, payload in found if suffix.startswith(prefix)}

    def counts(self) -> dict[str, int]:
        """Rows by `<kind>_<state>`."""
        found = self.rows("SELECT kind, state, COUNT(*) FROM rows GROUP BY kind, state")
        return {f"{kind}_{state}": n for kind, state, n in found}

    def close(self) -> None:
        with self._lock:
            if self._log >= 0:
                os.close(self._log)
                self._log = -1
            self.database.close()

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()


def _state(held: bool) -> str:
    return "held" if held else "waiting"


def _check(suffix: str, payload: bytes, kind: Kind, retain: bool) -> None:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"{suffix}: payload of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES}")
    if not suffix or len(suffix) > MAX_SUFFIX_CHARS or set(suffix) & set("+#\0"):
        raise ValueError(f"topic {suffix!r} cannot be published to")
    if retain and kind == "key":
        raise ValueError("keys are never retained")
