"""Tables of `outbox.db`, version by version (`qmodd.migrate`)."""

from __future__ import annotations

from qmodd.migrate import Migration

FIRST = Migration(
    1,
    (
        "CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY AUTOINCREMENT, suffix TEXT NOT NULL, "
        "payload BLOB NOT NULL, qos INTEGER NOT NULL, retain INTEGER NOT NULL, kind TEXT NOT NULL, expiry REAL, "
        "dedupe BLOB UNIQUE, state TEXT NOT NULL) STRICT",
        "CREATE INDEX IF NOT EXISTS rows_order ON rows (state, retain DESC, id)",
        "CREATE UNIQUE INDEX IF NOT EXISTS rows_retained ON rows (suffix) WHERE retain = 1",
        "CREATE TABLE IF NOT EXISTS delivery_sender (kid BLOB PRIMARY KEY, seq INTEGER NOT NULL) STRICT",
        "CREATE TABLE IF NOT EXISTS delivery_batch (batch_uuid BLOB PRIMARY KEY, kid BLOB NOT NULL, "
        "recipient TEXT NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL, key_ids BLOB NOT NULL, "
        "row INTEGER NOT NULL, settled INTEGER NOT NULL) STRICT",
    ),
)
NOTICES = Migration(
    2,
    (
        "CREATE TABLE delivery_notice (notice_uuid BLOB PRIMARY KEY, recipient TEXT NOT NULL, kind TEXT NOT NULL, "
        "digest BLOB NOT NULL, key_ids BLOB NOT NULL, row INTEGER NOT NULL) STRICT",
        "CREATE INDEX delivery_open ON delivery_batch (recipient, seq) WHERE settled = 0",
    ),
)
MIGRATIONS = (FIRST, NOTICES)
