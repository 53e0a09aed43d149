"""The key store: SQLite with write-ahead log, full synchronisation and secure deletion (reference security).

Every key is sealed with AES-256-GCM under its block's data key, with key id, link, state and lifetime as associated
data; the data key is wrapped by the key-encryption key, which is never stored here. The key bytes go as soon as a key
is delivered (its sealed envelope has them then), is given up, or is purged; the data key goes with the last key of its
block. `created` equals the sum over all states at all times.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from qmodd.crypto import mac
from qmodd.keys.records import MAY_COME_FROM, BlockRecord, KeyState, key_id, wiped
from qmodd.randomness import Randomness

KEK_BYTES = 32
_NONCE = 12
_SCHEMA = """
CREATE TABLE IF NOT EXISTS blocks (
    uuid BLOB PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, record TEXT NOT NULL, data_key BLOB,
    peer_done INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS keys (
    id BLOB PRIMARY KEY, block BLOB NOT NULL, seq INTEGER NOT NULL, number INTEGER NOT NULL, recipient TEXT NOT NULL,
    bits INTEGER NOT NULL, state TEXT NOT NULL, not_after REAL NOT NULL, sealed BLOB) STRICT;
CREATE INDEX IF NOT EXISTS keys_waiting ON keys (state, recipient, seq, number);
CREATE INDEX IF NOT EXISTS keys_of_block ON keys (block);
CREATE TABLE IF NOT EXISTS totals (state TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS journal (
    uuid BLOB PRIMARY KEY, round INTEGER NOT NULL, record TEXT NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS pool (
    one INTEGER PRIMARY KEY CHECK (one = 1), written INTEGER NOT NULL, next_round INTEGER NOT NULL) STRICT;
"""


class StoreRefused(Exception):
    """The store or its key-encryption key cannot be used; says which file and why."""


def load_kek(path: Path) -> bytearray:
    """Key-encryption key: 32 bytes in a file that only its owner may read. Raises StoreRefused."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        data = bytearray(path.read_bytes())
    except OSError as e:
        raise StoreRefused(f"{path}: cannot be read: {e.strerror}") from None
    if mode & 0o077:
        raise StoreRefused(f"{path}: mode {mode:04o} lets others read it; allowed is 0600")
    if len(data) != KEK_BYTES:
        raise StoreRefused(f"{path}: {len(data)} bytes; a key-encryption key has {KEK_BYTES}")
    return data


class Database:
    """Two SQLite connections, one to write and one to read, so that a question never waits for a commit to reach the
    disk. Threads take turns to use either; whoever is inside a transaction also reads through it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._lock, self._reading = threading.RLock(), threading.Lock()
        self._writer = 0
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "trusted_schema=OFF"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._connection.executescript(_SCHEMA)
        self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._reader.execute("PRAGMA query_only=ON").fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, durable on leaving; may be nested, the outermost one counts."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._writer = threading.get_ident()
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            else:
                self._connection.execute("COMMIT")
            finally:
                self._writer = 0

    def rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        if self._writer == threading.get_ident():
            return self._connection.execute(sql, values).fetchall()
        with self._reading:
            return self._reader.execute(sql, values).fetchall()

    def truncate_log(self) -> None:
        """What was deleted must not survive in the write-ahead log."""
        with self._lock:
            ((busy, _, _),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if busy:
                with self._reading:
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        with self._lock, self._reading:
            self._reader.close()
            self._connection.close()


class KeyStore:
    """Blocks and keys of one module. `recipients` are this site's, in the order of their allocation."""

    def __init__(
        self, database: Database, kek: bytearray, link: str, recipients: Sequence[str], randomness: Randomness
    ) -> None:
        if len(kek) != KEK_BYTES:
            raise StoreRefused(f"key-encryption key of {len(kek)} bytes; it must have {KEK_BYTES}")
        self.database = database
        self.recipients = tuple(recipients) or ("local",)
        self._kek = kek
        self._link = link
        self._random = randomness

    def __repr__(self) -> str:
        return f"KeyStore({self._link})"

    # --- sealing, also for the journal ---

    def seal(self, plaintext: mac.Secret, associated: bytes) -> bytes:
        """Under the key-encryption key."""
        return mac.seal(self._kek, self._random.bytes(_NONCE), plaintext, associated)

    def unseal(self, sealed: bytes, associated: bytes) -> bytearray:
        """Raises StoreRefused if the key-encryption key is another one or the data were changed."""
        try:
            return mac.unseal(self._kek, sealed, associated)
        except mac.WrongTag as e:
            raise StoreRefused(f"key store: {e}") from None

    # --- writing ---

    def add_block(self, record: BlockRecord, key_data: bytearray) -> bool:
        """The block and its keys, cut from `key_data` in order; False if it is in the store already.

        Call inside a transaction of `database` together with whatever must happen with it.
        """
        block, size = UUID(record.uuid), record.key_bits // 8
        if len(key_data) < record.keys * size:
            raise ValueError(f"{len(key_data)} bytes are too few for {record.keys} keys of {record.key_bits} bit")
        with self.database.transaction() as db:
            if db.execute("SELECT 1 FROM blocks WHERE uuid = ?", (block.bytes,)).fetchone():
                return False
            seq = int(db.execute("SELECT COALESCE(MAX(seq), 0) + 1 FROM blocks").fetchone()[0])
            data_key = bytearray(self._random.bytes(KEK_BYTES))
            with wiped(data_key):
                wrapped = self.seal(data_key, b"data-key|" + block.bytes)
                db.execute(
                    "INSERT INTO blocks (uuid, seq, record, data_key) VALUES (?, ?, ?, ?)",
                    (block.bytes, seq, record.to_json(), wrapped),
                )
                rows = self._sealed_keys(record, seq, key_data, mac.Sealer(data_key))
                db.executemany("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._count(db, KeyState.DISTILLED, record.keys)
            self._count(db, "created", record.keys)
        return True

    def _sealed_keys(
        self, record: BlockRecord, seq: int, key_data: bytearray, sealer: mac.Sealer
    ) -> Iterator[tuple[object, ...]]:
        """A row for every key of the block."""
        block, size = UUID(record.uuid), record.key_bits // 8
        nonces = self._random.bytes(_NONCE * record.keys)
        with memoryview(key_data) as data:
            for number in range(record.keys):
                name = key_id(block, number)
                sealed = sealer.seal(
                    nonces[_NONCE * number : _NONCE * (number + 1)],
                    data[number * size : (number + 1) * size],
                    self._associated(name, KeyState.DISTILLED, record.not_after),
                )
                recipient = self.recipients[number % max(1, record.allocations) % len(self.recipients)]
                yield (
                    *(name.bytes, block.bytes, seq, number, recipient, record.key_bits, KeyState.DISTILLED),
                    *(record.not_after, sealed),
                )

    def _associated(self, name: UUID, state: KeyState, not_after: float) -> bytes:
        return f"{name}|{self._link}|{state}|{not_after!r}".encode()

    @staticmethod
    def _count(db: sqlite3.Connection, state: str, n: int) -> None:
        db.execute("INSERT INTO totals VALUES (?, ?) ON CONFLICT (state) DO UPDATE SET n = n + excluded.n", (state, n))

    def _move(self, ids: Sequence[UUID], to: KeyState) -> list[UUID]:
        """Keys that really went there; their key bytes are destroyed, since no later state needs them."""
        moved = []
        with self.database.transaction() as db:
            for name in ids:
                row = db.execute("SELECT state, block FROM keys WHERE id = ?", (name.bytes,)).fetchone()
                if row is None or KeyState(row[0]) not in MAY_COME_FROM[to]:
                    continue
                if to is KeyState.PURGED:
                    db.execute("DELETE FROM keys WHERE id = ?", (name.bytes,))
                else:
                    db.execute("UPDATE keys SET state = ?, sealed = NULL WHERE id = ?", (to, name.bytes))
                self._count(db, row[0], -1)
                self._count(db, to, 1)
                self._drop_data_key(db, row[1])
                moved.append(name)
        if moved and to is not KeyState.DELIVERED:
            self.database.truncate_log()
        return moved

    @staticmethod
    def _drop_data_key(db: sqlite3.Connection, block: bytes) -> None:
        left = db.execute("SELECT 1 FROM keys WHERE block = ? AND sealed IS NOT NULL LIMIT 1", (block,)).fetchone()
        if left is None:
            db.execute("UPDATE blocks SET data_key = NULL WHERE uuid = ?", (block,))

    def mark_delivered(self, ids: Sequence[UUID]) -> None:
        """Their sealed envelope is durable elsewhere. May be repeated."""
        self._move(ids, KeyState.DELIVERED)

    def mark_acknowledged(self, ids: Sequence[UUID]) -> None:
        """The recipient has them. May be repeated."""
        self._move(ids, KeyState.ACKNOWLEDGED)

    def revoke(self, ids: Sequence[UUID]) -> list[UUID]:
        """Keys given up, whether delivered or not; returns those that were not revoked before."""
        return self._move(ids, KeyState.REVOKED)

    def expire(self, now: float) -> list[UUID]:
        """Keys whose lifetime is over at `now` (UTC, s) and that no recipient holds. The caller makes sure that its
        clock is synchronised: a lifetime is never judged by a clock that is not."""
        rows = self.database.rows(
            "SELECT id FROM keys WHERE not_after < ? AND state IN (?, ?)", now, KeyState.DISTILLED, KeyState.DELIVERED
        )
        return self._move([_uuid(r[0]) for r in rows], KeyState.EXPIRED)

    def purge(self, before: float) -> int:
        """Delete keys whose lifetime ended before `before` (UTC, s), in whatever state, and truncate the log."""
        rows = self.database.rows("SELECT id FROM keys WHERE not_after < ?", before)
        return len(self._move([_uuid(r[0]) for r in rows], KeyState.PURGED))

    # --- reading ---

    def take_for_delivery(self, recipient: str, n: int) -> list[tuple[UUID, bytearray]]:
        """At most n distilled keys of the recipient, oldest first, all of one size; the caller wipes them.

        Changes no state. Raises StoreRefused if a row was tampered with.
        """
        rows = self.database.rows(
            "SELECT id, block, bits, not_after, sealed FROM keys WHERE state = ? AND recipient = ? "
            "ORDER BY seq, number LIMIT ?",
            KeyState.DISTILLED,
            recipient,
            n,
        )
        same = [r for r in rows if r[2] == rows[0][2]]
        out: list[tuple[UUID, bytearray]] = []
        for raw_id, block, _, not_after, sealed in same:
            out.append((_uuid(raw_id), self._open(_uuid(raw_id), _uuid(block), not_after, sealed)))
        return out

    def _open(self, name: UUID, block: UUID, not_after: object, sealed: object) -> bytearray:
        wrapped = self.database.rows("SELECT data_key FROM blocks WHERE uuid = ?", block.bytes)[0][0]
        if not (isinstance(wrapped, bytes) and isinstance(sealed, bytes) and isinstance(not_after, float)):
            raise StoreRefused(f"key store: key {name} has no material")
        data_key = self.unseal(wrapped, b"data-key|" + block.bytes)
        with wiped(data_key):
            try:
                return mac.unseal(data_key, sealed, self._associated(name, KeyState.DISTILLED, not_after))
            except mac.WrongTag as e:
                raise StoreRefused(f"key store: key {name}: {e}") from None

    def state_of(self, name: UUID) -> KeyState | None:
        """None if there is no such key (any more)."""
        rows = self.database.rows("SELECT state FROM keys WHERE id = ?", name.bytes)
        return KeyState(str(rows[0][0])) if rows else None

    def block(self, uuid: UUID) -> BlockRecord | None:
        rows = self.database.rows("SELECT record FROM blocks WHERE uuid = ?", uuid.bytes)
        return BlockRecord.from_json(str(rows[0][0])) if rows else None

    def blocks_of(self, ids: Sequence[UUID]) -> list[BlockRecord]:
        """Records of the blocks that these keys come from, oldest first, each once."""
        found: dict[int, str] = {}
        for name in ids:
            for seq, record in self.database.rows(
                "SELECT b.seq, b.record FROM blocks b JOIN keys k ON k.block = b.uuid WHERE k.id = ?", name.bytes
            ):
                found[int(str(seq))] = str(record)
        return [BlockRecord.from_json(found[seq]) for seq in sorted(found)]

    def block_ids(self) -> list[UUID]:
        """In the order of their commits."""
        return [_uuid(r[0]) for r in self.database.rows("SELECT uuid FROM blocks ORDER BY seq")]

    def key_ids(self) -> list[UUID]:
        return [_uuid(r[0]) for r in self.database.rows("SELECT id FROM keys ORDER BY seq, number")]

    @property
    def commits(self) -> int:
        """Blocks ever committed."""
        return int(str(self.database.rows("SELECT COALESCE(MAX(seq), 0) FROM blocks")[0][0]))

    def waiting(self) -> int:
        """Keys that are distilled and not delivered."""
        return self.totals()[KeyState.DISTILLED]

    def totals(self) -> dict[str, int]:
        """Number of keys per state, and `created`: their sum at all times."""
        found = {str(s): int(str(n)) for s, n in self.database.rows("SELECT state, n FROM totals")}
        return {s: found.get(s, 0) for s in [*KeyState, "created"]}

    def audit(self) -> str | None:
        """None if keys are conserved, else what does not add up."""
        t = self.totals()
        if t["created"] != sum(t[s] for s in KeyState):
            return f"{t['created']} keys created but {sum(t[s] for s in KeyState)} accounted for"
        rows = {str(s): int(str(n)) for s, n in self.database.rows("SELECT state, COUNT(*) FROM keys GROUP BY state")}
        for s in KeyState:
            if s is not KeyState.PURGED and rows.get(s, 0) != t[s]:
                return f"{rows.get(s, 0)} keys are {s}, the account says {t[s]}"
        return None


def _uuid(raw: object) -> UUID:
    if not isinstance(raw, bytes):
        raise StoreRefused("key store: an id is damaged")
    return UUID(bytes=raw)
