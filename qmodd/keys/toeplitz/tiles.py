"""How a large product is cut into transforms of one size that stay in the processor's cache.

The matrix is cut into tiles of `across` words of the block by `down` words of the result. Tiles on one diagonal belong
to the same part of the seed (a window), which is transformed once; products are added up before they are transformed
back.
All lengths are in words of 32 bits, because two of them multiply to 63 bits, which an element of the field just holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WORD = 32
SMALL, LARGE = 8, 16  # log2 of the length of a transform; powers of two, for which products wrap like x^(2^k) = x
# A product of two transformed rows costs so much of a transform (measured: 0.04 to 0.06).
_PRODUCT_COST = 0.05


@dataclass(frozen=True)
class Tiles:
    """`k` log2 of the transform's length; `starts` first seed word of each window (may be negative or beyond the end);
    `window[i, j]` which of them belongs to result tile i and block tile j."""

    k: int
    across: int
    down: int
    starts: tuple[int, ...]
    window: npt.NDArray[np.int64]

    @property
    def cost(self) -> float:
        """In transforms."""
        rows, columns = self.window.shape
        return float(rows + columns + len(self.starts) + _PRODUCT_COST * rows * columns)

    def check(self) -> None:
        """Raises ValueError if a product could wrap into what is read of it.

        The window has across + down words and the tile across: the product's coefficients reach 2 across + down - 2,
        those from 2^k on fall to one above their excess, and across - 1 to across + down - 1 are read.
        """
        length = 1 << self.k
        if self.k & (self.k - 1) or self.across < 1 or self.down < 1 or self.across + self.down > length - 1:
            raise ValueError(f"tiles of {self.across} by {self.down} words do not fit a transform of {length}")


def _cut(k: int, block: int, result: int, across: int, down: int) -> Tiles:
    columns, rows = -(-block // across), -(-result // down)
    first = block - 1 - across + down * np.arange(rows)[:, None] - across * np.arange(columns)
    starts, window = np.unique(first, return_inverse=True)
    return Tiles(k, across, down, tuple(int(s) for s in starts), window.reshape(rows, columns).astype(np.int64))


def _evenly(total: int, most: int) -> int:
    """The size of equal parts of at most `most`, as few as possible."""
    return -(-total // -(-total // most))


def plan(block: int, result: int) -> Tiles:
    """The cheapest of the sensible cuts for a block of so many words (its last bit alone in its last word)."""
    room = (1 << SMALL) - 1
    if block + result <= room:
        return _cut(SMALL, block, result, block, result)
    room = (1 << LARGE) - 1
    if block + result <= room:
        return _cut(LARGE, block, result, block, result)
    shapes = [(c * (room // (c + 1)), room // (c + 1)) for c in (1, 2, 3)]
    shapes += [(down, across) for across, down in shapes[1:]]
    if result < room:
        shapes.append((_evenly(block, room - result), result))
    if block < room:
        shapes.append((block, _evenly(result, room - block)))
    # A thin strip makes many columns; what is sensible never needs more transforms than squares do, times three.
    least = -(-block // (room // 2))
    sensible = [
        (a, d) for a, d in shapes if -(-block // a) * -(-result // d) <= 4 + 4 * least * -(-result // (room // 2))
    ]
    return min((_cut(LARGE, block, result, a, d) for a, d in sensible), key=lambda t: t.cost)
