"""Symmetric primitives: one-time authenticators, keyed hashes, key derivation and authenticated encryption at rest.

Together with `suites.py` the only place that calls a cryptographic library.
"""

from __future__ import annotations

import hashlib
import hmac
from math import ceil

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.poly1305 import Poly1305

Secret = bytes | bytearray

ONE_TIME_KEY_BYTES = 32
ONE_TIME_TAG_BYTES = 16
_NONCE_BYTES = 12


class WrongTag(Exception):
    """A ciphertext or its associated data was changed, or the key is another one."""


def one_time_tag(key: Secret, parts: list[bytes]) -> bytes:
    """Poly1305 of the concatenated parts under a 32-byte key that must never be used again. 16 bytes."""
    mac = Poly1305(bytes(key))
    for part in parts:
        mac.update(part)
    return mac.finalize()


def one_time_tag_ok(key: Secret, parts: list[bytes], tag: bytes) -> bool:
    """Constant-time comparison of the tag."""
    mac = Poly1305(bytes(key))
    for part in parts:
        mac.update(part)
    try:
        mac.verify(tag)
    except InvalidSignature:
        return False
    return True


def forgery_bound(message_bytes: int) -> float:
    """Probability that any forgery against one Poly1305 tag succeeds: 8 ceil(L/16) / 2^106 (reference keys)."""
    return 8.0 * ceil(max(1, message_bytes) / 16) / 2.0**106


def keyed_hash(key: Secret, *parts: bytes, length: int = 16) -> bytes:
    """Truncated HMAC-SHA256."""
    mac = hmac.new(bytes(key), digestmod=hashlib.sha256)
    for part in parts:
        mac.update(part)
    return mac.digest()[:length]


def equal(a: Secret, b: Secret) -> bool:
    """Constant-time comparison."""
    return hmac.compare_digest(bytes(a), bytes(b))


def derive(secret: Secret, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(bytes(secret))


def digest(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def seal(key: Secret, nonce: bytes, plaintext: Secret, associated: bytes) -> bytes:
    """AES-256-GCM: nonce || ciphertext || tag. `nonce` is 12 bytes, never twice under one key."""
    if len(nonce) != _NONCE_BYTES:
        raise ValueError(f"nonce of {len(nonce)} bytes, must be {_NONCE_BYTES}")
    return nonce + AESGCM(bytes(key)).encrypt(nonce, bytes(plaintext), associated)


class Sealer:
    """`seal` for many plaintexts under one key, which it keeps as long as it lives."""

    def __init__(self, key: Secret) -> None:
        self._cipher = AESGCM(bytes(key))

    def seal(self, nonce: bytes, plaintext: Secret | memoryview, associated: bytes) -> bytes:
        if len(nonce) != _NONCE_BYTES:
            raise ValueError(f"nonce of {len(nonce)} bytes, must be {_NONCE_BYTES}")
        return nonce + self._cipher.encrypt(nonce, plaintext, associated)


def unseal(key: Secret, sealed: bytes, associated: bytes) -> bytearray:
    """The plaintext, to be wiped by the caller. Raises WrongTag."""
    try:
        return bytearray(AESGCM(bytes(key)).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated))
    except (InvalidTag, ValueError):
        raise WrongTag("sealed data were changed, or sealed under another key or state") from None


def wipe(buffer: bytearray) -> None:
    """Overwrite in place with zeros."""
    buffer[:] = bytes(len(buffer))
