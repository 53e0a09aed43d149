"""Known answers of the cryptography that keys rest on, through the very functions that the daemon calls.

Published vectors where there are: FIPS 180-4, RFC 4231, 5869, 8439, 8032 and 9881, the GCM specification, and for the
hybrid key encapsulation the X-Wing draft (draft-connolly-cfrg-xwing-kem, appendix C), whose secret goes through RFC
9180's key schedule. For what is the project's own (Toeplitz hash, verification polynomial) answers that were computed
from their definitions, bit by bit. ML-DSA signatures are randomised: there a signature must verify, and a changed one
must not.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from qmodd.crypto import mac
from qmodd.crypto.suites import BadSignature, CannotOpen, OpeningKey, SigningKey
from qmodd.keys.amplification import amplify, seed_bytes
from qmodd.keys.verification import verification_tag
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level
from qmodd.selftest.power_on_common import YES

_h = bytes.fromhex
# X-Wing, first vector: seed, ciphertext; its secret under RFC 9180 (KEM 0x647A, KDF 1, AEAD 2) with the info below.
XWING_SEED = _h("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
XWING_PUBLIC_SHA256 = _h("2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb")
XWING_CIPHERTEXT = base64.b64decode(
    "uDqoKNTWK5qDzv/h09O7HvMSZGQ8BwxXmJJ+QfsHkUonP4+W54Js1TdaKD19qIUwTF3gUWoPBlQkPcW5f4v+uDH2glEhmqvdcjvGUSBBrLrvivRC"
    "ZVJJQrkC5o/9IyIc2nCxtV13apLRFD6joMR19j7miQFXxxFtrj9iv3L2Cs0ruMwxziug3jZPUrjtOMedcZcVljpd04QtjotDq3BOR1m1MnvwJ8Y8"
    "j6hXxJCNWop7iKx/K+OU2Tw3Bt3U5pjMbONwEB9NAhMlQji0ouiCG25BShzyD2wSRLaZBG9aAcqgoaVVFjALQNIEjHfMc6+6ea/uqdLAEYvfKtuI"
    "cNwyjFUWzEWxogWBQQOeLJChEKnhazGN+1O9SaEm1rc/IVeHUXuJF8wByr0QfQaFmFTui0+YYcIm03ZMhzOasWw2Z9L0k4TlVFbdQEFLcKavhBWF"
    "9MkMaHJdV3BO6O585uL5vlgtvumF4Dj/w0br+04iFYtshDdKmrSkTh+R3lqsUZf4m8XlRC9R+aWTexAro76uv24cWDgKSl/tzkpOUCb4j1KPWf/S"
    "20F1Kzo9kO+r5GOJm31AhwxTDIhB6HErczZo7QM62/r7LUnTekTUBk5YY+sK8KCNR7PMiINzvAX3ozuEG8JYfFfraVVOijdnt1BpF7a3BJhyfxbq"
    "waNuyNjPr3UVSfInfbJ36KVamlEGsjoCBrRyH6mzBIVSxb1bWU1uJH84wYxZGup/ViSccs57EXr8w6hiFYL5z3F4fhg97gk2eXbphAmtkhekl9+I"
    "gEI4TXcHprePX3+4QJ47U1F1NzRht3YALXmcutYoYL5wVz7L4Tskbg2n6TpSFo4Ptql1a4le9/AUeg3IG/pkSwiKkigWDA+azxN5opQc0owG68gO"
    "ROF6ovgXcBCv14qXzgho0WKeuylMUVGBLFg9rriGhSIPTakRgRLgcEH8wk1VZKmf294ohp/gciOH16mk0W4cyFVZF+CZRKpeuqrsLPYmk6+tQqP1"
    "GPzmfSc8xsn7VHKzgOhXPsfeBqO6L9X5MdcltJMCbLCsvT/mLQDkx5DZZdegOjwLQiK6jCqaFuKsZY9XKuDnRur8T+ugI1dvCJQieKBB+4KnClld"
    "W6y/KXziApiYpx5cOw0cYii0hbGt5QmzX7yn7Kl7ITLny2vEZTdRRrfc6slpMIrAwqyJ54Y+uJQwFbJDFMr7nHwOhf5UPVZljCE2Mlme+r/B7End"
    "jIhUe7LMQMnTjL0wmbRUeEBWBTHQGIzR6cI6Dr7goD1Vd9ZrHSvLS6ryHMf+8eA4BsqWKZ3w37xW4bK0Pk/CDDf4NMSvYhJ+fa6Gw8JaL2lqyLWJ"
    "3scdWVv76Ute1LwH2ACzMHlv2ontt3vgKUE2E5NU64zTdZFXj5xgDdm+jsYhn91Qet8zl+1NaHB7jROyTOTNj7IoUb/p1jJAfzHtb3yxYA3lbxdX"
    "Z0DOKjL8UUUDAUXPuX5j4OQdNUJ0oHnT5vsuFQ=="
)
HPKE_INFO = b"qmodd known answer"
HPKE_BOX, HPKE_PLAIN = _h("6ec9648ad28f9e9c785558bb4c8282a074e2ef"), b"abc"
GCM_KEY = _h("feffe9928665731c6d6a8f9467308308") * 2
GCM_NONCE = _h("cafebabefacedbaddecaf888")
GCM_PLAIN = _h(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
GCM_ASSOCIATED = _h("feedfacedeadbeeffeedfacedeadbeefabaddad2")
GCM_BOX = _h(
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
)
ED_SEED = _h("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
ED_PUBLIC = _h("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
ED_SIGNATURE = _h(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
    "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)
# RFC 9881, appendix: the seed 00 01 ... 1f; first and last 32 bytes of the public key.
MLDSA_SEED = bytes(range(32))
MLDSA_PUBLIC_ENDS = (
    _h("48683d91978e31eb3dddb8b0473482d2b88a5f625949fd8f58a561e696bd4c27"),
    _h("ad18bd13fca55059dd9b185f79f9c47196a4e81b2104bc460a051e02f2e8444f"),
)
BLOCK_BITS, OUT_BITS = 3000, 700
TOEPLITZ_SHA256 = _h("d9e130bfd3e81497e038858d275c68bd301b85bcc9fd24b603be0314de6bd070")
POLYNOMIAL_TAG = _h("ce294b82330fa554e6da07c58fed3524")


def sha256() -> bool:
    """FIPS 180-4."""
    return mac.digest(b"abc") == _h("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def hmac_sha256() -> bool:
    """RFC 4231, case 2, truncated as the session filter truncates it; and a part more is another tag."""
    tag = mac.keyed_hash(b"Jefe", b"what do ya want ", b"for nothing?", length=32)
    right = tag == _h("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    return right and mac.equal(tag, tag) and not mac.equal(tag, tag[:31] + b"\0")


def hkdf_sha256() -> bool:
    """RFC 5869, case 1."""
    out = mac.derive(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    return out == _h("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


def poly1305() -> bool:
    """RFC 8439, 2.5.2: the one-time authenticator of a block's transcript, in two parts; a changed one is refused."""
    key = _h("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    parts = [b"Cryptographic Forum ", b"Research Group"]
    tag = mac.one_time_tag(key, parts)
    right = tag == _h("a8061dc1305136c6c22b8baf0c0127a9") and mac.one_time_tag_ok(key, parts, tag)
    return right and not mac.one_time_tag_ok(key, parts, tag[:15] + bytes([tag[15] ^ 1]))


def aes_gcm() -> bool:
    """The GCM specification, test case 16; a changed ciphertext is refused."""
    sealed = mac.seal(GCM_KEY, GCM_NONCE, GCM_PLAIN, GCM_ASSOCIATED)
    right = sealed == GCM_NONCE + GCM_BOX and mac.unseal(GCM_KEY, sealed, GCM_ASSOCIATED) == GCM_PLAIN
    try:
        mac.unseal(GCM_KEY, sealed[:-1] + bytes([sealed[-1] ^ 1]), GCM_ASSOCIATED)
    except mac.WrongTag:
        return right
    return False


def signing_key() -> bool:
    """RFC 8032, 7.1, test 1, and RFC 9881: public keys of both halves from their seeds."""
    public = SigningKey.from_bytes(ED_SEED + MLDSA_SEED).public.to_bytes()
    ends = (public[32:64], public[-32:])
    return public[:32] == ED_PUBLIC and ends == MLDSA_PUBLIC_ENDS


def signature() -> bool:
    """RFC 8032, 7.1, test 1, and a signature of both halves that verifies; with either half changed it does not."""
    key = SigningKey.from_bytes(ED_SEED + MLDSA_SEED)
    made = key.sign(b"", b"")
    key.public.verify(b"", made, b"")
    return made[:64] == ED_SIGNATURE and all(_refused(key, made, at) for at in (0, 64, len(made) - 1))


def _refused(key: SigningKey, made: bytes, at: int) -> bool:
    changed = made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :]
    try:
        key.public.verify(b"", changed, b"")
    except BadSignature:
        return True
    return False


def sealing_key() -> bool:
    """X-Wing: both public keys (ML-KEM-768, X25519) from the vector's seed."""
    return hashlib.sha256(_opening_key().public.to_bytes()).digest() == XWING_PUBLIC_SHA256


def sealing() -> bool:
    """X-Wing's ciphertext gives the secret that opens the box; another box or another info does not open."""
    key = _opening_key()
    if key.open(XWING_CIPHERTEXT + HPKE_BOX, HPKE_INFO) != HPKE_PLAIN:
        return False
    fresh = key.open(key.public.seal(HPKE_PLAIN, HPKE_INFO), HPKE_INFO)
    return fresh == HPKE_PLAIN and _closed(key, HPKE_BOX[::-1], HPKE_INFO) and _closed(key, HPKE_BOX, b"another")


def _opening_key() -> OpeningKey:
    return OpeningKey.from_bytes(hashlib.shake_256(XWING_SEED).digest(96))


def _closed(key: OpeningKey, box: bytes, info: bytes) -> bool:
    try:
        key.open(XWING_CIPHERTEXT + box, info)
    except CannotOpen:
        return True
    return False


def block() -> npt.NDArray[np.uint8]:
    """Bits of the block that both hashes below are of."""
    data = np.frombuffer(hashlib.shake_256(b"qmodd toeplitz block").digest(BLOCK_BITS // 8), np.uint8)
    return np.unpackbits(data, count=BLOCK_BITS)


def toeplitz() -> bool:
    """Privacy amplification of 3000 to 700 bits, the way that needs no compiler.

    Compiled ones belong to the worker, which compares them with products of its own before it uses them; here they
    would hold up every loop.
    """
    seed = hashlib.shake_256(b"qmodd toeplitz seed").digest(seed_bytes(BLOCK_BITS, OUT_BITS))
    out = np.packbits(amplify(block(), seed, OUT_BITS, by="floating")).tobytes()
    return hashlib.sha256(out).digest() == TOEPLITZ_SHA256


def polynomial() -> bool:
    """Tag of a corrected block, and another one for a block that differs in one bit."""
    key, bits = hashlib.shake_256(b"qmodd verification key").digest(16), block()
    right = verification_tag(key, bits) == POLYNOMIAL_TAG
    bits[17] ^= 1
    return right and verification_tag(key, bits) != POLYNOMIAL_TAG


ANSWERS: tuple[tuple[str, Callable[[], bool], str], ...] = (
    ("sha256", sha256, "SHA-256"),
    ("hmac_sha256", hmac_sha256, "HMAC-SHA-256"),
    ("hkdf_sha256", hkdf_sha256, "HKDF-SHA-256"),
    ("poly1305", poly1305, "Poly1305"),
    ("aes_256_gcm", aes_gcm, "AES-256-GCM"),
    ("signing_key", signing_key, "keys of Ed25519 and ML-DSA-65"),
    ("signature", signature, "Ed25519 and ML-DSA-65"),
    ("sealing_key", sealing_key, "keys of ML-KEM-768 and X25519"),
    ("sealing", sealing, "HPKE with ML-KEM-768 and X25519"),
    ("toeplitz", toeplitz, "privacy amplification"),
    ("polynomial", polynomial, "verification of blocks"),
)


async def crypto(bench: Bench) -> list[Finding]:
    """One finding an algorithm; what raises has not given its known answer either."""
    found = []
    for name, answer, what in ANSWERS:
        found.append(_judged(name, answer, what))
        await bench.sleep(0.0)  # others get their turn
    return found


def _judged(name: str, answer: Callable[[], bool], what: str) -> Finding:
    said = f"{what} does not give its known answer: make no keys; is the installation whole?"
    try:
        right = answer()
    except (ArithmeticError, ValueError, TypeError, mac.WrongTag, BadSignature, CannotOpen) as error:
        right, said = False, f"{said} ({type(error).__name__}: {error})"
    return Finding(f"crypto.{name}", float(right), "", YES, "crypto", hint=said)


CHECKS: tuple[Check, ...] = (Check("crypto", Level.POWER_ON, crypto, parts=("crypto",)),)
