"""Privacy amplification: Toeplitz hash over a whole block, exact in GF(2).

out_i = XOR_j seed[i + n - 1 - j] x_j for i < m: the coefficients n-1 .. n+m-2 of the product of two polynomials whose
coefficients are the seed's and the block's bits. The product is computed over the integers by floating-point FFT in
pieces, where the rounding error is bounded beforehand, and reduced modulo 2.
"""

from __future__ import annotations

from math import ceil, log2, sqrt

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint8]

_PIECE = 1 << 19
_EPS = 2.0**-53


class RoundingError(ArithmeticError):
    """The floating-point product strays further from integers than it can: the hardware or the library is broken."""


def seed_bytes(n: int, m: int) -> int:
    """Bytes of seed for n bits in, m bits out: n + m - 1 bits."""
    return (n + m + 6) // 8


def _fast_length(n: int) -> int:
    """The smallest 2^a 3^b 5^c of at least n."""
    best = 1 << max(0, n - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            best = min(best, three << max(0, ceil(n / three) - 1).bit_length())
            three *= 3
        five *= 5
    return best


def rounding_bound(piece: int, length: int) -> float:
    """Error bound of one coefficient of a product of 0/1 sequences of `piece` and `length` bits by FFT of `length`.

    Three transforms, each of relative error at most 6 eps log2(length) in the 2-norm (radix 2 to 5 butterflies with
    twiddles good to eps), plus the pointwise product: ||a|| ||b|| (18 log2 + 3) eps, with ||a||^2 <= piece etc.
    """
    return sqrt(piece) * sqrt(length) * (18 * log2(max(2, length)) + 3) * _EPS


def _cyclic_parity(block: Bits, seed: Bits, length: int) -> npt.NDArray[np.uint8]:
    """Cyclic product of the two sequences modulo 2; raises RoundingError if it is not near integers."""
    product = np.fft.irfft(np.fft.rfft(seed, length) * np.fft.rfft(block, length), length)
    whole = np.rint(product)
    if np.abs(product - whole).max() > 0.125:
        raise RoundingError("FFT product is not near integers")
    return (whole.astype(np.int64) & 1).astype(np.uint8)


def amplify(bits: Bits, seed: bytes, m: int) -> Bits:
    """m output bits of the block under a seed of `seed_bytes(n, m)` bytes (most significant bit of a byte first).

    Raises ValueError if the seed has another length or m is not in 0 .. n. 1e6 bits to 2.5e5 take about 0.1 s.
    """
    n = len(bits)
    if not 0 <= m <= n:
        raise ValueError(f"cannot make {m} bits from {n}")
    if m == 0:
        return np.empty(0, np.uint8)
    if len(seed) != seed_bytes(n, m):
        raise ValueError(f"seed of {len(seed)} bytes, expected {seed_bytes(n, m)}")
    s = np.unpackbits(np.frombuffer(seed, np.uint8), count=n + m - 1)
    out = np.zeros(m, np.uint8)
    piece = min(n, max(_PIECE, m))
    length = _fast_length(piece + m - 1)
    if rounding_bound(piece, length) > 0.1:
        raise ValueError(f"a block of {n} bits is too long to be exact")
    for start in range(0, n, piece):
        x = bits[start : start + piece]
        k = len(x)
        low = n - start - k  # seed[i + n-1-j] for j in this piece, i < m: from `low` on, k + m - 1 bits
        part = s[low : low + k + m - 1]
        out ^= _cyclic_parity(x, part, length)[k - 1 : k - 1 + m]
    return out
