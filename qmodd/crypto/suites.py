"""Signatures, sealing and their keys: with `mac.py` the only place that calls a cryptographic library.

Signatures are Ed25519 || ML-DSA-65 and both must verify (reference security, envelope step 3). Sealing is HPKE-Base
with MLKEM768_X25519 (KEM id 0x647A), HKDF-SHA256 and AES-256-GCM.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from qmodd.secret_files import too_open

SIGNATURE_SUITE = "ed25519+mldsa65"
SEALING_SUITE = "hpke-base/mlkem768-x25519/hkdf-sha256/aes-256-gcm"

_ED_SIGNATURE, _ED_PUBLIC, _ED_PRIVATE = 64, 32, 32
_MLDSA_SIGNATURE, _MLDSA_PUBLIC, _MLDSA_SEED = 3309, 1952, 32
_MLKEM_PUBLIC, _MLKEM_SEED, _X_PUBLIC, _X_PRIVATE = 1184, 64, 32, 32
SIGNATURE_BYTES = _ED_SIGNATURE + _MLDSA_SIGNATURE
VERIFYING_KEY_BYTES = _ED_PUBLIC + _MLDSA_PUBLIC
SEALING_KEY_BYTES = _MLKEM_PUBLIC + _X_PUBLIC

_HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class BadSignature(Exception):
    """At least one of the two signatures does not verify."""


class CannotOpen(Exception):
    """The ciphertext was not sealed for this key with this info, or was changed."""


class BadKeyFile(Exception):
    """A key file is missing, open to others, or not what it should be; names the file."""


def _cut(data: bytes, *lengths: int) -> list[bytes]:
    if len(data) != sum(lengths):
        raise ValueError(f"{len(data)} bytes where {sum(lengths)} are expected")
    parts, at = [], 0
    for n in lengths:
        parts.append(data[at : at + n])
        at += n
    return parts


def key_id(public: bytes) -> bytes:
    """16 bytes that name a public key: the start of its SHA-256."""
    return hashlib.sha256(public).digest()[:16]


@dataclass(frozen=True)
class VerifyingKey:
    """Public half of a dual signing key."""

    _ed: Ed25519PublicKey
    _mldsa: MLDSA65PublicKey

    @classmethod
    def from_bytes(cls, data: bytes) -> VerifyingKey:
        """Raises ValueError when the length is wrong."""
        ed, mldsa = _cut(data, _ED_PUBLIC, _MLDSA_PUBLIC)
        return cls(Ed25519PublicKey.from_public_bytes(ed), MLDSA65PublicKey.from_public_bytes(mldsa))

    def to_bytes(self) -> bytes:
        return self._ed.public_bytes_raw() + self._mldsa.public_bytes_raw()

    @property
    def kid(self) -> bytes:
        return key_id(self.to_bytes())

    def verify(self, message: bytes, signature: bytes, context: bytes) -> None:
        """Raises BadSignature unless both halves verify; the context separates uses of one key."""
        if len(signature) != SIGNATURE_BYTES:
            raise BadSignature(f"{len(signature)} bytes where {SIGNATURE_BYTES} are expected")
        ed, mldsa = _cut(signature, _ED_SIGNATURE, _MLDSA_SIGNATURE)
        try:
            self._ed.verify(ed, message)
        except InvalidSignature:
            raise BadSignature("the Ed25519 signature does not verify") from None
        try:
            self._mldsa.verify(mldsa, message, context=context)
        except InvalidSignature:
            raise BadSignature("the ML-DSA-65 signature does not verify") from None


@dataclass(frozen=True)
class SigningKey:
    """Dual signing key; its private bytes leave it only through `to_bytes`."""

    _ed: Ed25519PrivateKey
    _mldsa: MLDSA65PrivateKey

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate(), MLDSA65PrivateKey.generate())

    @classmethod
    def from_bytes(cls, data: bytes) -> SigningKey:
        """Raises ValueError when the length is wrong."""
        ed, seed = _cut(data, _ED_PRIVATE, _MLDSA_SEED)
        return cls(Ed25519PrivateKey.from_private_bytes(ed), MLDSA65PrivateKey.from_seed_bytes(seed))

    def to_bytes(self) -> bytes:
        return self._ed.private_bytes_raw() + self._mldsa.private_bytes_raw()

    @property
    def public(self) -> VerifyingKey:
        return VerifyingKey(self._ed.public_key(), self._mldsa.public_key())

    def sign(self, message: bytes, context: bytes) -> bytes:
        return self._ed.sign(message) + self._mldsa.sign(message, context=context)

    def __repr__(self) -> str:
        return "SigningKey(...)"


@dataclass(frozen=True)
class SealingKey:
    """Public half of a recipient's HPKE key."""

    _mlkem: MLKEM768PublicKey
    _x25519: X25519PublicKey

    @classmethod
    def from_bytes(cls, data: bytes) -> SealingKey:
        """Raises ValueError when the length is wrong."""
        mlkem, x = _cut(data, _MLKEM_PUBLIC, _X_PUBLIC)
        return cls(MLKEM768PublicKey.from_public_bytes(mlkem), X25519PublicKey.from_public_bytes(x))

    def to_bytes(self) -> bytes:
        return self._mlkem.public_bytes_raw() + self._x25519.public_bytes_raw()

    @property
    def kid(self) -> bytes:
        return key_id(self.to_bytes())

    def seal(self, plaintext: bytes | bytearray, info: bytes) -> bytes:
        """HPKE-Base, single shot: encapsulated key || ciphertext."""
        return _HPKE.encrypt(plaintext, MLKEM768X25519PublicKey(self._mlkem, self._x25519), info=info)


@dataclass(frozen=True)
class OpeningKey:
    """A recipient's HPKE private key."""

    _mlkem: MLKEM768PrivateKey
    _x25519: X25519PrivateKey

    @classmethod
    def generate(cls) -> OpeningKey:
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, data: bytes) -> OpeningKey:
        """Raises ValueError when the length is wrong."""
        seed, x = _cut(data, _MLKEM_SEED, _X_PRIVATE)
        return cls(MLKEM768PrivateKey.from_seed_bytes(seed), X25519PrivateKey.from_private_bytes(x))

    def to_bytes(self) -> bytes:
        return self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()

    @property
    def public(self) -> SealingKey:
        return SealingKey(self._mlkem.public_key(), self._x25519.public_key())

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Raises CannotOpen."""
        try:
            return _HPKE.decrypt(sealed, MLKEM768X25519PrivateKey(self._mlkem, self._x25519), info=info)
        except InvalidTag:
            raise CannotOpen("not sealed for this key, or changed on the way") from None

    def __repr__(self) -> str:
        return "OpeningKey(...)"


def wipe(buffer: bytearray) -> None:
    """Overwrite in place."""
    buffer[:] = bytes(len(buffer))


def write_key_file(path: Path, kind: str, name: str, parts: dict[str, bytes], *, secret: bool) -> Path:
    """JSON file {kind, name, parts in base64}; mode 0600 from its first byte when secret, durable before it returns.

    Raises FileExistsError rather than overwrite a key.
    """
    content = {"kind": kind, "name": name, **{k: base64.b64encode(v).decode() for k, v in parts.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(fd, "w", encoding="utf-8") as f:
        json.dump(content, f, indent=1)
        f.flush()
        os.fsync(f.fileno())
    return path


def read_key_file(path: Path, kind: str, *parts: str, secret: bool) -> tuple[str, list[bytes]]:
    """Name and the named parts of a key file. Raises BadKeyFile; a secret one must not be open to group or others."""
    try:
        open_to = too_open(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise BadKeyFile(f"{path}: cannot be read: {e.strerror}") from None
    except ValueError:
        raise BadKeyFile(f"{path}: not a key file") from None
    if secret and open_to is not None:
        raise BadKeyFile(f"{path}: {open_to}")
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise BadKeyFile(f"{path}: not a {kind} file")
    try:
        return str(content["name"]), [base64.b64decode(content[p], validate=True) for p in parts]
    except (KeyError, ValueError, TypeError):
        raise BadKeyFile(f"{path}: damaged {kind} file") from None
