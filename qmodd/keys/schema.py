"""Tables of `keys.db`, version by version (`qmodd.migrate`)."""

from __future__ import annotations

from qmodd.migrate import Migration

FIRST = Migration(
    1,
    (
        "CREATE TABLE IF NOT EXISTS blocks (uuid BLOB PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, record TEXT NOT NULL, "
        "data_key BLOB, peer_done INTEGER NOT NULL DEFAULT 0) STRICT",
        "CREATE TABLE IF NOT EXISTS keys (id BLOB PRIMARY KEY, block BLOB NOT NULL, seq INTEGER NOT NULL, "
        "number INTEGER NOT NULL, recipient TEXT NOT NULL, bits INTEGER NOT NULL, state TEXT NOT NULL, "
        "not_after REAL NOT NULL, sealed BLOB) STRICT",
        "CREATE INDEX IF NOT EXISTS keys_waiting ON keys (state, recipient, seq, number)",
        "CREATE INDEX IF NOT EXISTS keys_of_block ON keys (block)",
        "CREATE TABLE IF NOT EXISTS totals (state TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT",
        "CREATE TABLE IF NOT EXISTS journal (uuid BLOB PRIMARY KEY, round INTEGER NOT NULL, record TEXT NOT NULL, "
        "sealed BLOB NOT NULL) STRICT",
        "CREATE TABLE IF NOT EXISTS pool (one INTEGER PRIMARY KEY CHECK (one = 1), written INTEGER NOT NULL, "
        "next_round INTEGER NOT NULL) STRICT",
    ),
)
# Beside `keys`, not in it: the version before inserts into that table without naming its columns. `mine`, `far` and
# `told` are levels of `qmodd.keys.handover_ledger`, `said` is a Notice, `held`: the recipient may have it, `done`:
# given up and gone at both sites.
HANDOVER = Migration(
    2,
    (
        "CREATE TABLE handover (n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, mine INTEGER NOT NULL DEFAULT 0, "
        "far INTEGER NOT NULL DEFAULT 0, told INTEGER NOT NULL DEFAULT 0, said INTEGER NOT NULL DEFAULT 0, "
        "held INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0, batch BLOB, delivered REAL, "
        "acknowledged REAL, usable REAL, ended REAL, "
        "why TEXT NOT NULL DEFAULT '') STRICT",
        "CREATE INDEX handover_untold ON handover (n) WHERE mine > told",
        "CREATE INDEX handover_unsaid ON handover (n) WHERE (mine = 1 AND far = 1 AND said = 0) "
        "OR (mine = 2 AND said < 3)",
        "CREATE INDEX handover_open ON handover (n) WHERE done = 0 AND (mine >= 2 OR far >= 2)",
        "CREATE INDEX keys_ending ON keys (not_after)",
        "CREATE TABLE happened (n INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, fields TEXT NOT NULL) STRICT",
    ),
)
MIGRATIONS = (FIRST, HANDOVER)
