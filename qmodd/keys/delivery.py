"""Keys on their way to a recipient: seal batches, queue them durably, believe signed acknowledgements only.

Crash-safe order: sequence number, ciphertext and key ids in one transaction, on the disk, then `mark_delivered`, then
the wipe; only then may the batch leave. A crash in between is put right by `recover`. Identical bytes are resent until
the recipient's signed acknowledgement; then the store is told, then the ciphertext is destroyed.

Everything here waits for the disk: `qmodd.keys.handover` calls it in a thread.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from pydantic import ValidationError

from qmodd.crypto.suites import BadSignature, wipe
from qmodd.identity import KEY_ACK_CONTEXT, RecipientPublic, Signer
from qmodd.keys.envelope import Header, Provenance, seal, unix
from qmodd.messages import MAX_KEY_ACK_BYTES, KeyAck, KeyAckBody, KeyNoticeAckBody
from qmodd.outbox import Outbox
from qmodd.randomness import Randomness

# The receiver remembers 64 sequence numbers; a batch resent from further back would be refused as a replay.
WINDOW = 64
# Settled batches that are remembered, so that an acknowledgement that comes twice is not a surprise.
SETTLED_KEPT = 1024
OPEN, SETTLED, WITHDRAWN = 0, 1, 2

Audit = Callable[[str, dict[str, str | int | float | bool | None]], None]


class DistilledKeys(Protocol):
    """What delivery asks of the key store. The marks may be repeated: a key that has got there stays there."""

    def take_for_delivery(self, recipient: str, n: int) -> list[tuple[UUID, bytearray]]:
        """At most n distilled keys allocated to the recipient, oldest first, all of one size; changes no state."""
        ...

    def mark_delivered(self, ids: Sequence[UUID], batch: UUID | None = None) -> None: ...

    def mark_acknowledged(self, ids: Sequence[UUID]) -> None: ...

    def revoke(self, ids: Sequence[UUID], why: str = "") -> list[UUID]: ...

    def unacknowledged(self, recipient: str) -> int:
        """Keys sealed for the recipient and neither acknowledged nor given up."""
        ...


@dataclass(frozen=True)
class BatchFacts:
    """What the header says about the keys of a batch; times are UTC."""

    not_before: datetime
    not_after: datetime
    purge_by: datetime
    provenance: tuple[Provenance, ...] = ()


@dataclass(frozen=True)
class Terms:
    """How keys are handed to one recipient: most keys a batch, most keys that wait for its acknowledgement, and what
    every batch is labelled with."""

    batch_keys: int = 64
    depth: int = 65_536
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass
class KeyDelivery:
    """Core's sender of keys. `describe` gives lifetimes and provenance of the keys of a batch. `release` lets a queued
    row go; by default at once."""

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
    terms: Mapping[str, Terms] = field(default_factory=dict)
    release: Callable[[int], object] | None = None

    def __post_init__(self) -> None:
        self._kid = self.sender.key.public.kid

    def recover(self) -> None:
        """At start, before the first `deliver`: a batch that was queued before a crash counts as delivered."""
        self.outbox.sync()
        for uuid, ids in self.outbox.rows("SELECT batch_uuid, key_ids FROM delivery_batch WHERE settled = 0"):
            self.store.mark_delivered(split(ids), UUID(bytes=uuid))
        if self.release is None:
            self.outbox.release()

    def deliver(self, recipient: str | None = None, *, batches: int | None = None) -> int:
        """Seal and queue what the store has for the recipient (all recipients if None), as far as window and depth
        allow.

        `batches`: at most so many. Returns the number of keys queued. Raises LookupError for an unknown recipient.
        """
        if recipient is not None and recipient not in self.recipients:
            raise LookupError(f"no recipient {recipient!r}; known are {', '.join(self.recipients)}")
        total, left = 0, batches
        for name in [recipient] if recipient else list(self.recipients):
            while left != 0 and self._window_open(name):
                room = self._terms(name).depth - self.store.unacknowledged(name)
                if room <= 0:
                    break
                keys = self.store.take_for_delivery(name, min(self._terms(name).batch_keys, room))
                if not keys:
                    break
                self._send(name, keys)
                total += len(keys)
                left = None if left is None else left - 1
        return total

    def outstanding(self) -> int:
        """Batches without an acknowledgement."""
        return int(self.outbox.rows("SELECT COUNT(*) FROM delivery_batch WHERE settled = 0")[0][0])

    def on_key_ack(self, recipient: str, payload: bytes) -> None:
        """For the door: believed when signed by that recipient, for a batch sent to it, over exactly those bytes."""
        try:
            body = believed(self.recipients, recipient, payload, KEY_ACK_CONTEXT, KeyAckBody)
            row_id, ids = self._matched(recipient, body)
        except NotBelieved as e:
            self.audit("key.ack.refused", {"recipient": recipient[:64], "why": str(e)})
            return
        if ids:
            self._settle(recipient, body, row_id, ids)

    def withdraw(self, ended: Callable[[UUID], bool]) -> int:
        """Destroy the ciphertext of batches of which every key has `ended`: nobody may use them, and the window must
        not wait for them. Returns how many batches that were."""
        gone = 0
        for uuid, ids, row_id in self.outbox.rows(
            "SELECT batch_uuid, key_ids, row FROM delivery_batch WHERE settled = 0"
        ):
            if all(ended(i) for i in split(ids)):
                self._close(uuid, row_id, WITHDRAWN)
                gone += 1
        return gone

    def withdraw_all(self) -> int:
        """Destroy the ciphertext of every batch, whatever becomes of its keys; notices stay."""
        found = self.outbox.rows("SELECT batch_uuid, row FROM delivery_batch WHERE settled = 0")
        for uuid, row_id in found:
            self._close(uuid, row_id, WITHDRAWN)
        return len(found)

    def _terms(self, recipient: str) -> Terms:
        return self.terms.get(recipient) or Terms(batch_keys=self.batch_keys)

    def _window_open(self, recipient: str) -> bool:
        oldest = self.outbox.rows(
            "SELECT MIN(seq) FROM delivery_batch WHERE settled = 0 AND recipient = ? AND kid = ?", recipient, self._kid
        )[0][0]
        return oldest is None or self._last_seq() + 1 - int(oldest) < WINDOW

    def _last_seq(self) -> int:
        found = self.outbox.rows("SELECT seq FROM delivery_sender WHERE kid = ?", self._kid)
        return int(found[0][0]) if found else 0

    def _send(self, recipient: str, keys: list[tuple[UUID, bytearray]]) -> None:
        ids, batch = [i for i, _ in keys], self.randomness.uuid()
        try:
            row_id = self._queue(recipient, batch, ids, [k for _, k in keys])
        finally:
            for _, key in keys:
                wipe(key)
        self.outbox.sync()
        self.store.mark_delivered(ids, batch)
        if self.release is not None:
            self.release(row_id)
        else:
            self.outbox.release([row_id])

    def _queue(self, recipient: str, uuid: UUID, ids: list[UUID], keys: list[bytearray]) -> int:
        to, facts = self.recipients[recipient], self.describe(ids)
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
            labels=dict(self._terms(recipient).labels),
            not_before=unix(facts.not_before),
            not_after=unix(facts.not_after),
            purge_by=unix(facts.purge_by),
            provenance=list(facts.provenance),
        )
        # Sealed before the transaction: the outbox is shared with the event loop, which must not wait for a signature.
        envelope = seal(header, keys, self.sender.key, to.sealing)
        data = envelope.to_bytes()
        with self.outbox.transaction() as db:
            db.execute(
                "INSERT INTO delivery_sender (kid, seq) VALUES (?, ?) "
                "ON CONFLICT (kid) DO UPDATE SET seq = MAX(seq, excluded.seq)",
                (self._kid, seq),
            )
            row_id = self.outbox.put(
                f"keys/{recipient}", data, kind="key", expiry=facts.not_after, dedupe=uuid, held=True
            )
            db.execute(
                "INSERT INTO delivery_batch (batch_uuid, kid, recipient, seq, digest, key_ids, row, settled) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                (uuid.bytes, self._kid, recipient, seq, envelope.digest, b"".join(i.bytes for i in ids), row_id),
            )
        return row_id

    def _matched(self, recipient: str, body: KeyAckBody) -> tuple[int, list[UUID]]:
        """Row and key ids of the batch; no ids when it was settled before."""
        found = self.outbox.rows(
            "SELECT row, digest, key_ids, settled FROM delivery_batch WHERE batch_uuid = ? AND recipient = ?",
            UUID(body.batch_uuid).bytes,
            recipient,
        )
        if not found:
            raise NotBelieved("for a batch that was not sent to this recipient")
        row_id, digest, raw_ids, settled = found[0]
        if digest.hex() != body.digest:
            raise NotBelieved("over other bytes than were sent")
        ids = split(raw_ids)
        if set(body.status) != {str(i) for i in ids}:
            raise NotBelieved("does not name the keys of its batch")
        return row_id, [] if settled else ids

    def _settle(self, recipient: str, body: KeyAckBody, row_id: int, ids: list[UUID]) -> None:
        taken = [i for i in ids if body.status[str(i)] == "imported"]
        refused = [i for i in ids if body.status[str(i)] != "imported"]
        # In case of a crash between queueing and marking them.
        self.store.mark_delivered(ids, UUID(body.batch_uuid))
        self.store.mark_acknowledged(taken)
        if refused:
            why = ", ".join(sorted({body.status[str(i)] for i in refused}))
            # A key that one recipient does not have must not be used at the other site.
            self.store.revoke(refused, f"refused by {recipient}: {why}")
        self._close(UUID(body.batch_uuid).bytes, row_id, SETTLED)
        if refused:
            self.audit("key.refused", {"recipient": recipient, "keys": len(refused), "why": why})

    def _close(self, uuid: bytes, row_id: int, how: int) -> None:
        with self.outbox.transaction() as db:
            self.outbox.delete(row_id)
            db.execute("UPDATE delivery_batch SET settled = ? WHERE batch_uuid = ?", (how, uuid))
            db.execute("DELETE FROM delivery_batch WHERE settled > 0 AND seq < ?", (self._last_seq() - SETTLED_KEPT,))


class NotBelieved(Exception):
    """An acknowledgement that changes nothing."""


Body = TypeVar("Body", KeyAckBody, KeyNoticeAckBody)


def believed(
    recipients: Mapping[str, RecipientPublic], recipient: str, payload: bytes, context: bytes, model: type[Body]
) -> Body:
    """What a recipient has signed for this use of its key. Raises NotBelieved."""
    to = recipients.get(recipient)
    if to is None:
        raise NotBelieved("not one of our recipients")
    if len(payload) > MAX_KEY_ACK_BYTES:
        raise NotBelieved("too large")
    try:
        ack = KeyAck.model_validate_json(payload)
        to.verifying.verify(ack.body.encode(), base64.b64decode(ack.signature, validate=True), context)
        body = model.model_validate_json(ack.body)
    except (ValidationError, ValueError):
        raise NotBelieved("malformed") from None
    except BadSignature as e:
        raise NotBelieved(str(e)) from None
    if body.recipient != recipient or body.recipient_kid != to.sealing.kid.hex():
        raise NotBelieved("names another recipient")
    return body


def split(ids: bytes) -> list[UUID]:
    return [UUID(bytes=ids[at : at + 16]) for at in range(0, len(ids), 16)]
