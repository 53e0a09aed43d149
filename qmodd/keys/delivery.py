"""Keys on their way to a recipient: seal batches, queue them durably, believe signed acknowledgements only.

Crash-safe order: sequence number, ciphertext and key ids in one transaction, then `mark_delivered`, then the wipe. A
crash in between is put right by `recover`. Identical bytes are resent until the recipient's signed acknowledgement;
then the store is told, then the ciphertext is destroyed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pydantic import ValidationError

from qmodd.crypto.suites import BadSignature, wipe
from qmodd.identity import KEY_ACK_CONTEXT, RecipientPublic, Signer
from qmodd.keys.envelope import Header, Provenance, seal, unix
from qmodd.messages import MAX_KEY_ACK_BYTES, KeyAck, KeyAckBody
from qmodd.outbox import Outbox
from qmodd.randomness import Randomness

# The receiver remembers 64 sequence numbers; a batch resent from further back would be refused as a replay.
WINDOW = 64
# Settled batches that are remembered, so that an acknowledgement that comes twice is not a surprise.
SETTLED_KEPT = 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS delivery_sender (kid BLOB PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS delivery_batch (
    batch_uuid BLOB PRIMARY KEY,
    kid BLOB NOT NULL,
    recipient TEXT NOT NULL,
    seq INTEGER NOT NULL,
    digest BLOB NOT NULL,
    key_ids BLOB NOT NULL,
    row INTEGER NOT NULL,
    settled INTEGER NOT NULL
) STRICT;
"""

Audit = Callable[[str, dict[str, str | int | float | bool | None]], None]


class DistilledKeys(Protocol):
    """What delivery asks of the key store. The marks may be repeated: a key that has got there stays there."""

    def take_for_delivery(self, recipient: str, n: int) -> list[tuple[UUID, bytearray]]:
        """At most n distilled keys allocated to the recipient, oldest first, all of one size; changes no state."""
        ...

    def mark_delivered(self, ids: Sequence[UUID]) -> None: ...

    def mark_acknowledged(self, ids: Sequence[UUID]) -> None: ...


@dataclass(frozen=True)
class BatchFacts:
    """What the header says about the keys of a batch; times are UTC."""

    not_before: datetime
    not_after: datetime
    purge_by: datetime
    provenance: tuple[Provenance, ...] = ()


@dataclass
class KeyDelivery:
    """Core's sender of keys. `describe` gives lifetimes and provenance of the keys of a batch."""

    store: DistilledKeys
    outbox: Outbox
    sender: Signer
    recipients: Mapping[str, RecipientPublic]
    link_id: str
    epoch: str
    randomness: Randomness
    describe: Callable[[Sequence[UUID]], BatchFacts]
    audit: Audit
    batch_keys: int = 64

    def __post_init__(self) -> None:
        self._kid = self.sender.key.public.kid
        self.outbox.database.executescript(_SCHEMA)

    def recover(self) -> None:
        """At start, before the first `deliver`: a batch that was queued before a crash counts as delivered."""
        for (ids,) in self.outbox.database.execute("SELECT key_ids FROM delivery_batch WHERE settled = 0").fetchall():
            self.store.mark_delivered(_split(ids))

    def deliver(self, recipient: str | None = None, *, batches: int | None = None) -> int:
        """Seal and queue what the store has for the recipient (all recipients if None), as far as the window allows.

        `batches`: at most so many, for a caller that must not be held up by the disk for long. Returns the
        number of keys queued. Raises LookupError for an unknown recipient.
        """
        if recipient is not None and recipient not in self.recipients:
            raise LookupError(f"no recipient {recipient!r}; known are {', '.join(self.recipients)}")
        total, left = 0, batches
        for name in [recipient] if recipient else list(self.recipients):
            while left != 0 and self._window_open(name):
                keys = self.store.take_for_delivery(name, self.batch_keys)
                if not keys:
                    break
                self._send(name, keys)
                total += len(keys)
                left = None if left is None else left - 1
        return total

    def outstanding(self) -> int:
        """Batches without an acknowledgement."""
        row = self.outbox.database.execute("SELECT COUNT(*) FROM delivery_batch WHERE settled = 0").fetchone()
        return int(row[0])

    def on_key_ack(self, recipient: str, payload: bytes) -> None:
        """For the door: believed when signed by that recipient, for a batch sent to it, over exactly those bytes."""
        try:
            body = self._verified(recipient, payload)
            row_id, ids = self._matched(recipient, body)
        except _NotBelieved as e:
            self.audit("key.ack.refused", {"recipient": recipient[:64], "why": str(e)})
            return
        if ids:
            self._settle(recipient, body, row_id, ids)

    def _window_open(self, recipient: str) -> bool:
        oldest = self.outbox.database.execute(
            "SELECT MIN(seq) FROM delivery_batch WHERE settled = 0 AND recipient = ? AND kid = ?",
            (recipient, self._kid),
        ).fetchone()[0]
        return oldest is None or self._last_seq() + 1 - int(oldest) < WINDOW

    def _last_seq(self) -> int:
        row = self.outbox.database.execute("SELECT seq FROM delivery_sender WHERE kid = ?", (self._kid,)).fetchone()
        return int(row[0]) if row else 0

    def _send(self, recipient: str, keys: list[tuple[UUID, bytearray]]) -> None:
        ids = [i for i, _ in keys]
        try:
            seq = self._queue(recipient, ids, [k for _, k in keys])
        finally:
            for _, key in keys:
                wipe(key)
        self.store.mark_delivered(ids)
        self.audit("key.sealed", {"recipient": recipient, "keys": len(ids), "batch_seq": seq})

    def _queue(self, recipient: str, ids: list[UUID], keys: list[bytearray]) -> int:
        to, facts, uuid = self.recipients[recipient], self.describe(ids), self.randomness.uuid()
        with self.outbox.transaction() as db:
            seq = self._last_seq() + 1
            header = Header(
                sender_kid=self._kid,
                recipient_kid=to.sealing.kid,
                epoch=self.epoch,
                seq=seq,
                batch_uuid=uuid.bytes,
                link_id=self.link_id,
                key_size=len(keys[0]) * 8,
                key_IDs=[i.bytes for i in ids],
                not_before=unix(facts.not_before),
                not_after=unix(facts.not_after),
                purge_by=unix(facts.purge_by),
                provenance=list(facts.provenance),
            )
            envelope = seal(header, keys, self.sender.key, to.sealing)
            db.execute(
                "INSERT INTO delivery_sender VALUES (?, ?) ON CONFLICT (kid) DO UPDATE SET seq = excluded.seq",
                (self._kid, seq),
            )
            row_id = self.outbox.put(
                f"keys/{recipient}", envelope.to_bytes(), kind="key", expiry=facts.not_after, dedupe=uuid
            )
            db.execute(
                "INSERT INTO delivery_batch VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                (uuid.bytes, self._kid, recipient, seq, envelope.digest, b"".join(i.bytes for i in ids), row_id),
            )
        return seq

    def _verified(self, recipient: str, payload: bytes) -> KeyAckBody:
        to = self.recipients.get(recipient)
        if to is None:
            raise _NotBelieved("not one of our recipients")
        if len(payload) > MAX_KEY_ACK_BYTES:
            raise _NotBelieved("too large")
        try:
            ack = KeyAck.model_validate_json(payload)
            to.verifying.verify(ack.body.encode(), base64.b64decode(ack.signature, validate=True), KEY_ACK_CONTEXT)
            body = KeyAckBody.model_validate_json(ack.body)
        except (ValidationError, ValueError):
            raise _NotBelieved("malformed") from None
        except BadSignature as e:
            raise _NotBelieved(str(e)) from None
        if body.recipient != recipient or body.recipient_kid != to.sealing.kid.hex():
            raise _NotBelieved("names another recipient")
        return body

    def _matched(self, recipient: str, body: KeyAckBody) -> tuple[int, list[UUID]]:
        """Row and key ids of the batch; no ids when it was settled before."""
        found = self.outbox.database.execute(
            "SELECT row, digest, key_ids, settled FROM delivery_batch WHERE batch_uuid = ? AND recipient = ?",
            (UUID(body.batch_uuid).bytes, recipient),
        ).fetchone()
        if found is None:
            raise _NotBelieved("for a batch that was not sent to this recipient")
        row_id, digest, raw_ids, settled = found
        if digest.hex() != body.digest:
            raise _NotBelieved("over other bytes than were sent")
        ids = _split(raw_ids)
        if set(body.status) != {str(i) for i in ids}:
            raise _NotBelieved("does not name the keys of its batch")
        return row_id, [] if settled else ids

    def _settle(self, recipient: str, body: KeyAckBody, row_id: int, ids: list[UUID]) -> None:
        taken = [i for i in ids if body.status[str(i)] == "imported"]
        self.store.mark_delivered(ids)  # in case of a crash between queueing and marking them
        self.store.mark_acknowledged(taken)
        with self.outbox.transaction() as db:
            self.outbox.delete(row_id)
            db.execute("UPDATE delivery_batch SET settled = 1 WHERE batch_uuid = ?", (UUID(body.batch_uuid).bytes,))
            db.execute("DELETE FROM delivery_batch WHERE settled = 1 AND seq < ?", (self._last_seq() - SETTLED_KEPT,))
        self.audit("key.acknowledged", {"recipient": recipient, "keys": len(taken)})
        if len(taken) < len(ids):
            why = sorted({s for s in body.status.values() if s != "imported"})
            self.audit("key.refused", {"recipient": recipient, "keys": len(ids) - len(taken), "why": ", ".join(why)})


class _NotBelieved(Exception):
    """An acknowledgement that changes nothing."""


def _split(ids: bytes) -> list[UUID]:
    return [UUID(bytes=ids[at : at + 16]) for at in range(0, len(ids), 16)]
