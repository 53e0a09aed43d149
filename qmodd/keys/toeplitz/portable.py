"""The additive Fourier transform over GF(2^64) in plain loops: for every machine with numba, and the definition of
what `vector` computes.

Tables are indexed by bits of the public factor only (a twiddle, or a value of the seed's transform), so that no memory
access depends on a bit of the key.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qmodd.keys.jit import kernel

Words = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]
uint64 = np.uint64


@kernel
def add_product(x: Words, factor: Words, constant: bool, out: Words) -> None:
    """out ^= x factor in the field, element by element, or x factor[0] if it is `constant`.

    Four bits of the factor at a time: `multiple` holds x times 0 .. 15.
    """
    one, three, four, fifteen, top = uint64(1), uint64(3), uint64(4), uint64(15), uint64(60)
    multiple = np.zeros(16, np.uint64)
    for e in range(len(x)):
        f = factor[0] if constant else factor[e]
        multiple[1] = x[e]
        for i in range(2, 16, 2):
            half = multiple[i >> 1]
            multiple[i] = (half << one) ^ (uint64(0x1B) & (uint64(0) - (half >> uint64(63))))
            multiple[i + 1] = multiple[i] ^ x[e]
        total = uint64(0)
        for i in range(60, -4, -4):
            over = total >> top  # these times x^64 = x^4 + x^3 + x + 1
            doubled = over ^ (over << one)
            total = (total << four) ^ doubled ^ (doubled << three) ^ multiple[(f >> uint64(i)) & fifteen]
        out[e] ^= total


@kernel
def taylor(row: Words, unit: int, t: int, inverse: bool) -> None:
    """Each group of 2^(2t) super-coefficients of 2^unit words: expand in powers of x^(2^t) + x, or back."""
    for group in range(0, len(row), 1 << (unit + 2 * t)):
        for step in range(t):
            size = t + 1 + step if inverse else 2 * t - step
            half, low = 1 << (size - 1 + unit), 1 << (size - 1 - t + unit)
            for s in range(group, group + (1 << (unit + 2 * t)), 2 * half):
                if inverse:
                    for i in range(s + half, s + 2 * half):
                        row[i - half + low] ^= row[i]
                else:
                    for i in range(s + 2 * half - 1, s + half - 1, -1):
                        row[i - half + low] ^= row[i]


@kernel
def convert(row: Words, k: int, inverse: bool) -> None:
    """Coefficients of powers of x <-> of the basis that the butterflies work in; k a power of two."""
    t = 1 if inverse else k >> 1
    while 0 < t < k:
        for unit in range(0, k, 2 * t):
            taylor(row, unit, t, inverse)
        t = t << 1 if inverse else t >> 1


@kernel
def forward(row: Words, scratch: Words, table: Words, k: int) -> None:
    """Values of the polynomial whose coefficients are the 2^k words of the row, in place. `scratch` is not used."""
    convert(row, k, False)
    for i in range(k - 1, -1, -1):
        half = 1 << i
        for s in range(0, 1 << k, 2 * half):
            low, high = row[s : s + half], row[s + half : s + 2 * half]
            add_product(high, table[s >> (i + 1) :], True, low)
            for e in range(half):
                high[e] ^= low[e]


@kernel
def inverse(row: Words, scratch: Words, table: Words, k: int) -> None:
    """`forward` undone."""
    for i in range(k):
        half = 1 << i
        for s in range(0, 1 << k, 2 * half):
            low, high = row[s : s + half], row[s + half : s + 2 * half]
            for e in range(half):
                high[e] ^= low[e]
            add_product(high, table[s >> (i + 1) :], True, low)
    convert(row, k, True)


@kernel
def multiply(out: Words, left: Words, right: Words, which: Int64s) -> None:
    """out[i] = sum over j of left[j] right[which[i, j]], element by element; rows of the same length."""
    for i in range(len(out)):
        out[i, :] = 0
        for j in range(len(left)):
            add_product(left[j], right[which[i, j]], False, out[i])
