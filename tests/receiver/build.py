"""A module's side for tests of the receiver: envelopes and notices, signed as a module signs them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from qmodd.crypto.suites import OpeningKey, SigningKey
from qmodd.identity import KEY_ACK_CONTEXT, KEY_NOTICE_ACK_CONTEXT, KEY_NOTICE_CONTEXT, Recipient, Signer
from qmodd.keys import envelope as e
from qmodd.messages import KeyAck, KeyAckBody, KeyNotice, KeyNoticeAck, KeyNoticeAckBody, KeyNoticeBody
from qmodd.receive import Receiver
from tests.uplink_fakes import START, HandClock

SERIAL, OTHER_SERIAL = "QM-A-0001", "QM-B-0001"
ALICE, OTHER = Signer(SERIAL, SigningKey.generate()), Signer(OTHER_SERIAL, SigningKey.generate())
KMS = Recipient("kms", OpeningKey.generate(), SigningKey.generate())
SENDERS = {SERIAL: ALICE.key.public, OTHER_SERIAL: OTHER.key.public}
NOW = e.unix(START)
LIFETIME_S, KEEP_S = 100, 200


def key_of(n: int) -> bytes:
    """The bytes of key number n, 32 of them, found nowhere else by accident."""
    return f"this is the secret key no {n:06d}".encode()[-32:].rjust(32, b"#")


def envelope(
    seq: int, keys: dict[int, bytes], *, sender: Signer = ALICE, to: Recipient = KMS, **changes: object
) -> bytes:
    """Of keys by number; `changes` go into the header."""
    fields: dict[str, object] = {
        "sender_kid": sender.key.public.kid,
        "recipient_kid": to.opening.public.kid,
        "epoch": "0" * 16,
        "seq": seq,
        "batch_uuid": UUID(int=1000 + seq).bytes,
        "link_id": "link-1",
        "key_size": 8 * len(next(iter(keys.values()))),
        "key_IDs": [UUID(int=i).bytes for i in keys],
        "not_before": NOW,
        "not_after": NOW + LIFETIME_S,
        "purge_by": NOW + KEEP_S,
        "provenance": [],
    }
    header = e.Header.model_validate({**fields, **changes})
    return e.seal(header, list(keys.values()), sender.key, to.opening.public).to_bytes()


def batch(seq: int, *numbers: int, **changes: object) -> bytes:
    return envelope(seq, {n: key_of(n) for n in numbers}, **changes)  # type: ignore[arg-type]


def notice(kind: str, numbers: Sequence[int | UUID], n: int = 1, *, sender: Signer = ALICE, **changes: object) -> bytes:
    """A signed notice number n about keys by number or id; `changes` go into its body."""
    fields: dict[str, object] = {
        "module": sender.name,
        "recipient": "kms",
        "sender_kid": sender.key.public.kid.hex(),
        "notice_uuid": str(UUID(int=n)),
        "kind": kind,
        "key_ids": [str(i if isinstance(i, UUID) else UUID(int=i)) for i in numbers],
        "issued_at": START,
    }
    body = KeyNoticeBody.model_validate({**fields, **changes}).model_dump_json()
    signature = sender.key.sign(body.encode(), KEY_NOTICE_CONTEXT)
    return KeyNotice(body=body, signature=base64.b64encode(signature).decode()).payload()


def status(ack: bytes, to: Recipient = KMS) -> list[str]:
    """Per-key results of a batch's acknowledgement, its signature checked."""
    message = KeyAck.model_validate_json(ack)
    to.public.verifying.verify(message.body.encode(), base64.b64decode(message.signature), KEY_ACK_CONTEXT)
    return list(KeyAckBody.model_validate_json(message.body).status.values())


def answer(ack: bytes, to: Recipient = KMS) -> KeyNoticeAckBody:
    """Of a notice's acknowledgement, its signature checked."""
    message = KeyNoticeAck.model_validate_json(ack)
    to.public.verifying.verify(message.body.encode(), base64.b64decode(message.signature), KEY_NOTICE_ACK_CONTEXT)
    return KeyNoticeAckBody.model_validate_json(message.body)


def said(ack: bytes) -> list[str]:
    return list(answer(ack).status.values())


def receiver_in(directory: Path, clock: HandClock | None = None) -> Receiver:
    return Receiver(directory, KMS, SENDERS, clock or HandClock())
