"""A store of an older or a newer program."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from uuid import UUID

import pytest

from qmodd.keys.store import StoreRefused
from qmodd.receive import STORE_FILE, Window, read_digests
from qmodd.receiver.schema import VERSION
from tests.receiver.build import ALICE, NOW, batch, key_of, notice, receiver_in, said, status

# As the version before wrote it, keys in the clear.
OLD = """
CREATE TABLE batches (batch_uuid BLOB PRIMARY KEY, sender_kid BLOB NOT NULL, ack BLOB NOT NULL) STRICT;
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY, key BLOB NOT NULL, link_id TEXT NOT NULL, batch_uuid BLOB NOT NULL,
    not_before INTEGER NOT NULL, not_after INTEGER NOT NULL, state TEXT NOT NULL
) STRICT;
CREATE TABLE senders (kid BLOB PRIMARY KEY, top INTEGER NOT NULL, seen BLOB NOT NULL) STRICT;
"""


def old_store(directory: Path) -> None:
    db = sqlite3.connect(directory / STORE_FILE, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(OLD)
    kid, uuid = ALICE.key.public.kid, UUID(int=1001).bytes
    db.execute("INSERT INTO batches VALUES (?, ?, ?)", (uuid, kid, b"ack"))
    for n in (1, 2):
        values = (str(UUID(int=n)), key_of(n), "link-1", uuid, NOW, NOW + 100, "pending")
        db.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    db.execute("INSERT INTO batches VALUES (?, ?, ?)", (UUID(int=1002).bytes, kid, b"refused"))
    db.execute("INSERT INTO senders VALUES (?, ?, ?)", (kid, 2, Window(2, 3).seen.to_bytes(8, "big")))
    db.close()


def test_a_store_with_keys_in_the_clear_is_sealed_and_goes_on(tmp_path: Path) -> None:
    old_store(tmp_path)
    receiver = receiver_in(tmp_path)
    assert b"".join(f.read_bytes() for f in tmp_path.iterdir()).count(b"secret key") == 0
    assert receiver.process(batch(1, 1, 2)) == b"ack"
    assert status(receiver.process(batch(2, 3, batch_uuid=bytes(16)))) == ["replayed"]
    assert said(receiver.notice(notice("usable", [1]))) == ["usable"]
    (key,) = receiver.hand_out.take("somebody", 5)
    assert bytes(key.key) == key_of(1)
    assert receiver.table.audit() is None
    assert list(read_digests(tmp_path)) == [str(UUID(int=2))]
    receiver.close()


def test_a_failed_take_over_leaves_the_old_store(tmp_path: Path) -> None:
    old_store(tmp_path)
    db = sqlite3.connect(tmp_path / STORE_FILE, isolation_level=None)
    db.execute("UPDATE keys SET key_id = 'no uuid' WHERE key_id = ?", (str(UUID(int=2)),))
    db.close()
    with pytest.raises(ValueError, match="hexadecimal"):
        receiver_in(tmp_path)
    db = sqlite3.connect(tmp_path / STORE_FILE, isolation_level=None)
    assert db.execute("SELECT COUNT(*) FROM keys").fetchone() == (2,)
    db.close()


@pytest.mark.parametrize(("later", "refused"), [(1, False), (2, True)])
def test_a_store_of_one_version_later_is_used_and_of_two_refused(tmp_path: Path, later: int, refused: bool) -> None:
    receiver_in(tmp_path).close()
    db = sqlite3.connect(tmp_path / STORE_FILE, isolation_level=None)
    db.execute(f"PRAGMA user_version = {VERSION + later}")
    db.execute("ALTER TABLE held ADD COLUMN something_new INTEGER NOT NULL DEFAULT 0")
    db.close()
    if refused:
        with pytest.raises(StoreRefused, match=f"schema version {VERSION + later}"):
            receiver_in(tmp_path)
        return
    receiver = receiver_in(tmp_path)
    assert status(receiver.process(batch(1, 1))) == ["imported"]
    receiver.close()
