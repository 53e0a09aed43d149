"""Toeplitz product by floating-point FFT: for machines without numba, and what the other ways are compared with.

The product of two 0/1 sequences is computed over the integers in pieces, where the rounding error is bounded
beforehand and checked afterwards, and reduced modulo 2.
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


def product(bits: Bits, seed: bytes, m: int) -> Bits:
    """out_i = XOR_j seed[i + n - 1 - j] bits[j] for i < m; the seed's bits from the top of each byte on.

    bits uint8 (n,), n >= m >= 1, seed at least n + m - 1 bits. Raises ValueError if the block is too long to be exact,
    RoundingError if the arithmetic strays further than the bound.
    """
    n = len(bits)
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
