"""What comes in at the receiver's store: batches, the words `usable` and `revoke`, and the end of lifetimes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from qmodd.crypto import mac
from qmodd.keys.envelope import Header
from qmodd.keys.records import wiped
from qmodd.messages import KeyStatus, NoticeStatus
from qmodd.receiver.sealing import KeyAad
from qmodd.receiver.split import direction_of
from qmodd.receiver.table import IMPORTED, WITH_BYTES, Held, KeyTable, Row
from qmodd.receiver.window import Window

# What a key that is here without its bytes answers to a batch that brings it once more.
_AGAIN: dict[Held, KeyStatus] = {Held.REVOKED: "revoked", Held.EXPIRED: "expired", Held.HANDED_OUT: "replayed"}


@dataclass(frozen=True)
class Arrivals:
    """Every method is one transaction, or part of the one around it; times are UTC seconds since 1970."""

    table: KeyTable

    def known_ack(self, header: Header) -> bytes | None:
        """The first acknowledgement of this batch."""
        found = self.table.rows(
            "SELECT ack FROM batch WHERE sender_kid = ? AND batch_uuid = ?", header.sender_kid, header.batch_uuid
        )
        return found[0][0] if found and isinstance(found[0][0], bytes) else None

    def in_window(self, header: Header) -> bool:
        """Takes the sequence number; False if it was there before or is too old to tell."""
        with self.table.transaction() as db:
            kid = header.sender_kid
            row = db.execute("SELECT top, seen FROM window WHERE kid = ?", (kid,)).fetchone()
            # SQLite's integers are signed: the number is kept as eight bytes of its two's complement.
            before = Window(row[0] & _U64, int.from_bytes(row[1], "big")) if row else Window()
            after = before.accept(header.seq)
            if after is None:
                return False
            db.execute(
                "INSERT INTO window (kid, top, seen) VALUES (?, ?, ?) ON CONFLICT (kid) DO UPDATE "
                "SET top = excluded.top, seen = excluded.seen",
                (kid, _signed(after.top), after.seen.to_bytes(8, "big")),
            )
            return True

    def add(self, header: Header, keys: Sequence[bytearray]) -> tuple[dict[str, KeyStatus], bytes | None]:
        """Keep the keys as pending: status by id, and the batch's wrapped data key if one was kept."""
        data_key, wrapped = self.table.seals.new_data_key(header.batch_uuid)
        with wiped(data_key), self.table.transaction() as db:
            status: dict[str, KeyStatus] = {}
            kept = 0
            for key_id, key in zip(header.ids, keys, strict=True):
                known = self._already(header, key_id, key)
                if known is None:
                    self._insert(db, header, key_id, self._sealed(header, key_id, key, data_key))
                    kept += 1
                status[str(key_id)] = known or "imported"
            self.table.count(Held.PENDING, kept)
            self.table.count(IMPORTED, kept)
        return status, wrapped if kept else None

    def keep_ack(self, header: Header, ack: bytes, wrapped: bytes | None) -> None:
        with self.table.transaction() as db:
            db.execute(
                "INSERT INTO batch (sender_kid, batch_uuid, ack, labels, purge_by, data_key) VALUES (?, ?, ?, ?, ?, ?)",
                (header.sender_kid, header.batch_uuid, ack, json.dumps(header.labels), header.purge_by, wrapped),
            )

    def make_usable(self, sender_kid: bytes, key_id: UUID, now: float | None) -> NoticeStatus:
        """What the key is afterwards. `now` None (a clock that is not synchronised): lifetimes are not judged."""
        with self.table.transaction():
            key = self._of_sender(sender_kid, key_id)
            if key is None:
                return "revoked" if self._forbidden(sender_kid, key_id) else "unknown"
            if key.state in WITH_BYTES and now is not None and now > key.not_after:
                self.table.end(key, Held.EXPIRED)
                return "expired"
            if key.state is Held.PENDING:
                self.table.move(key, Held.USABLE)
            if key.state is Held.EXPIRED:
                return "expired"
            return "revoked" if key.state is Held.REVOKED else "usable"

    def revoke(self, sender_kid: bytes, key_id: UUID) -> str | None:
        """For good, also if the key was never seen. Returns to whom it had been handed out already."""
        with self.table.transaction() as db:
            key = self._of_sender(sender_kid, key_id)
            if key is None:
                db.execute(
                    "INSERT INTO forbidden (sender_kid, key_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (sender_kid, str(key_id)),
                )
                return None
            if key.state is not Held.REVOKED:
                self.table.end(key, Held.REVOKED)
            return key.handed_to

    def sweep(self, now: float) -> dict[str, int]:
        """Expire and purge what is due; the caller makes sure that its clock is synchronised."""
        with self.table.transaction() as db:
            ended = self.table.select("not_after < ? AND state IN (?, ?)", now, *WITH_BYTES)
            for key in ended:
                self.table.end(key, Held.EXPIRED)
            due = self.table.select("purge_by < ?", now)
            for key in due:
                self.table.end(key, Held.PURGED)
            db.execute("DELETE FROM batch WHERE purge_by < ?", (now,))
        return {"expired": len(ended), "purged": len(due)}

    def _already(self, header: Header, key_id: UUID, key: bytearray) -> KeyStatus | None:
        """None for a key that is new; the same key in another batch is no conflict."""
        if self._forbidden(header.sender_kid, key_id):
            return "revoked"
        known = self.table.find(key_id)
        if known is None:
            return None
        if known.sender_kid != header.sender_kid:
            return "id_conflict"
        if known.sealed is None:
            return _AGAIN[known.state]
        kept = self.table.open(known)
        with wiped(kept):
            return "imported" if mac.equal(kept, key) else "id_conflict"

    def _sealed(self, header: Header, key_id: UUID, key: bytearray, data_key: bytearray) -> bytes:
        aad = KeyAad(str(key_id), header.link_id, Held.PENDING, header.not_after)
        return self.table.seals.seal(data_key, key, aad)

    @staticmethod
    def _insert(db: sqlite3.Connection, header: Header, key_id: UUID, sealed: bytes) -> None:
        db.execute(
            "INSERT INTO held (key_id, sender_kid, batch_uuid, link_id, bits, direction, state, not_before, "
            "not_after, purge_by, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(str(key_id), header.sender_kid, header.batch_uuid, header.link_id, header.key_size),
                *(direction_of(key_id), Held.PENDING, header.not_before, header.not_after, header.purge_by, sealed),
            ),
        )

    def _of_sender(self, sender_kid: bytes, key_id: UUID) -> Row | None:
        """No sender has a say in the keys of another one."""
        key = self.table.find(key_id)
        return key if key is not None and key.sender_kid == sender_kid else None

    def _forbidden(self, sender_kid: bytes, key_id: UUID) -> bool:
        return bool(
            self.table.rows("SELECT 1 FROM forbidden WHERE sender_kid = ? AND key_id = ?", sender_kid, str(key_id))
        )


_U64 = 0xFFFF_FFFF_FFFF_FFFF


def _signed(n: int) -> int:
    return n - (1 << 64) if n > _U64 >> 1 else n
