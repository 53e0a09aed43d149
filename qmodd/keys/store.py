"""The key store: what is committed, sealed at rest, and where every key of it is (reference security).

Every key is sealed with AES-256-GCM under its block's data key, with key id, link, state and lifetime as associated
data; the data key is wrapped by the key-encryption key, which is never stored here. The key bytes go as soon as a key
is delivered (its sealed envelope has them then), is given up, or is purged; the data key goes with the last key of its
block. `created` equals the sum over all states at all times. Every transition leaves an event (`happened`) in the
transaction that makes it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

from qmodd.clock import Clock
from qmodd.crypto import mac
from qmodd.keys.allocation import Allocation
from qmodd.keys.database import Database
from qmodd.keys.handover_ledger import HandoverLedger
from qmodd.keys.happenings import Happenings, Moved
from qmodd.keys.lookup import Lookup
from qmodd.keys.records import MAY_COME_FROM, BlockRecord, KeyState, key_id, wiped
from qmodd.keys.store_errors import StoreRefused
from qmodd.randomness import Randomness
from qmodd.secret_files import too_open

__all__ = ["KEK_BYTES", "Database", "KeyStore", "StoreRefused", "load_kek"]

KEK_BYTES = 32
_NONCE = 12
_AT_ONCE = 10_000
_INSERT = (
    "INSERT INTO keys (id, block, seq, number, recipient, bits, state, not_after, sealed) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def load_kek(path: Path) -> bytearray:
    """Key-encryption key: 32 bytes in a file that only its owner may read. Raises StoreRefused."""
    try:
        data = bytearray(path.read_bytes())
    except OSError as e:
        raise StoreRefused(f"{path}: cannot be read: {e.strerror}") from None
    if why := too_open(path):
        raise StoreRefused(f"{path}: {why}")
    if len(data) != KEK_BYTES:
        raise StoreRefused(f"{path}: {len(data)} bytes; a key-encryption key has {KEK_BYTES}")
    return data


class KeyStore(Lookup):
    """Blocks and keys of one module. `recipients` are this site's, in the order of their allocation. `clock` dates the
    transitions; without one they have no time."""

    def __init__(
        self,
        database: Database,
        kek: bytearray,
        link: str,
        recipients: Sequence[str],
        randomness: Randomness,
        clock: Clock | None = None,
    ) -> None:
        if len(kek) != KEK_BYTES:
            raise StoreRefused(f"key-encryption key of {len(kek)} bytes; it must have {KEK_BYTES}")
        super().__init__(database)
        self.recipients = tuple(recipients) or ("local",)
        self.ledger = HandoverLedger(database)
        self.happenings = Happenings(database)
        self._clock = clock
        self._kek = kek
        self._link = link
        self._random = randomness

    def __repr__(self) -> str:
        return f"KeyStore({self._link})"

    def now(self) -> float:
        """UTC, s since 1970; 0 without a clock."""
        return self._clock.utc().timestamp() if self._clock else 0.0

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
        block, allocation = UUID(record.uuid), Allocation.of(record)
        if 8 * len(key_data) < allocation.bits(record.keys):
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
                rows = self._sealed_keys(record, allocation, seq, key_data, mac.Sealer(data_key))
                db.executemany(_INSERT, rows)
            self._count(db, KeyState.DISTILLED, record.keys)
            self._count(db, "created", record.keys)
        return True

    def _sealed_keys(
        self, record: BlockRecord, allocation: Allocation, seq: int, key_data: bytearray, sealer: mac.Sealer
    ) -> Iterator[tuple[object, ...]]:
        """A row for every key of the block."""
        block = UUID(record.uuid)
        nonces = self._random.bytes(_NONCE * record.keys)
        names = record.recipients or self.recipients
        at = 0
        with memoryview(key_data) as data:
            for number in range(record.keys):
                name, pair, size = key_id(block, number), allocation.owner(number), allocation.size(number) // 8
                sealed = sealer.seal(
                    nonces[_NONCE * number : _NONCE * (number + 1)],
                    data[at : at + size],
                    self._associated(name, KeyState.DISTILLED, record.not_after),
                )
                at += size
                yield (
                    *(name.bytes, block.bytes, seq, number, names[pair % len(names)], 8 * size, KeyState.DISTILLED),
                    *(record.not_after, sealed),
                )

    def _associated(self, name: UUID, state: KeyState, not_after: float) -> bytes:
        return f"{name}|{self._link}|{state}|{not_after!r}".encode()

    @staticmethod
    def _count(db: sqlite3.Connection, state: str, n: int) -> None:
        db.execute(
            "INSERT INTO totals (state, n) VALUES (?, ?) ON CONFLICT (state) DO UPDATE SET n = n + excluded.n",
            (state, n),
        )

    def _move(self, ids: Sequence[UUID], to: KeyState, why: str = "", batch: UUID | None = None) -> list[UUID]:
        """Keys that really went there; their key bytes are destroyed, since no later state needs them."""
        with self.database.transaction() as db:
            moved = [m for m in self.found(db, ids) if m.state in MAY_COME_FROM[to]]
            names = [m.name for m in moved]
            if to is KeyState.PURGED:
                db.executemany("DELETE FROM keys WHERE id = ?", [(i.bytes,) for i in names])
            else:
                db.executemany("UPDATE keys SET state = ?, sealed = NULL WHERE id = ?", [(to, i.bytes) for i in names])
            for m in moved:
                self._count(db, m.state, -1)
            if moved:
                self._count(db, to, len(moved))
            for block in {m.block for m in moved}:
                self._drop_data_key(db, block)
            self._hand_over(db, ids if to is KeyState.DELIVERED else names, to, why, batch)
            self.completed(db, names)
            self.happenings.moved(db, moved, to, why, self.now())
        if moved and to is not KeyState.DELIVERED:
            self.database.truncate_log()
        return names

    def completed(self, db: sqlite3.Connection, ids: Sequence[UUID]) -> None:
        """In the transaction that may have made the last step of their revocation."""
        if n := self.ledger.completed(db, ids):
            self.happenings.add(db, "key.revocation.complete", {"keys": n})

    @staticmethod
    def found(db: sqlite3.Connection, ids: Sequence[UUID]) -> Iterator[Moved]:
        created: dict[bytes, float] = {}
        for name in dict.fromkeys(ids):
            row = db.execute("SELECT state, block, recipient FROM keys WHERE id = ?", (name.bytes,)).fetchone()
            if row is None:
                continue
            if row[1] not in created:
                text = db.execute("SELECT record FROM blocks WHERE uuid = ?", (row[1],)).fetchone()
                created[row[1]] = float(json.loads(text[0])["created"]) if text else 0.0
            yield Moved(name, KeyState(row[0]), row[1], row[2], created[row[1]])

    def _hand_over(
        self, db: sqlite3.Connection, ids: Sequence[UUID], to: KeyState, why: str, batch: UUID | None
    ) -> None:
        match to:
            case KeyState.DELIVERED:
                self.ledger.delivered(db, ids, batch, self.now())  # also those that were given up meanwhile
            case KeyState.ACKNOWLEDGED:
                self.ledger.acknowledged(db, ids, self.now())
            case KeyState.EXPIRED | KeyState.REVOKED:
                self.ledger.given_up(db, ids, why, self.now())
            case KeyState.PURGED:
                self.ledger.forgotten(db, ids)

    @staticmethod
    def _drop_data_key(db: sqlite3.Connection, block: bytes) -> None:
        left = db.execute("SELECT 1 FROM keys WHERE block = ? AND sealed IS NOT NULL LIMIT 1", (block,)).fetchone()
        if left is None:
            db.execute("UPDATE blocks SET data_key = NULL WHERE uuid = ?", (block,))

    def mark_delivered(self, ids: Sequence[UUID], batch: UUID | None = None) -> None:
        """Their sealed envelope is durable elsewhere. May be repeated."""
        self._move(ids, KeyState.DELIVERED, batch=batch)

    def mark_acknowledged(self, ids: Sequence[UUID]) -> None:
        """The recipient has them. May be repeated."""
        self._move(ids, KeyState.ACKNOWLEDGED)

    def revoke(self, ids: Sequence[UUID], why: str = "") -> list[UUID]:
        """Keys given up here, whether delivered or not; returns those that were not given up before. The far module and
        the recipients hear of it by `qmodd.keys.handover`."""
        return self._move(ids, KeyState.REVOKED, why)

    def expire(self, now: float) -> list[UUID]:
        """Keys whose lifetime is over at `now` (UTC, s) and that no recipient holds. The caller makes sure that its
        clock is synchronised: a lifetime is never judged by a clock that is not."""
        rows = self.database.rows(
            "SELECT id FROM keys WHERE not_after < ? AND state IN (?, ?)", now, KeyState.DISTILLED, KeyState.DELIVERED
        )
        return self._move([_uuid(r[0]) for r in rows], KeyState.EXPIRED, "its lifetime is over") if rows else []

    def purge(self, before: float) -> int:
        """Delete keys whose lifetime ended before `before` (UTC, s), in whatever state, and truncate the log."""
        purged = 0
        while rows := self.database.rows("SELECT id FROM keys WHERE not_after < ? LIMIT ?", before, _AT_ONCE):
            purged += len(self._move([_uuid(r[0]) for r in rows], KeyState.PURGED))
        return purged

    def purge_ids(self, ids: Sequence[UUID]) -> int:
        """The same for certain keys; how many there were."""
        return len(self._move(ids, KeyState.PURGED))

    def zeroise(self, why: str = "zeroised") -> int:
        """Destroy every key's bytes, every data key and every prepared block. Keys that no recipient is known to have
        are given up; how many. Needs no key-encryption key. May be repeated."""
        with self.database.transaction() as db:
            rows = db.execute("SELECT id FROM keys WHERE state IN ('distilled', 'delivered')").fetchall()
            ended = self._move([_uuid(r[0]) for r in rows], KeyState.REVOKED, why)
            db.execute("UPDATE keys SET sealed = NULL WHERE sealed IS NOT NULL")
            db.execute("UPDATE blocks SET data_key = NULL WHERE data_key IS NOT NULL")
            db.execute("DELETE FROM journal")
        self.database.truncate_log()
        return len(ended)

    # --- key bytes ---

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
            out.append((_uuid(raw_id), self._unsealed(_uuid(raw_id), _uuid(block), not_after, sealed)))
        return out

    def _unsealed(self, name: UUID, block: UUID, not_after: object, sealed: object) -> bytearray:
        found = self.database.rows("SELECT data_key FROM blocks WHERE uuid = ?", block.bytes)
        wrapped = found[0][0] if found else None
        if not (isinstance(wrapped, bytes) and isinstance(sealed, bytes) and isinstance(not_after, float)):
            raise StoreRefused(f"key store: key {name} has no material")
        data_key = self.unseal(wrapped, b"data-key|" + block.bytes)
        with wiped(data_key):
            try:
                return mac.unseal(data_key, sealed, self._associated(name, KeyState.DISTILLED, not_after))
            except mac.WrongTag as e:
                raise StoreRefused(f"key store: key {name}: {e}") from None


def _uuid(raw: object) -> UUID:
    if not isinstance(raw, bytes):
        raise StoreRefused("key store: an id is damaged")
    return UUID(bytes=raw)
