"""Privacy amplification: Toeplitz hash over a whole block, exact in GF(2).

out_i = XOR_j seed[i + n - 1 - j] x_j for i < m: the coefficients n-1 .. n+m-2 of the product of two polynomials whose
coefficients are the seed's and the block's bits. The product is computed by a Fourier transform over GF(2^64), where
there is nothing to round (package `toeplitz`); machines without numba have a floating-point one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qmodd.keys.toeplitz import backend
from qmodd.keys.toeplitz.floating import RoundingError, rounding_bound

__all__ = ["RoundingError", "amplify", "rounding_bound", "seed_bytes"]

Bits = npt.NDArray[np.uint8]


def seed_bytes(n: int, m: int) -> int:
    """Bytes of seed for n bits in, m bits out: n + m - 1 bits."""
    return (n + m + 6) // 8


def amplify(bits: Bits, seed: bytes, m: int, *, by: str | None = None) -> Bits:
    """m output bits of the block under a seed of `seed_bytes(n, m)` bytes (most significant bit of a byte first).

    `by` one of `backend.NAMES`, for tests and comparisons. Raises ValueError if the seed has another length or m is not
    in 0 .. n. A block of 1e7 bits takes about 20 ms and 25 MB beside its arguments, one of 1e8 0.4 s and 200 MB.
    """
    n = len(bits)
    if not 0 <= m <= n:
        raise ValueError(f"cannot make {m} bits from {n}")
    if m == 0:
        return np.empty(0, np.uint8)
    if len(seed) != seed_bytes(n, m):
        raise ValueError(f"seed of {len(seed)} bytes, expected {seed_bytes(n, m)}")
    return backend.product(by)(bits, seed, m)
