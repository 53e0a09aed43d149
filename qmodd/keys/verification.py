"""Verification: a 128-bit tag that tells whether both sides hold the same corrected block.

The block is a polynomial over the integers modulo 2^127 - 1, evaluated at a key that is drawn after correction and sent
in the clear with the tag. Two different blocks of n bits agree for at most `collision_bound(n)` of all keys. The tag is
128 bits on the wire and in the leak, whatever of it is constant.
"""

from __future__ import annotations

import hmac

import numpy as np
import numpy.typing as npt

TAG_BITS = 128
KEY_BYTES = 16
_PRIME = (1 << 127) - 1
_CHUNK = 15  # bytes a coefficient: below the prime without a reduction


def verification_tag(key: bytes, bits: npt.NDArray[np.uint8]) -> bytes:
    """Tag (16 bytes) of a block of 0/1 bits under a key of 16 random bytes. Raises ValueError on a key of other length.

    The length of the block is the polynomial's first coefficient, so blocks of different length differ as well.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"verification key of {len(key)} bytes, expected {KEY_BYTES}")
    point = int.from_bytes(key, "little") & _PRIME
    data = np.packbits(bits).tobytes()
    value = len(bits) + 1
    for i in range(0, len(data), _CHUNK):
        value = value * point + int.from_bytes(data[i : i + _CHUNK], "little")
        value = (value & _PRIME) + (value >> 127)
    return (value * point % _PRIME).to_bytes(16, "little")


def collision_bound(n_bits: int) -> float:
    """Largest probability, over the key, that two different blocks of up to `n_bits` bits have equal tags.

    The difference of two tags is a polynomial of degree at most ceil(n/120) + 1 and has no more roots than that; the
    key has 127 bits, two of whose values fall on 0.
    """
    degree = -(-n_bits // (8 * _CHUNK)) + 1
    return float((degree + 1) / 2**127)


def tags_equal(a: bytes, b: bytes) -> bool:
    """Comparison in constant time."""
    return hmac.compare_digest(a, b)
