"""Signatures, the hybrid key encapsulation and sealing against implementations that share no code with the library.

ML-KEM-768 and ML-DSA-65 are kyber-py's and dilithium-py's; X-Wing (0x647A) and HPKE-Base (RFC 9180) are written out.
"""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from dilithium_py.ml_dsa import ML_DSA_65
from kyber_py.ml_kem import ML_KEM_768

from qmodd.crypto.suites import OpeningKey, SigningKey

KEM_ID, KDF_ID, AEAD_ID = 0x647A, 0x0001, 0x0002
CIPHERTEXT = 1088 + 32
XWING_LABEL = b"\\.//^\\"
SUITE = b"HPKE" + b"".join(i.to_bytes(2, "big") for i in (KEM_ID, KDF_ID, AEAD_ID))


def _extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.new(salt or bytes(32), b"HPKE-v1" + SUITE + label + ikm, hashlib.sha256).digest()


def _expand(prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + info
    out = block = b""
    for i in range(1, -(-length // 32) + 1):
        block = hmac.new(prk, block + labeled + bytes([i]), hashlib.sha256).digest()
        out += block
    return out[:length]


def _opened(private: bytes, sealed: bytes, info: bytes) -> bytes:
    """`private`: ML-KEM's seed (64 bytes) and X25519's scalar."""
    encapsulated, ciphertext = sealed[:CIPHERTEXT], sealed[CIPHERTEXT:]
    _, dk = ML_KEM_768.key_derive(private[:64])
    x = X25519PrivateKey.from_private_bytes(private[64:])
    ss_m = ML_KEM_768.decaps(dk, encapsulated[:1088])
    ss_x = x.exchange(X25519PublicKey.from_public_bytes(encapsulated[1088:]))
    shared = hashlib.sha3_256(
        ss_m + ss_x + encapsulated[1088:] + x.public_key().public_bytes_raw() + XWING_LABEL
    ).digest()
    context = b"\0" + _extract(b"", b"psk_id_hash", b"") + _extract(b"", b"info_hash", info)
    secret = _extract(shared, b"secret", b"")
    key, nonce = _expand(secret, b"key", context, 32), _expand(secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


def test_what_is_sealed_opens_by_the_standards_alone() -> None:
    key = OpeningKey.generate()
    sealed = key.public.seal(b"thirty-two bytes of a secret key", b"qmodd-kd-v1 header")
    assert _opened(key.to_bytes(), sealed, b"qmodd-kd-v1 header") == b"thirty-two bytes of a secret key"
    with pytest.raises(InvalidTag):
        _opened(key.to_bytes(), sealed, b"another header")


def test_public_keys_follow_from_the_seeds_alike() -> None:
    key = OpeningKey.generate()
    ek, _ = ML_KEM_768.key_derive(key.to_bytes()[:64])
    assert key.public.to_bytes()[: len(ek)] == ek
    signing = SigningKey.generate()
    pk, _ = ML_DSA_65.key_derive(signing.to_bytes()[32:])
    assert signing.public.to_bytes()[32:] == pk


def test_signatures_verify_both_ways() -> None:
    key = SigningKey.generate()
    signature = key.sign(b"a message", b"qmodd-kd-v1")
    pk, sk = ML_DSA_65.key_derive(key.to_bytes()[32:])
    assert ML_DSA_65.verify(pk, b"a message", signature[64:], ctx=b"qmodd-kd-v1")
    assert not ML_DSA_65.verify(pk, b"a message", signature[64:], ctx=b"another use")
    theirs = ML_DSA_65.sign(sk, b"a message", ctx=b"qmodd-kd-v1")
    key.public.verify(b"a message", signature[:64] + theirs, b"qmodd-kd-v1")
