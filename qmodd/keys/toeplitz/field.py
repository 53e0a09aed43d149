"""GF(2^64) modulo x^64 + x^4 + x^3 + x + 1, and the basis in which the additive transform is cheap. Plain integers.

In a Cantor basis (1 = b_0, b_i^2 + b_i = b_(i-1)) the polynomial that vanishes on the span of the first k elements has
coefficients 0 and 1 only, and is x^(2^k) + x where k is a power of two. See Gao and Mateer, IEEE Trans. Inf. Theory 56
(2010) 6265, and Lin, Chung and Han, FOCS 2014.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

# x^64 = x^4 + x^3 + x + 1
POLYNOMIAL = 0x1B
_TOP, _ALL = 1 << 64, (1 << 64) - 1


def multiply(a: int, b: int) -> int:
    """The product of two elements (64-bit integers)."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        b >>= 1
        a <<= 1
        if a & _TOP:
            a = (a & _ALL) ^ POLYNOMIAL
    return product


class _Halving:
    """Solves y^2 + y = c, a linear system over GF(2), by elimination done once."""

    def __init__(self) -> None:
        self._pivots: dict[int, tuple[int, int]] = {}
        for i in range(64):
            image, y = multiply(1 << i, 1 << i) ^ (1 << i), 1 << i
            while image:
                head = image.bit_length()
                if head not in self._pivots:
                    self._pivots[head] = image, y
                    break
                image, y = image ^ self._pivots[head][0], y ^ self._pivots[head][1]

    def solve(self, c: int) -> int | None:
        """One of the two solutions (the other is y + 1), or None."""
        y = 0
        while c:
            found = self._pivots.get(c.bit_length())
            if found is None:
                return None
            c, y = c ^ found[0], y ^ found[1]
        return y


@lru_cache(1)
def cantor_basis(k: int) -> tuple[int, ...]:
    """b_0 .. b_(k-1). Either solution of a step may end the chain, so both are tried."""
    halving = _Halving()

    def extended(basis: tuple[int, ...]) -> tuple[int, ...] | None:
        if len(basis) == k:
            return basis
        y = halving.solve(basis[-1])
        return None if y is None else extended((*basis, y)) or extended((*basis, y ^ 1))

    basis = extended((1,))
    if basis is None:
        raise ValueError(f"no Cantor basis of {k} elements")
    return basis


@lru_cache(2)
def twiddles(k: int) -> Words:
    """uint64, shape (2^(k-1),), not writable: entry j is the sum of b_(i+1) over the bits i of j.

    Butterfly block s of the layer of distance 2^i multiplies by entry s of this one table, whatever the layer.
    """
    table = np.zeros(1 << (k - 1), np.uint64)
    for i, b in enumerate(cantor_basis(16)[1:k]):
        table[1 << i : 2 << i] = table[: 1 << i] ^ np.uint64(b)
    table.flags.writeable = False
    return table
