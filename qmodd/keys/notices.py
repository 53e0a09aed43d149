"""What recipients are told about keys that they hold: `usable` once both sites have them, `revoke` when they are given
up. A notice is a row of the outbox, sent again until the recipient's signed answer; only that answer counts.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from qmodd.clock import Clock
from qmodd.identity import KEY_NOTICE_ACK_CONTEXT, KEY_NOTICE_CONTEXT, RecipientPublic, Signer
from qmodd.keys.delivery import Audit, NotBelieved, believed, split
from qmodd.keys.handover_ledger import Notice
from qmodd.keys.store import KeyStore
from qmodd.messages import KeyNotice, KeyNoticeAck, KeyNoticeAckBody, KeyNoticeBody
from qmodd.outbox import Outbox
from qmodd.randomness import Randomness

Kind = Literal["usable", "revoke"]
SENT: Mapping[str, Notice] = {"usable": Notice.USABLE_SENT, "revoke": Notice.REVOKE_SENT}


@dataclass
class Notices:
    """Blocking, like delivery. `release` lets a queued row go."""

    store: KeyStore
    outbox: Outbox
    sender: Signer
    module: str
    recipients: Mapping[str, RecipientPublic]
    randomness: Randomness
    clock: Clock
    audit: Audit
    release: Callable[[int], object]

    def queue(self) -> int:
        """Queue what recipients have to be told, durably; how many keys that is about. After a crash in between the
        same may be told twice."""
        made: list[tuple[int, list[UUID], str]] = []
        for (recipient, kind), keys in self.store.ledger.unsaid(list(self.recipients)).items():
            ids = [i for i, _ in keys]
            why = "; ".join(sorted({w for _, w in keys if w}))[:500] if kind == "revoke" else ""
            made.append((self._put(recipient, "revoke" if kind == "revoke" else "usable", ids, why), ids, kind))
        if made:
            self.outbox.sync()
        for row_id, ids, kind in made:
            self.store.ledger.said(ids, SENT[kind])
            self.release(row_id)
        return sum(len(ids) for _, ids, _ in made)

    def open(self) -> int:
        """Notices without an answer."""
        return int(self.outbox.rows("SELECT COUNT(*) FROM delivery_notice")[0][0])

    def _put(self, recipient: str, kind: Kind, ids: Sequence[UUID], why: str) -> int:
        uuid = self.randomness.uuid()
        body = KeyNoticeBody(
            module=self.module,
            recipient=recipient,
            sender_kid=self.sender.key.public.kid.hex(),
            notice_uuid=str(uuid),
            kind=kind,
            key_ids=[str(i) for i in ids],
            why=why,
            issued_at=self.clock.utc(),
        ).model_dump_json()
        signature = self.sender.key.sign(body.encode(), KEY_NOTICE_CONTEXT)
        payload = KeyNotice(body=body, signature=base64.b64encode(signature).decode()).payload()
        with self.outbox.transaction() as db:
            row_id = self.outbox.put(f"keys/{recipient}/{kind}", payload, kind="key", dedupe=uuid, held=True)
            db.execute(
                "INSERT INTO delivery_notice (notice_uuid, recipient, kind, digest, key_ids, row) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(uuid.bytes, recipient, kind, hashlib.sha256(body.encode()).digest()),
                    *(b"".join(i.bytes for i in ids), row_id),
                ),
            )
        return row_id

    def on_ack(self, recipient: str, payload: bytes) -> None:
        """Believed when signed by that recipient, for a notice sent to it, over exactly those bytes."""
        try:
            body = believed(self.recipients, recipient, payload, KEY_NOTICE_ACK_CONTEXT, KeyNoticeAckBody)
            found = self._matched(recipient, body)
        except NotBelieved as e:
            self.audit("key.ack.refused", {"recipient": recipient[:64], "why": str(e)})
            return
        if found is not None:
            kind, row_id, ids = found
            self._usable(recipient, body, ids) if kind == "usable" else self._revoked(recipient, body, ids)
            self._settle(UUID(body.notice_uuid).bytes, row_id)

    def _matched(self, recipient: str, body: KeyNoticeAckBody) -> tuple[str, int, list[UUID]] | None:
        """Kind, row and keys of the notice; None when it was answered before."""
        found = self.outbox.rows(
            "SELECT kind, row, key_ids, digest FROM delivery_notice WHERE notice_uuid = ? AND recipient = ?",
            UUID(body.notice_uuid).bytes,
            recipient,
        )
        if not found:
            return None
        kind, row_id, raw_ids, digest = found[0]
        if digest.hex() != body.digest:
            raise NotBelieved("over other bytes than were sent")
        ids = split(raw_ids)
        if set(body.status) != {str(i) for i in ids}:
            raise NotBelieved("does not name the keys of its notice")
        if kind == "revoke" and "usable" in body.status.values():
            raise NotBelieved("calls a key usable that it was told to revoke")
        return kind, row_id, ids

    def _usable(self, recipient: str, body: KeyNoticeAckBody, ids: Sequence[UUID]) -> None:
        usable = [i for i in ids if body.status[str(i)] == "usable"]
        lost = [i for i in ids if body.status[str(i)] != "usable"]
        now = self.store.now()
        with self.store.database.transaction() as db:
            new = self.store.ledger.confirmed_usable(db, usable, now)
            self.store.happenings.told(db, "key.usable", self.store.found(db, new), "", now)
        if lost:
            why = ", ".join(sorted({body.status[str(i)] for i in lost}))
            self.store.revoke(lost, f"{recipient} does not have it: {why}")

    def _revoked(self, recipient: str, body: KeyNoticeAckBody, ids: Sequence[UUID]) -> None:
        with self.store.database.transaction() as db:
            new = self.store.ledger.confirmed_revoked(db, ids)
            if new:
                self.store.happenings.add(db, "key.revocation.confirmed", {"recipient": recipient, "keys": len(new)})
            self.store.completed(db, new)

    def _settle(self, uuid: bytes, row_id: int) -> None:
        with self.outbox.transaction() as db:
            self.outbox.delete(row_id)
            db.execute("DELETE FROM delivery_notice WHERE notice_uuid = ?", (uuid,))


def is_notice_ack(payload: bytes) -> bool:
    """Tells the answer to a notice from that to a batch, without believing either."""
    try:
        return "notice_uuid" in json.loads(KeyNoticeAck.model_validate_json(payload).body)
    except (ValueError, TypeError, RecursionError):
        return False
