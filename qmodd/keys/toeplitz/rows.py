"""A product by a Toeplitz matrix through additive transforms: words into rows, transforms, products, words out.

The only caller of the transforms, which check no bounds: shapes are made and checked here.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from qmodd.keys.toeplitz.field import twiddles
from qmodd.keys.toeplitz.tiles import Tiles, plan

Words = npt.NDArray[np.uint64]
HalfWords = npt.NDArray[np.uint32]
Int64s = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]

# Bytes of the seed that are turned over at a time.
_CHUNK = 1 << 16
# Rows begin on a cache line, for which the transforms are an eighth faster.
_LINE = 64


class Transform(Protocol):
    """A module of the transform: `vector` or `portable`."""

    def forward(self, row: Words, scratch: Words, table: Words, k: int) -> None: ...
    def inverse(self, row: Words, scratch: Words, table: Words, k: int) -> None: ...
    def multiply(self, out: Words, left: Words, right: Words, which: Int64s) -> None: ...


def product(transform: Transform, bits: Bits, seed: bytes, m: int) -> Bits:
    """out_i = XOR_j seed[i + n - 1 - j] bits[j] for i < m; the seed's bits from the top of each byte on.

    bits uint8 (n,), n >= m >= 1, seed at least n + m - 1 bits. What depends on the bits is zeroed before returning.
    """
    block = _block_words(bits)
    words = _seed_words(seed, len(bits) + m - 1)
    tiles = plan(len(block), -(-m // 32))
    out = _product(transform, tiles, block, words, -(-m // 32))
    block[:] = 0
    unpacked = np.unpackbits(out.view(np.uint8), bitorder="little", count=m)
    out[:] = 0
    return unpacked


def _block_words(bits: Bits) -> HalfWords:
    """Coefficients, moved up so that the first bit of the result is the lowest of a word: the last bit of the block is
    alone in the last word."""
    n = len(bits)
    shift = -(n - 1) % 32
    padded = np.zeros(shift + n + 31, np.uint8)
    padded[shift : shift + n] = bits
    words = np.packbits(padded, bitorder="little").view("<u4").astype(np.uint32, copy=False)
    padded[:] = 0
    return words


def _seed_words(seed: bytes, count: int) -> HalfWords:
    """The first `count` bits as coefficients; bits of the last byte beyond them are cleared."""
    data = np.zeros(4 * -(-count // 32), np.uint8)
    used = -(-count // 8)
    for i in range(0, used, _CHUNK):
        part = np.frombuffer(seed, np.uint8, min(_CHUNK, used - i), i)
        data[i : i + len(part)] = np.packbits(np.unpackbits(part), bitorder="little")
    data[used - 1] &= 0xFF >> (-count % 8)
    return data.view("<u4").astype(np.uint32, copy=False)


def _rows(count: int, length: int) -> Words:
    """Not initialised; shape (count, length)."""
    raw = np.empty(8 * count * length + _LINE, np.uint8)
    first = -raw.ctypes.data % _LINE
    return np.ndarray((count, length), np.uint64, raw, first)


def scratch_row(k: int) -> Words:
    """What a transform of 2^k words works in: a row, and 8 columns of the square that it makes."""
    row: Words = _rows(1, (1 << k) + (8 << (k // 2)))[0]
    return row


def _fill(row: Words, words: HalfWords, start: int, count: int) -> None:
    """row[:count] = words[start : start + count], with zeros wherever there are no words and in the rest of the row."""
    first, last = max(0, start), min(len(words), start + count)
    at = first - start
    stop = max(at, at + last - first)
    row[: min(at, len(row))] = 0
    if last > first:
        row[at:stop] = words[first:last]
    row[stop:] = 0


def _product(transform: Transform, tiles: Tiles, block: HalfWords, seed: HalfWords, count: int) -> HalfWords:
    """Words of the result. Raises ValueError if the tiles do not fit their transforms."""
    tiles.check()
    rows, columns = tiles.window.shape
    length, table = 1 << tiles.k, twiddles(tiles.k)
    scratch = scratch_row(tiles.k)
    parts, windows, sums = (_rows(count, length) for count in (columns, len(tiles.starts), rows))
    for j in range(columns):
        _fill(parts[j], block, j * tiles.across, min(tiles.across, len(block) - j * tiles.across))
        transform.forward(parts[j], scratch, table, tiles.k)
    for w, start in enumerate(tiles.starts):
        _fill(windows[w], seed, start, tiles.across + tiles.down)
        transform.forward(windows[w], scratch, table, tiles.k)
    transform.multiply(sums, parts, windows, np.ascontiguousarray(tiles.window))
    out = np.empty(rows * tiles.down, np.uint32)
    for i in range(rows):
        transform.inverse(sums[i], scratch, table, tiles.k)
        read = sums[i, tiles.across - 1 : tiles.across + tiles.down]
        # A word of the result is the low half of its coefficient and the high half of the one before.
        low, high = read.view("<u4").reshape(-1, 2).T if np.little_endian else (read & 0xFFFFFFFF, read >> 32)
        np.bitwise_xor(low[1:], high[:-1], out=out[i * tiles.down : (i + 1) * tiles.down], casting="unsafe")
    for secret in (parts, sums, scratch):
        secret.fill(0)
    return out[:count].copy()
