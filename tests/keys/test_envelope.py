"""The key delivery envelope."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd import cbor
from qmodd.crypto.suites import BadSignature, CannotOpen, OpeningKey, SigningKey
from qmodd.keys import envelope as e

SENDER = SigningKey.generate()
RECIPIENT = OpeningKey.generate()
IDS = [UUID(int=1), UUID(int=2)]
KEYS = [bytearray(b"a" * 32), bytearray(b"b" * 32)]


def header(**changes: Any) -> e.Header:
    fields: dict[str, Any] = {
        "sender_kid": SENDER.public.kid,
        "recipient_kid": RECIPIENT.public.kid,
        "epoch": "0" * 16,
        "seq": 1,
        "batch_uuid": UUID(int=9).bytes,
        "link_id": "link-1",
        "key_size": 256,
        "key_IDs": [i.bytes for i in IDS],
        "not_before": 100,
        "not_after": 200,
        "purge_by": 300,
        "provenance": [e.Provenance(round=3, protocol="bb84", eps_sec=1e-9, qber=0.01)],
    }
    return e.Header.model_validate({**fields, **changes})


def sealed() -> e.Envelope:
    return e.seal(header(), KEYS, SENDER, RECIPIENT.public)


def test_what_is_sealed_opens_at_the_recipient() -> None:
    sent = sealed()
    got = e.Envelope.from_bytes(sent.to_bytes())
    got.verify(SENDER.public)
    assert got.open(RECIPIENT) == KEYS
    assert got.header.ids == IDS
    assert got.header == sent.header
    assert KEYS[0] == b"a" * 32  # the caller's own copy is the caller's to wipe


def test_the_signed_message_is_put_together_as_documented() -> None:
    got = sealed()
    m = b"qmodd-kd-v1" + len(got.raw_header).to_bytes(4, "big") + got.raw_header + got.sealed
    assert got.signed == m
    assert got.digest == hashlib.sha256(m).digest()
    SENDER.public.verify(m, got.signature, b"qmodd-kd-v1")
    assert RECIPIENT.open(got.sealed, b"qmodd-kd-v1" + got.raw_header) == b"a" * 32 + b"b" * 32
    assert cbor.decode_deterministic(got.to_bytes()) == [got.raw_header, got.sealed, got.signature]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_bit_may_change(data: st.DataObject) -> None:
    raw = bytearray(sealed().to_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((e.EnvelopeError, BadSignature)):
        e.Envelope.from_bytes(bytes(raw)).verify(SENDER.public)


@settings(max_examples=100)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_by_form(data: bytes) -> None:
    with pytest.raises(e.EnvelopeError):
        e.Envelope.from_bytes(data)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"key_IDs": [IDS[0].bytes, IDS[0].bytes]}, "twice"),
        ({"not_after": 50}, "out of order"),
        ({"seq": 0}, "greater"),
        ({"key_size": 12}, "multiple"),
        ({"key_IDs": []}, "at least 1"),
        ({"v": 2}, "1"),
        ({"x": 1}, "Extra"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(changes: dict[str, Any], why: str) -> None:
    raw = cbor.encode({**header().model_dump(), **changes})
    with pytest.raises(e.EnvelopeError, match=why):
        e.Envelope.from_bytes(cbor.encode([raw, b"", b""]))


def test_a_key_length_that_is_not_the_header_s_is_refused_at_both_ends() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        e.seal(header(), [bytearray(16), bytearray(16)], SENDER, RECIPIENT.public)
    with pytest.raises(ValueError, match="does not fit"):
        e.seal(header(), KEYS[:1], SENDER, RECIPIENT.public)
    raw = cbor.encode(header().model_dump())
    wrong = e.Envelope(header(), raw, RECIPIENT.public.seal(b"short", b"qmodd-kd-v1" + raw), b"")
    with pytest.raises(e.EnvelopeError, match="5 key bytes where the header says 64"):
        wrong.open(RECIPIENT)


def test_another_recipient_cannot_open_it() -> None:
    with pytest.raises(CannotOpen):
        sealed().open(OpeningKey.generate())


def test_too_large_is_refused() -> None:
    with pytest.raises(e.EnvelopeError, match="at most"):
        e.Envelope.from_bytes(bytes(e.MAX_ENVELOPE_BYTES + 1))
