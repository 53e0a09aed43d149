"""Tables of the receiver's database, and how one of an older version becomes one of this version."""

from __future__ import annotations

import json
import sqlite3
from uuid import UUID

from qmodd import migrate
from qmodd.keys.records import wiped
from qmodd.keys.store import StoreRefused
from qmodd.receiver.sealing import KeyAad, Seals
from qmodd.receiver.split import direction_of

VERSION = 1
_TABLES = tuple(
    """
CREATE TABLE IF NOT EXISTS batch (
    sender_kid BLOB NOT NULL, batch_uuid BLOB NOT NULL, ack BLOB NOT NULL, labels TEXT NOT NULL DEFAULT '{}',
    purge_by INTEGER NOT NULL, data_key BLOB, PRIMARY KEY (sender_kid, batch_uuid)) STRICT;
CREATE TABLE IF NOT EXISTS held (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key_id TEXT NOT NULL UNIQUE, sender_kid BLOB NOT NULL,
    batch_uuid BLOB NOT NULL, link_id TEXT NOT NULL, bits INTEGER NOT NULL, direction INTEGER NOT NULL,
    state TEXT NOT NULL, not_before INTEGER NOT NULL, not_after INTEGER NOT NULL, purge_by INTEGER NOT NULL,
    sealed BLOB, handed_to TEXT, handed_at INTEGER) STRICT;
CREATE INDEX IF NOT EXISTS held_by_state ON held (state, direction, bits, seq);
CREATE INDEX IF NOT EXISTS held_in_order ON held (state, seq);
CREATE INDEX IF NOT EXISTS held_with_bytes ON held (sender_kid, batch_uuid) WHERE sealed IS NOT NULL;
CREATE INDEX IF NOT EXISTS held_by_end ON held (not_after);
CREATE INDEX IF NOT EXISTS held_by_purge ON held (purge_by);
CREATE TABLE IF NOT EXISTS forbidden (
    sender_kid BLOB NOT NULL, key_id TEXT NOT NULL, PRIMARY KEY (sender_kid, key_id)) STRICT;
CREATE TABLE IF NOT EXISTS window (kid BLOB PRIMARY KEY, top INTEGER NOT NULL, seen BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS totals (state TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS container (number INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE) STRICT;
""".strip()
    .rstrip(";")
    .split(";")
)
# Version 0 kept keys in the clear and knew no end of keeping: this much after the end of the lifetime, s.
_KEEP_AFTER_S = 86_400


def tables_of(db: sqlite3.Connection) -> set[str]:
    return {str(name) for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def bring_up(db: sqlite3.Connection, seals: Seals) -> None:
    """Tables as this version needs them. Raises StoreRefused for a file of a much later program."""
    try:
        migrate.bring_up(db, "receiver's store", [migrate.Migration(VERSION, _TABLES)])
    except migrate.SchemaTooNew as e:
        raise StoreRefused(str(e)) from None
    if "batches" in tables_of(db):
        _seal_old(db, seals)


def _seal_old(db: sqlite3.Connection, seals: Seals) -> None:
    """All of an old file in one transaction; not even the free pages and the log keep what was in the clear."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if "batches" in tables_of(db):  # another process may have been faster
            _take_over(db, seals)
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _take_over(db: sqlite3.Connection, seals: Seals) -> None:
    """From version 0: keys in the clear, all of them pending."""
    for uuid, kid, ack in db.execute("SELECT batch_uuid, sender_kid, ack FROM batches").fetchall():
        data_key, wrapped = seals.new_data_key(uuid)
        with wiped(data_key):
            purge_by = _keys_of(db, seals, data_key, kid, uuid)
        db.execute(
            "INSERT INTO batch (sender_kid, batch_uuid, ack, labels, purge_by, data_key) VALUES (?, ?, ?, ?, ?, ?)",
            (kid, uuid, ack, json.dumps({}), purge_by, wrapped if purge_by else None),
        )
    db.execute("INSERT INTO window (kid, top, seen) SELECT kid, top, seen FROM senders")
    (n,) = db.execute("SELECT COUNT(*) FROM held").fetchone()
    db.execute("INSERT INTO totals (state, n) VALUES ('pending', ?), ('imported', ?)", (n, n))
    for table in ("keys", "batches", "senders"):
        db.execute(f"DROP TABLE {table}")


def _keys_of(db: sqlite3.Connection, seals: Seals, data_key: bytearray, kid: bytes, batch: bytes) -> int:
    """Seals the old keys of a batch; returns the last end of keeping, 0 without keys."""
    last = 0
    rows = db.execute(
        "SELECT key_id, key, link_id, not_before, not_after FROM keys WHERE batch_uuid = ? ORDER BY rowid", (batch,)
    )
    for key_id, raw, link, not_before, not_after in rows.fetchall():
        key = bytearray(raw)
        with wiped(key):
            sealed = seals.seal(data_key, key, KeyAad(key_id, link, "pending", not_after))
        purge_by = not_after + _KEEP_AFTER_S
        last = max(last, purge_by)
        db.execute(
            "INSERT INTO held (key_id, sender_kid, batch_uuid, link_id, bits, direction, state, not_before, "
            "not_after, purge_by, sealed) VALUES (?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?)",
            (
                key_id,
                kid,
                batch,
                link,
                8 * len(raw),
                direction_of(UUID(key_id)),
                not_before,
                not_after,
                purge_by,
                sealed,
            ),
        )
    return last
