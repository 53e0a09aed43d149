"""The additive Fourier transform over GF(2^64) with the processor's carry-less multiplication.

Elements lie in uint64 rows of 2^k. `portable` computes the same numbers without special instructions. Importing this
module imports numba; amplification does so at its first call. No bounds are checked: `rows` is the only caller, and
makes the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit as _njit

from qmodd.keys.toeplitz.lanes import (
    KIND,
    LANES,
    add,
    address,
    copy,
    forward_butterflies,
    forward_lowest,
    inverse_butterflies,
    inverse_lowest,
    sum_of_products,
    transpose_4,
)

__all__ = ["KIND", "forward", "inverse", "multiply"]

Words = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

compiled: Any = _njit(nogil=True, cache=True)
# log2 of the words of a row that are taken through all lower layers while they are in the first-level cache.
_INNER = 12
# Words of every row that are multiplied before the next ones are, so that they come from the second-level cache.
_STRIP = 128


@compiled
def _add_words(row: int, array: Words, to: int, what: int, count: int) -> None:
    """Add words [what, what + count) of the row to those at `to`, in ascending order."""
    whole = count - count % LANES
    if whole:
        add(row + 8 * to, row + 8 * what, whole)
    for i in range(whole, count):
        array[to + i] ^= array[what + i]


@compiled
def _expand(row: int, array: Words, first: int, count: int, size: int, low: int, inverse: bool) -> None:
    """One step of a Taylor expansion, in words [first, first + count): of every `size` words the upper half is added
    to those that begin `low` words above the lowest, from the top down, or back."""
    half = size >> 1
    for s in range(first, first + count, size):
        if inverse:
            _add_words(row, array, s + low, s + half, half - low)
            _add_words(row, array, s + half, s + size - low, low)
        else:
            _add_words(row, array, s + half, s + size - low, low)
            _add_words(row, array, s + low, s + half, half - low)


@compiled
def _expand_all(array: Words, k: int, inverse: bool) -> None:
    """The coefficients in powers of x^(2^t) + x, t = k/2, or back. Small steps while their words are in the cache."""
    row, t, inner = address(array), k >> 1, min(k, _INNER)
    if not inverse:
        for i in range(k, inner, -1):
            _expand(row, array, 0, 1 << k, 1 << i, 1 << (i - 1 - t), False)
    for first in range(0, 1 << k, 1 << inner):
        for step in range(inner - t):
            i = t + 1 + step if inverse else inner - step
            _expand(row, array, first, 1 << inner, 1 << i, 1 << (i - 1 - t), inverse)
    if inverse:
        for i in range(inner + 1, k + 1):
            _expand(row, array, 0, 1 << k, 1 << i, 1 << (i - 1 - t), True)


@compiled
def _convert_columns(buffer: Words, bits: int, inverse: bool) -> None:
    """Change of basis of 2^bits coefficients in each of 8 columns; `bits` a power of two."""
    at = address(buffer)
    t = 1 if inverse else bits >> 1
    while 0 < t < bits:
        for below in range(0, bits, 2 * t):
            for step in range(t):
                i = below + (t + 1 + step if inverse else 2 * t - step)
                _expand(at, buffer, 0, 8 << bits, 8 << i, 8 << (i - 1 - t), inverse)
        t = t << 1 if inverse else t >> 1


@compiled
def _convert_transposing(source: int, target: int, buffer: Words, bits: int, inverse: bool) -> None:
    """Change of basis down the columns of a square of 2^bits words; the square is transposed on the way."""
    size, at = 1 << bits, address(buffer)
    for column in range(0, size, 8):
        for r in range(size):
            for c in range(0, 8, LANES):
                copy(source + 8 * (r * size + column + c), at + 8 * (8 * r + c))
        _convert_columns(buffer, bits, inverse)
        for r in range(0, size, 4):
            transpose_4(at + 64 * r, 64, target + 8 * (column * size + r), 8 * size)
            transpose_4(at + 64 * r + 32, 64, target + 8 * ((column + 4) * size + r), 8 * size)


@compiled
def _convert(array: Words, scratch: Words, k: int, inverse: bool) -> None:
    """Coefficients of powers of x <-> of the basis that the butterflies work in; k a power of two, at least 8.

    The row is seen as a square. What concerns the lower index bits is done on the transposed square, where neighbours
    move together; `scratch` holds it, and behind it the columns in work.
    """
    row, other, buffer = address(array), address(scratch), scratch[1 << k :]
    if not inverse:
        _expand_all(array, k, False)
    _convert_transposing(row, other, buffer, k >> 1, inverse)
    _convert_transposing(other, row, buffer, k >> 1, inverse)
    if inverse:
        _expand_all(array, k, True)


@compiled
def _layer(row: int, first: int, count: int, i: int, table: Words, inverse: bool) -> None:
    """The butterflies of distance 2^i in words [first, first + count)."""
    half = 1 << i
    for s in range(first, first + count, 2 * half):
        if inverse:
            inverse_butterflies(row + 8 * s, row + 8 * (s + half), half, table[s >> (i + 1)])
        else:
            forward_butterflies(row + 8 * s, row + 8 * (s + half), half, table[s >> (i + 1)])


@compiled
def forward(array: Words, scratch: Words, table: Words, k: int) -> None:
    """Values of the polynomial whose coefficients are the 2^k words of the row, in place."""
    _convert(array, scratch, k, False)
    row, inner = address(array), min(k, _INNER)
    for i in range(k - 1, inner - 1, -1):
        _layer(row, 0, 1 << k, i, table, False)
    for first in range(0, 1 << k, 1 << inner):
        i = inner - 1
        while 1 << i >= LANES:
            _layer(row, first, 1 << inner, i, table, False)
            i -= 1
        forward_lowest(row, first, 1 << inner, address(table))


@compiled
def inverse(array: Words, scratch: Words, table: Words, k: int) -> None:
    """`forward` undone."""
    row, inner = address(array), min(k, _INNER)
    for first in range(0, 1 << k, 1 << inner):
        inverse_lowest(row, first, 1 << inner, address(table))
        for i in range(inner):
            if 1 << i >= LANES:
                _layer(row, first, 1 << inner, i, table, True)
    for i in range(inner, k):
        _layer(row, 0, 1 << k, i, table, True)
    _convert(array, scratch, k, True)


@compiled
def multiply(out: Words, left: Words, right: Words, which: Int64s) -> None:
    """out[i] = sum over j of left[j] right[which[i, j]], element by element; rows of the same length."""
    count, columns = out.shape[1], len(left)
    for strip in range(0, count, _STRIP):
        size = min(_STRIP, count - strip)
        for i in range(len(out)):
            sum_of_products(
                address(out) + 8 * (i * count + strip),
                address(left) + 8 * strip,
                address(right) + 8 * strip,
                address(which) + 8 * i * columns,
                columns,
                8 * count,
                size,
            )
