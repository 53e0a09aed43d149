"""Two-phase commit of a block: durable on both sides first, then a key on both sides or on neither.

Alice decides. Bob prepares a block (its bits are durable, sealed, and no key yet) before he says so; from then on only
Alice's verdict with its one-time token ends the doubt, in this session or, by both journals, in a later one; never a
timeout on one side alone. Alice commits only after Bob's final tag has verified; a block that she prepared and did not
commit she aborts as soon as the session ends. So Bob has committed only what Alice has committed before.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from qmodd.keys.pool import Pool
from qmodd.keys.records import BlockRecord, SecretBits, wiped
from qmodd.keys.store import KeyStore


@dataclass(frozen=True)
class InDoubt:
    """A block that is prepared and neither committed nor aborted."""

    uuid: UUID
    round: int


class Journal:
    """Prepared blocks of one module; shares the store's database, so that a commit is one transaction."""

    def __init__(self, store: KeyStore, pool: Pool) -> None:
        self.store = store
        self.pool = pool

    def prepare(self, record: BlockRecord, secret: SecretBits) -> None:
        """Make the block durable without making it a key; wipes `secret`."""
        uuid = UUID(record.uuid)
        try:
            sealed = self.store.seal(secret.data, b"journal|" + uuid.bytes)
        finally:
            secret.wipe()
        with self.store.database.transaction() as db:
            db.execute("INSERT INTO journal VALUES (?, ?, ?, ?)", (uuid.bytes, record.round, record.to_json(), sealed))

    def commit(self, uuid: UUID) -> BlockRecord | None:
        """The block becomes keys, and its share goes to the pool, at once. Repeating it changes nothing.

        None if the block is neither prepared nor committed.
        """
        rows = self.store.database.rows("SELECT record, sealed FROM journal WHERE uuid = ?", uuid.bytes)
        if not rows:
            return self.store.block(uuid)
        record, sealed = BlockRecord.from_json(str(rows[0][0])), rows[0][1]
        if not isinstance(sealed, bytes):
            raise ValueError("journal: a prepared block has no material")
        secret = self.store.unseal(sealed, b"journal|" + uuid.bytes)
        share, keys = secret[: record.replenish_bits // 8], secret[record.replenish_bits // 8 :]
        with wiped(secret, share, keys):
            end = self.pool.stage(share, record.round)
            with self.store.database.transaction() as db:
                self.store.add_block(record, keys)
                self.pool.advance(end)
                db.execute("DELETE FROM journal WHERE uuid = ?", (uuid.bytes,))
        self.store.database.truncate_log()
        return record

    def abort(self, uuid: UUID) -> None:
        """Forget a prepared block. Repeating it changes nothing."""
        with self.store.database.transaction() as db:
            db.execute("DELETE FROM journal WHERE uuid = ?", (uuid.bytes,))
        self.store.database.truncate_log()

    def in_doubt(self) -> list[InDoubt]:
        rows = self.store.database.rows("SELECT uuid, round FROM journal ORDER BY round")
        return [InDoubt(UUID(bytes=u), int(str(r))) for u, r in rows if isinstance(u, bytes)]

    def committed(self, uuid: UUID) -> bool:
        return self.store.block(uuid) is not None

    def verdict_on(self, uuid: UUID, round_: int) -> bool:
        """Alice: whether a block that Bob has in doubt is committed here; what she does not know she never commits.

        Raises ValueError unless block and round belong together: a round's token must decide about its own block only.
        """
        record = self.store.block(uuid)
        if record is None:
            found = self.store.database.rows(
                "SELECT 1 FROM blocks WHERE json_extract(record, '$.round') = ? LIMIT 1", round_
            )
            if found:
                raise ValueError(f"round {round_} of the pool is that of another block, which is committed")
            return False
        if record.round != round_:
            raise ValueError(f"the block was made in round {record.round} of the pool, not in {round_}")
        return True

    def verdicts_owed(self) -> list[InDoubt]:
        """Alice: committed blocks of which Bob has not said that he has committed them, too."""
        rows = self.store.database.rows("SELECT record FROM blocks WHERE peer_done = 0 ORDER BY seq")
        records = [BlockRecord.from_json(str(r[0])) for r in rows]
        return [InDoubt(UUID(r.uuid), r.round) for r in records]

    def revoke_block(self, uuid: UUID) -> None:
        """Alice: Bob's store has lost a block that he had prepared; its keys must not be used on one side alone."""
        rows = self.store.database.rows("SELECT id FROM keys WHERE block = ?", uuid.bytes)
        self.store.revoke([UUID(bytes=r[0]) for r in rows if isinstance(r[0], bytes)])

    def peer_done(self, uuid: UUID) -> None:
        with self.store.database.transaction() as db:
            db.execute("UPDATE blocks SET peer_done = 1 WHERE uuid = ?", (uuid.bytes,))
