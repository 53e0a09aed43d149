"""Key store, journal, provisioning: conservation, secrecy at rest, refusals."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd import provision as provisioning
from qmodd.crypto import mac
from qmodd.keys.journal import Journal
from qmodd.keys.pool import Pool
from qmodd.keys.records import MAY_COME_FROM, BlockRecord, KeyState, SecretBits, key_id
from qmodd.keys.store import Database, KeyStore, StoreRefused, load_kek
from qmodd.randomness import SeededRandomness

KEK = bytearray(range(32))


def record(keys: int = 5, uuid: UUID | None = None, **changes: object) -> BlockRecord:
    base = BlockRecord(
        uuid=str(uuid or uuid4()), role="alice", link="lab", run=1, block=0, round=0, proof="wiesemann2024",
        n_z=(700, 300), m_z=(7, 3), n_x=(70, 30), m_x=(1, 1), mu=((0.5, 0.6), (0.1, 0.2)), leak_bits=100,
        length_bits=3000, replenish_bits=1280, key_bits=128, keys=keys, dropped_bits=3, frames=1, frames_helped=0,
        eps_sec=1e-9, eps_cor=1e-15, eps_auth=1e-26, seed_sha256="00", calibration="c", allocations=1,
        first_slot=5, end_slot=50, created=1000.0, not_after=2000.0,
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def material(n: int = 5) -> bytearray:
    return bytearray(os.urandom(16 * n))


@pytest.fixture
def database(ram_path: Path) -> Iterator[Database]:
    db = Database(ram_path / "keys.db")
    yield db
    db.close()


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database, bytearray(KEK), "lab", ["kms"], SeededRandomness(3))


def test_keys_come_back_in_order_under_ids_that_follow_from_the_block(store: KeyStore) -> None:
    block, data = uuid4(), material()
    assert store.add_block(record(uuid=block), data)
    assert not store.add_block(record(uuid=block), data)
    taken = store.take_for_delivery("kms", 3)
    assert [i for i, _ in taken] == [key_id(block, n) for n in range(3)]
    assert b"".join(k for _, k in taken) == bytes(data[:48])
    assert all(isinstance(k, bytearray) for _, k in taken)
    assert store.take_for_delivery("somebody", 3) == []
    assert store.blocks_of([i for i, _ in taken]) == [record(uuid=block)]
    assert store.commits == 1
    assert store.waiting() == 5
    with pytest.raises(ValueError, match="too few"):
        store.add_block(record(), bytearray(3))


def test_keys_of_another_size_wait_for_their_own_batch(store: KeyStore) -> None:
    store.add_block(record(keys=2), material())
    store.add_block(record(keys=2, key_bits=256), material())
    assert [len(k) for _, k in store.take_for_delivery("kms", 10)] == [16, 16]


def test_recipients_take_turns_alike_on_both_sides(database: Database) -> None:
    store = KeyStore(database, bytearray(KEK), "lab", ["east", "west"], SeededRandomness(3))
    block = uuid4()
    store.add_block(record(uuid=block, allocations=2), material())
    assert [i for i, _ in store.take_for_delivery("east", 9)] == [key_id(block, n) for n in (0, 2, 4)]
    assert [i for i, _ in store.take_for_delivery("west", 9)] == [key_id(block, n) for n in (1, 3)]


def test_material_goes_when_it_is_not_needed_any_more(store: KeyStore, ram_path: Path) -> None:
    data = material()
    store.add_block(record(), data)
    ids = store.key_ids()
    store.mark_delivered(ids[:2])
    store.mark_delivered(ids[:2])
    store.mark_acknowledged(ids[:1])
    store.mark_delivered(ids[:1])  # has passed it
    assert store.state_of(ids[0]) is KeyState.ACKNOWLEDGED
    assert store.revoke(ids[1:3]) == ids[1:3]
    assert store.revoke(ids[1:3]) == []
    assert store.expire(1999.0) == []
    assert store.expire(2001.0) == ids[3:]
    assert store.database.rows("SELECT COUNT(*) FROM keys WHERE sealed IS NOT NULL") == [(0,)]
    assert store.database.rows("SELECT data_key FROM blocks") == [(None,)]
    assert store.purge(2001.0) == 5
    assert store.state_of(ids[0]) is None
    assert store.totals()["purged"] == store.totals()["created"] == 5
    assert store.audit() is None
    assert (ram_path / "keys.db-wal").stat().st_size == 0


def test_files_hold_no_key_in_the_clear(store: KeyStore, ram_path: Path) -> None:
    data = material()
    store.add_block(record(), data)
    store.database.truncate_log()
    raw = (ram_path / "keys.db").read_bytes()
    assert bytes(data[:16]) not in raw
    assert bytes(KEK) not in raw
    assert (ram_path / "keys.db").stat().st_mode & 0o777 == 0o600


def test_tampered_rows_and_other_keks_are_refused(store: KeyStore, database: Database) -> None:
    store.add_block(record(), material())
    other = KeyStore(database, bytearray(32), "lab", ["kms"], SeededRandomness(1))
    with pytest.raises(StoreRefused, match="key store"):
        other.take_for_delivery("kms", 1)
    with database.transaction() as db:
        db.execute("UPDATE keys SET not_after = 9e9")
    with pytest.raises(StoreRefused, match="changed"):
        store.take_for_delivery("kms", 1)
    with database.transaction() as db:
        db.execute("UPDATE keys SET sealed = NULL")
    with pytest.raises(StoreRefused, match="no material"):
        store.take_for_delivery("kms", 1)
    with database.transaction() as db:
        db.execute("UPDATE totals SET n = n + 1 WHERE state = 'created'")
    assert "accounted for" in str(store.audit())
    with database.transaction() as db:
        db.execute("INSERT INTO totals VALUES ('revoked', 1)")
    assert "the account says" in str(store.audit())


@given(st.lists(st.tuples(st.sampled_from(list(KeyState)[1:]), st.integers(0, 9)), max_size=30))
@settings(max_examples=25, deadline=None)
def test_keys_are_conserved_whatever_happens(steps: list[tuple[KeyState, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        db = Database(Path(name) / "db")
        store = KeyStore(db, bytearray(KEK), "lab", [], SeededRandomness(3))
        store.add_block(record(keys=10), material(10))
        ids = store.key_ids()
        for to, index in steps:
            before = store.state_of(ids[index])
            moved = store._move([ids[index]], to)
            assert bool(moved) == (before is not None and before in MAY_COME_FROM[to])
            assert store.audit() is None
        assert store.totals()["created"] == 10
        db.close()


def test_transactions_are_all_or_nothing(store: KeyStore) -> None:
    def half() -> None:
        with store.database.transaction():
            store.add_block(record(), material())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert store.key_ids() == []
    assert store.totals()["created"] == 0


def test_journal_commits_once_and_wipes(store: KeyStore, ram_path: Path) -> None:
    start = ram_path / "start"
    start.write_bytes(SeededRandomness(1).bytes(65_536))
    start.chmod(0o600)
    pool = Pool(ram_path / "ring", start, store.database)
    journal, block = Journal(store, pool), uuid4()
    for r in (0, 1, 2, 3):
        pool.claim(r)
    data = bytearray(os.urandom(160 + 80))
    clear, written = bytes(data), pool.written
    secret = SecretBits(data, 8 * len(data))
    assert repr(secret) == "SecretBits(1920 bits)"
    journal.prepare(record(uuid=block, round=3), secret)
    assert not any(data)
    assert [d.round for d in journal.in_doubt()] == [3]
    assert store.key_ids() == []
    assert journal.commit(block) == journal.commit(block) == record(uuid=block, round=3)
    assert pool.written == written + 160
    assert journal.in_doubt() == []
    assert b"".join(k for _, k in store.take_for_delivery("kms", 9)) == clear[160:]
    assert [d.uuid for d in journal.verdicts_owed()] == [block]
    journal.peer_done(block)
    assert journal.verdicts_owed() == []
    assert journal.commit(uuid4()) is None
    journal.revoke_block(block)
    assert store.waiting() == 0
    pool.close()
    with pytest.raises(ValueError, match="bytes for"):
        SecretBits(bytearray(1), 9)


def test_records_survive_json() -> None:
    r = record()
    assert BlockRecord.from_json(r.to_json()) == r
    assert r.qber_z == pytest.approx(0.01)
    assert r.qber_x == pytest.approx(0.02)


def test_kek_file_is_checked(ram_path: Path, database: Database) -> None:
    path = ram_path / "kek"
    with pytest.raises(StoreRefused, match="cannot be read"):
        load_kek(path)
    path.write_bytes(bytes(KEK))
    path.chmod(0o640)
    with pytest.raises(StoreRefused, match="0640"):
        load_kek(path)
    path.chmod(0o600)
    assert load_kek(path) == KEK
    path.write_bytes(b"short")
    with pytest.raises(StoreRefused, match="5 bytes"):
        load_kek(path)
    with pytest.raises(StoreRefused, match="must have"):
        KeyStore(database, bytearray(3), "lab", [], SeededRandomness(1))


def test_sealing_at_rest() -> None:
    sealed = mac.seal(KEK, bytes(12), b"text", b"about")
    assert mac.unseal(KEK, sealed, b"about") == b"text"
    for broken in (sealed[:-1], b"", sealed[:20]):
        with pytest.raises(mac.WrongTag):
            mac.unseal(KEK, broken, b"about")
    with pytest.raises(mac.WrongTag):
        mac.unseal(KEK, sealed, b"other")
    with pytest.raises(ValueError, match="nonce"):
        mac.seal(KEK, b"", b"", b"")
    assert mac.forgery_bound(17) == 16 / 2**106


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    provisioning.add_parser(parser.add_subparsers())
    return parser.parse_args(["provision", *arguments])


def test_provision_writes_a_pair_once(
    ram_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    extra: list[provisioning.Provision] = []

    def step(what: provisioning.Provision) -> list[Path]:
        extra.append(what)
        return [what.alice / "identity"]

    monkeypatch.setattr(provisioning, "EXTRA_STEPS", [step])
    words = ("--out", str(ram_path / "out"), "--alice", "A", "--bob", "B", "--link", "lab", "--bytes")
    arguments = parse(*words, "65536")
    assert arguments.run(arguments) == 0
    a, b = ram_path / "out" / "A", ram_path / "out" / "B"
    assert (a / "pre-shared.key").read_bytes() == (b / "pre-shared.key").read_bytes()
    assert len((a / "pre-shared.key").read_bytes()) == 65_536
    assert (a / "kek.key").read_bytes() != (b / "kek.key").read_bytes()
    assert all(f.stat().st_mode & 0o777 == 0o600 for d in (a, b) for f in d.iterdir())
    assert [(w.alice, w.link_id) for w in extra] == [(a, "lab")]
    assert "identity" in capsys.readouterr().err
    assert arguments.run(arguments) == 2
    assert "exists" in capsys.readouterr().err
    assert provisioning.run(parse(*words, "100")) == 2
    with pytest.raises(ValueError, match="both modules"):
        provisioning.provision(ram_path, "A", "A", "lab", 65_536, SeededRandomness(1), datetime(2026, 1, 1, tzinfo=UTC))
