"""Schema versions: forward, one back, and no further."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from qmodd.keys import schema
from qmodd.keys.records import KeyState, key_id
from qmodd.keys.store import Database, KeyStore
from qmodd.migrate import Migration, SchemaTooNew, bring_up, version_of
from qmodd.outbox import Outbox
from qmodd.outbox_schema import FIRST as OUTBOX_FIRST
from qmodd.randomness import SeededRandomness
from tests.keys.engine.test_store import KEK, material, record

ONE = Migration(1, ("CREATE TABLE IF NOT EXISTS a (x INTEGER)",))
TWO = Migration(2, ("ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 7",))


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    yield made
    made.close()


def test_what_is_missing_is_run_once_and_in_order(db: sqlite3.Connection) -> None:
    assert bring_up(db, "a.db", [ONE]) == 1
    db.execute("INSERT INTO a (x) VALUES (1)")
    assert bring_up(db, "a.db", [ONE, TWO]) == 2
    assert bring_up(db, "a.db", [ONE, TWO]) == 2
    assert db.execute("SELECT x, y FROM a").fetchall() == [(1, 7)]


def test_a_migration_that_fails_leaves_nothing(db: sqlite3.Connection) -> None:
    bring_up(db, "a.db", [ONE])
    broken = Migration(2, ("CREATE TABLE b (x INTEGER)", "CREATE TABLE a (x INTEGER)"))
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        bring_up(db, "a.db", [ONE, broken])
    assert version_of(db) == 1
    assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]


def test_one_version_newer_is_used_as_it_is_and_two_are_refused(db: sqlite3.Connection) -> None:
    bring_up(db, "a.db", [ONE, TWO])
    assert bring_up(db, "a.db", [ONE]) == 2
    db.execute("INSERT INTO a (x) VALUES (1)")
    assert bring_up(db, "a.db", [ONE, TWO]) == 2
    db.execute("PRAGMA user_version = 3")
    with pytest.raises(SchemaTooNew, match=r"a\.db: written by a newer program \(schema version 3\).*knows version 1"):
        bring_up(db, "a.db", [ONE])


def test_migrations_are_numbered_from_one_on(db: sqlite3.Connection) -> None:
    with pytest.raises(ValueError, match="not numbered"):
        bring_up(db, "a.db", [TWO])


def old_store(path: Path) -> None:
    """A key store as the version before made it: no version, two keys delivered, one of them acknowledged."""
    old = sqlite3.connect(path, isolation_level=None)
    for statement in schema.FIRST.up:
        old.execute(statement)
    block = UUID(int=9)
    old.execute("INSERT INTO blocks VALUES (?, 1, ?, NULL, 0)", (block.bytes, record(uuid=block, keys=3).to_json()))
    for n, state in enumerate(("delivered", "acknowledged", "revoked")):
        row = (key_id(block, n).bytes, block.bytes, 1, n, "kms", 128, state, 2000.0, None)
        old.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        old.execute("INSERT INTO totals VALUES (?, 1)", (state,))
    old.execute("INSERT INTO totals VALUES ('created', 3)")
    old.close()


def test_an_old_key_store_comes_up_with_its_keys_in_the_ledger(tmp_path: Path) -> None:
    old_store(tmp_path / "keys.db")
    database = Database(tmp_path / "keys.db")
    assert database.version == len(schema.MIGRATIONS)
    store = KeyStore(database, bytearray(KEK), "lab", ["kms"], SeededRandomness(3))
    assert store.audit() is None
    store.ledger.adopt()
    store.ledger.adopt()
    here = [store.provenance(i)["here"] for i in store.key_ids()]  # type: ignore[index]
    assert here == ["nothing", "has", "gone"]
    assert [u.number for u in store.ledger.untold(0, 9)] == [1, 2]
    database.close()


def test_the_version_before_goes_on_with_a_store_and_what_it_did_is_taken_up(tmp_path: Path) -> None:
    path, block = tmp_path / "keys.db", UUID(int=4)
    database = Database(path)
    store = KeyStore(database, bytearray(KEK), "lab", ["kms"], SeededRandomness(3))
    store.add_block(record(uuid=block, keys=2), material(2))
    ids = store.key_ids()
    store.mark_delivered(ids)
    database.close()
    # What the version before does: it knows its own tables only, and inserts without naming columns.
    old = sqlite3.connect(path, isolation_level=None)
    assert bring_up(old, "keys.db", schema.MIGRATIONS[:-1]) == len(schema.MIGRATIONS)
    old.execute("UPDATE keys SET state = 'acknowledged' WHERE id = ?", (ids[0].bytes,))
    old.execute("UPDATE totals SET n = 1 WHERE state = 'delivered'")
    old.execute("INSERT INTO totals VALUES ('acknowledged', 1)")
    other = UUID(int=5)
    old.execute("INSERT INTO blocks (uuid, seq, record) VALUES (?, 2, ?)", (other.bytes, record(uuid=other).to_json()))
    row = (key_id(other, 0).bytes, other.bytes, 2, 0, "kms", 128, "delivered", 2000.0, None)
    old.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    old.close()
    database = Database(path)
    store = KeyStore(database, bytearray(KEK), "lab", ["kms"], SeededRandomness(3))
    store.ledger.adopt()
    assert [store.provenance(i)["here"] for i in store.key_ids()] == [  # type: ignore[index]
        "has", "nothing", "nothing",
    ]  # fmt: skip
    assert store.state_of(ids[0]) is KeyState.ACKNOWLEDGED
    store.revoke(store.key_ids(), "test")
    assert store.ledger.revoking() == 3
    assert len(store.ledger.unsaid(["kms"])["kms", "revoke"]) == 3
    database.close()


def test_an_old_outbox_comes_up_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    old = sqlite3.connect(path, isolation_level=None)
    for statement in OUTBOX_FIRST.up:
        old.execute(statement)
    old.execute(
        "INSERT INTO rows (suffix, payload, qos, retain, kind, state) VALUES ('event', x'31', 1, 0, 'event', 'waiting')"
    )
    old.close()
    outbox = Outbox(path)
    assert [row.payload for row in outbox.pending()] == [b"1"]
    outbox.put("keys/kms", b"2", kind="key", held=True)
    outbox.close()
    # The version before tells whatever is held along with all else, once a broker is back.
    old = sqlite3.connect(path, isolation_level=None)
    assert bring_up(old, "outbox.db", (OUTBOX_FIRST,)) == 2
    assert old.execute("UPDATE rows SET state = 'waiting' WHERE state != 'waiting'").rowcount == 1
    old.close()


def test_a_store_of_a_far_newer_program_is_refused(tmp_path: Path) -> None:
    made = sqlite3.connect(tmp_path / "keys.db")
    made.execute("PRAGMA user_version = 99")
    made.close()
    with pytest.raises(SchemaTooNew, match=r"keys\.db.*install the newer program again"):
        Database(tmp_path / "keys.db")
