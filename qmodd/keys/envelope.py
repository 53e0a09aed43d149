"""The key delivery envelope `qmodd-kd-v1` (reference security): a batch of keys, sealed and signed.

hdr is deterministic CBOR; ct = HPKE-Base(key_1 || ... || key_n, info = LABEL || hdr);
M = LABEL || u32 len(hdr) || hdr || ct; signature = Ed25519(M) || ML-DSA-65(M, ctx LABEL). On the wire: deterministic
CBOR [hdr, ct, signature]. This hop is computationally secure, not information-theoretically.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qmodd import cbor
from qmodd.crypto.suites import SEALING_SUITE, OpeningKey, SealingKey, SigningKey, VerifyingKey, wipe

LABEL = b"qmodd-kd-v1"
SUITE = SEALING_SUITE
MAX_KEYS = 1024
MAX_ENVELOPE_BYTES = 1024 * 1024

Bytes16 = Annotated[bytes, Field(min_length=16, max_length=16)]
Unix = Annotated[int, Field(ge=0, le=0xFFFF_FFFF_FFFF)]
Text = Annotated[str, Field(max_length=128)]


class EnvelopeError(Exception):
    """Not an acceptable envelope; the message says what is wrong with its form."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Provenance(_Part):
    """Where the keys of a batch come from: the block and what it was paid with. QBER as a fraction."""

    round: Annotated[int, Field(ge=0, le=0x7FFF_FFFF_FFFF_FFFF)]
    protocol: Text
    eps_sec: float
    qber: float
    pa_seed_sha256: Annotated[bytes, Field(max_length=32)] = b""
    calibration_version: Text = ""
    firmware_sha256: Annotated[bytes, Field(max_length=32)] = b""
    audit_checkpoint: Text = ""


class Header(_Part):
    """Times are UTC seconds since 1970; `key_size` is in bits and a multiple of 8."""

    v: Literal[1] = 1
    suite: Text = SUITE
    sender_kid: Bytes16
    recipient_kid: Bytes16
    epoch: Text
    seq: Annotated[int, Field(ge=1, le=0xFFFF_FFFF_FFFF_FFFF)]
    batch_uuid: Bytes16
    link_id: Text
    key_size: Annotated[int, Field(ge=8, le=8192, multiple_of=8)]
    key_IDs: Annotated[list[Bytes16], Field(min_length=1, max_length=MAX_KEYS)]
    labels: Annotated[dict[Text, Text], Field(max_length=32)] = {}
    not_before: Unix
    not_after: Unix
    purge_by: Unix
    provenance: Annotated[list[Provenance], Field(max_length=MAX_KEYS)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(set(self.key_IDs)) != len(self.key_IDs):
            raise ValueError("a key id is there twice")
        if not self.not_before <= self.not_after <= self.purge_by:
            raise ValueError("not_before, not_after and purge_by are out of order")
        return self

    @property
    def ids(self) -> list[UUID]:
        return [UUID(bytes=b) for b in self.key_IDs]

    @property
    def uuid(self) -> UUID:
        return UUID(bytes=self.batch_uuid)


def unix(t: datetime) -> int:
    """Whole UTC seconds since 1970."""
    return int(t.timestamp())


@dataclass(frozen=True)
class Envelope:
    """Taken apart, form checked, nothing believed yet."""

    header: Header
    raw_header: bytes
    sealed: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """M, what the sender signs."""
        return _signed(self.raw_header, self.sealed)

    @property
    def digest(self) -> bytes:
        """SHA-256(M), 32 bytes, which an acknowledgement names."""
        return hashlib.sha256(self.signed).digest()

    def to_bytes(self) -> bytes:
        return cbor.encode([self.raw_header, self.sealed, self.signature])

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Raises EnvelopeError."""
        if len(data) > MAX_ENVELOPE_BYTES:
            raise EnvelopeError(f"{len(data)} bytes; at most {MAX_ENVELOPE_BYTES}")
        try:
            parts = cbor.decode_deterministic(data)
            if not isinstance(parts, list) or [type(p) for p in parts] != [bytes, bytes, bytes]:
                raise EnvelopeError("not a list of header, ciphertext and signature")
            raw, sealed, signature = parts
            return cls(Header.model_validate(cbor.decode_deterministic(raw)), raw, sealed, signature)
        except cbor.Malformed as e:
            raise EnvelopeError(str(e)) from None
        except ValidationError as e:
            first = e.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(str(p) for p in first["loc"])[:80]
            raise EnvelopeError(f"header {where}: {first['msg']}") from None

    def verify(self, sender: VerifyingKey) -> None:
        """Both signatures. Raises qmodd.crypto.suites.BadSignature."""
        sender.verify(self.signed, self.signature, LABEL)

    def open(self, recipient: OpeningKey) -> list[bytearray]:
        """The keys, in the order of `key_IDs`; the caller wipes them.

        Raises CannotOpen, or EnvelopeError when the length inside is not what the header says.
        """
        plain = bytearray(recipient.open(self.sealed, LABEL + self.raw_header))
        size = self.header.key_size // 8
        try:
            if len(plain) != size * len(self.header.key_IDs):
                raise EnvelopeError(f"{len(plain)} key bytes where the header says {size * len(self.header.key_IDs)}")
            return [plain[at : at + size] for at in range(0, len(plain), size)]
        finally:
            wipe(plain)


def seal(header: Header, keys: Sequence[bytes | bytearray], sender: SigningKey, recipient: SealingKey) -> Envelope:
    """Seal and sign; the caller's keys are left as they are, the copy made here is wiped.

    Raises ValueError when number or size of the keys is not the header's.
    """
    if len(keys) != len(header.key_IDs) or any(len(k) * 8 != header.key_size for k in keys):
        raise ValueError("number or size of the keys does not fit the header")
    raw = cbor.encode(header.model_dump())
    plain = bytearray().join(keys)
    try:
        sealed = recipient.seal(plain, LABEL + raw)
    finally:
        wipe(plain)
    return Envelope(header, raw, sealed, sender.sign(_signed(raw, sealed), LABEL))


def _signed(raw_header: bytes, sealed: bytes) -> bytes:
    return LABEL + len(raw_header).to_bytes(4, "big") + raw_header + sealed
