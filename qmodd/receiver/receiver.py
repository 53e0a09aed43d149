"""One recipient without MQTT: bytes that come in, signed acknowledgements that go out."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from pydantic import ValidationError

from qmodd.clock import Clock
from qmodd.crypto.suites import BadSignature, CannotOpen, VerifyingKey, wipe
from qmodd.identity import KEY_ACK_CONTEXT, KEY_NOTICE_ACK_CONTEXT, KEY_NOTICE_CONTEXT, Recipient
from qmodd.keys.envelope import SUITE, Envelope, EnvelopeError, Header, unix
from qmodd.messages import (
    KeyAck,
    KeyAckBody,
    KeyNotice,
    KeyNoticeAck,
    KeyNoticeAckBody,
    KeyNoticeBody,
    KeyStatus,
    NoticeStatus,
)
from qmodd.randomness import Randomness, SystemRandomness
from qmodd.receiver.arrivals import Arrivals
from qmodd.receiver.handing import HandOut
from qmodd.receiver.reading import digests
from qmodd.receiver.table import WITH_BYTES, KeyTable

MAX_NOTICE_BYTES = 131_072
# Revoked keys that somebody had already, by whom: (notice, ids). Durable before the notice is acknowledged.
OnRevoked = Callable[[UUID, Sequence[UUID]], None]


class NotBelieved(Exception):
    """Bytes that are not of a known sender, or not for us: not acknowledged, nothing kept."""


@dataclass
class Receiver:
    """`senders` are the public keys of the modules it believes, by serial number. Everything blocks for the disk.

    `store_key` None: a key of its own in the store's directory, made at the first start.
    """

    store: Path
    identity: Recipient
    senders: Mapping[str, VerifyingKey]
    clock: Clock
    store_key: Path | None = None
    randomness: Randomness = field(default_factory=SystemRandomness)
    counts: Counter[str] = field(default_factory=Counter)
    on_revoked: OnRevoked | None = None

    def __post_init__(self) -> None:
        self._by_kid = {key.kid: key for key in self.senders.values()}
        self._serials = {key.kid: serial for serial, key in self.senders.items()}
        self.table = KeyTable(self.store, self.store_key, self.randomness)
        self.arrivals = Arrivals(self.table)
        self.hand_out = HandOut(self.table, self.clock)

    def close(self) -> None:
        self.table.close()

    def handle(self, suffix: str, payload: bytes) -> bytes:
        """What came on `keys/<recipient>/<suffix>` (a batch without) -> the signed acknowledgement.

        Raises NotBelieved.
        """
        return self.process(payload) if not suffix else self.notice(payload, suffix)

    # --- batches ---

    def process(self, data: bytes) -> bytes:
        """An envelope's bytes -> the signed acknowledgement (a KeyAck payload). Raises NotBelieved.

        Order after reference security: signatures; a known batch gets its first acknowledgement again; recipient,
        suite, expiry, window; open; import; commit; acknowledge. Durable when it returns.
        """
        envelope = self._believed(data)
        if (known := self.arrivals.known_ack(envelope.header)) is not None:
            self.counts["repeated"] += 1
            return known
        with self.table.transaction():
            status, wrapped = self._import(envelope)
            ack = self._acknowledge(envelope, status)
            self.arrivals.keep_ack(envelope.header, ack, wrapped)
        self.counts.update(status.values())
        return ack

    def _believed(self, data: bytes) -> Envelope:
        try:
            envelope = Envelope.from_bytes(data)
        except EnvelopeError as e:
            raise NotBelieved(f"malformed: {e}") from None
        sender = self._by_kid.get(envelope.header.sender_kid)
        if sender is None:
            raise NotBelieved("from an unknown sender")
        try:
            envelope.verify(sender)
        except BadSignature as e:
            raise NotBelieved(str(e)) from None
        return envelope

    def _import(self, envelope: Envelope) -> tuple[dict[str, KeyStatus], bytes | None]:
        header = envelope.header
        refused = self._refused(header)
        if refused is None and not self.arrivals.in_window(header):
            refused = "replayed"
        if refused is not None:
            return dict.fromkeys(map(str, header.ids), refused), None
        try:
            keys = envelope.open(self.identity.opening)
        except CannotOpen:
            return dict.fromkeys(map(str, header.ids), "cannot_open"), None
        except EnvelopeError:
            return dict.fromkeys(map(str, header.ids), "wrong_key_size"), None
        try:
            return self.arrivals.add(header, keys)
        finally:
            for key in keys:
                wipe(key)

    def _refused(self, header: Header) -> KeyStatus | None:
        if header.recipient_kid != self.identity.opening.public.kid:
            return "wrong_recipient"
        if header.suite != SUITE:
            return "wrong_suite"
        # A lifetime is never judged by a clock that is not synchronised.
        if self.clock.utc_synchronised() and unix(self.clock.utc()) > header.not_after:
            return "expired"
        return None

    def _acknowledge(self, envelope: Envelope, status: dict[str, KeyStatus]) -> bytes:
        body = KeyAckBody(
            recipient=self.identity.name,
            recipient_kid=self.identity.opening.public.kid.hex(),
            batch_uuid=str(envelope.header.uuid),
            digest=envelope.digest.hex(),
            status=status,
        ).model_dump_json()
        signature = self.identity.signing.sign(body.encode(), KEY_ACK_CONTEXT)
        return KeyAck(body=body, signature=base64.b64encode(signature).decode()).payload()

    # --- notices ---

    def notice(self, payload: bytes, kind: str | None = None) -> bytes:
        """A notice's bytes -> the signed acknowledgement (a KeyNoticeAck payload). Raises NotBelieved.

        `kind` None: either. May be repeated; what was revoked stays revoked. Durable when it returns.
        """
        raw, body = self._believed_notice(payload)
        if kind not in (None, body.kind):
            raise NotBelieved(f"a notice of the kind {body.kind} on the topic of {kind}")
        sender_kid, ids = bytes.fromhex(body.sender_kid), [UUID(i) for i in body.key_ids]
        with self.table.transaction():
            if body.kind == "usable":
                status = self._make_usable(sender_kid, ids)
            else:
                status = self._revoke(sender_kid, UUID(body.notice_uuid), ids)
        self.counts.update(status.values())
        return self._acknowledge_notice(raw, body, status)

    def _believed_notice(self, payload: bytes) -> tuple[bytes, KeyNoticeBody]:
        if len(payload) > MAX_NOTICE_BYTES:
            raise NotBelieved(f"malformed: {len(payload)} bytes; at most {MAX_NOTICE_BYTES}")
        try:
            notice = KeyNotice.model_validate_json(payload)
            raw = notice.body.encode()
            body = KeyNoticeBody.model_validate_json(raw)
            signature = base64.b64decode(notice.signature, validate=True)
        except (ValidationError, binascii.Error, UnicodeError):
            raise NotBelieved("malformed: not a notice about keys") from None
        sender = self._by_kid.get(bytes.fromhex(body.sender_kid))
        if sender is None:
            raise NotBelieved("from an unknown sender")
        try:
            sender.verify(raw, signature, KEY_NOTICE_CONTEXT)
        except BadSignature as e:
            raise NotBelieved(str(e)) from None
        if body.module != self._serials[sender.kid]:
            raise NotBelieved("names another module than the one that signed it")
        if body.recipient != self.identity.name:
            raise NotBelieved("for another recipient")
        return raw, body

    def _make_usable(self, sender_kid: bytes, ids: Sequence[UUID]) -> dict[str, NoticeStatus]:
        now = unix(self.clock.utc()) if self.clock.utc_synchronised() else None
        return {str(i): self.arrivals.make_usable(sender_kid, i, now) for i in ids}

    def _revoke(self, sender_kid: bytes, notice: UUID, ids: Sequence[UUID]) -> dict[str, NoticeStatus]:
        had = [i for i in ids if self.arrivals.revoke(sender_kid, i) is not None]
        if had and self.on_revoked is not None:
            self.on_revoked(notice, had)
        self.counts["revoked_after_hand_out"] += len(had)
        return dict.fromkeys(map(str, ids), "revoked")

    def _acknowledge_notice(self, raw: bytes, body: KeyNoticeBody, status: dict[str, NoticeStatus]) -> bytes:
        answer = KeyNoticeAckBody(
            recipient=self.identity.name,
            recipient_kid=self.identity.opening.public.kid.hex(),
            notice_uuid=body.notice_uuid,
            digest=hashlib.sha256(raw).hexdigest(),
            status=status,
        ).model_dump_json()
        signature = self.identity.signing.sign(answer.encode(), KEY_NOTICE_ACK_CONTEXT)
        return KeyNoticeAck(body=answer, signature=base64.b64encode(signature).decode()).payload()

    # --- the rest ---

    def sweep(self) -> dict[str, int]:
        """Expire and purge what is due, if the clock is one to judge by."""
        if not self.clock.utc_synchronised():
            return {}
        done = self.arrivals.sweep(self.clock.utc().timestamp())
        self.counts.update(done)
        return done

    def digests(self, states: Sequence[str] | None = None) -> dict[str, str]:
        """SHA-256 (hex) by key id of the keys whose bytes are here, in the given states."""
        return digests(self.table, WITH_BYTES if states is None else states)
