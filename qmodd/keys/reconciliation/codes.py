"""Quasi-cyclic LDPC codes, built from a seed and a degree table.

The construction is fixed, integer arithmetic only, so that both modules build the same code whatever their libraries:
column by column, the rows of least degree that are least often paired with each other, then a cyclic shift for each row
that closes as few 4-cycles as possible. Degree-2 columns come first and form a zigzag, which keeps them from closing
short cycles among themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log2

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

LIFT = 256
COLUMNS = 256
FRAME_BITS = LIFT * COLUMNS
# Number of the construction in `build`; another one gives other codes for the same table.
CONSTRUCTION = 1
DIGEST_BYTES = 16
_MASK = (1 << 64) - 1
# Matrices that are kept once they were built; the long ones take a few tenths of a second and 0.2 MB.
_KEPT = 128


class _SplitMix:
    """SplitMix64 (Steele, Lea and Flood 2014): small, public and the same everywhere."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def below(self, n: int) -> int:
        """An integer in 0 .. n-1; the bias of 2^-50 does not matter here."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) * n) >> 64


def binary_entropy(x: float) -> float:
    return 0.0 if x <= 0.0 or x >= 1.0 else -x * log2(x) - (1.0 - x) * log2(1.0 - x)


def inverse_entropy(h: float) -> float:
    """The x in 0 .. 1/2 with binary_entropy(x) = h, to 1e-12. Raises ValueError outside 0 .. 1."""
    if not 0.0 <= h <= 1.0:
        raise ValueError(f"entropy {h} is not in [0, 1]")
    low, high = 0.0, 0.5
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if binary_entropy(middle) < h else (low, middle)
    return high


@dataclass(frozen=True)
class Schedule:
    """What the decoder works with, in its own 8-bit units: a bit that may be wrong enters with `channel`, messages are
    at most `cap`. Sizes are scaled by a factor that rises from `first` to `last` with a time constant of `tau`
    iterations, after `offset` (in 2^-7) was taken off. The factor stays after `ramp` iterations, and a frame has failed
    after `most`. A frame that is all but right then has `again` more, from where it stands (see `decoder`)."""

    channel: int
    cap: int
    first: float
    last: float
    tau: float
    offset: int = 0
    ramp: int = 16
    most: int = 50
    again: int = 0


@dataclass(frozen=True)
class BaseMatrix:
    """Edges sorted by row: row l has the edges start[l] .. start[l+1]; `column` and `shift` per edge, all int64.

    Check i of row l is the sum of the bits (i + shift) mod `lift` of its columns, of which there are `columns`.
    """

    start: Int64s
    column: Int64s
    shift: Int64s
    columns: int = COLUMNS
    lift: int = LIFT

    @property
    def frame_bits(self) -> int:
        return self.columns * self.lift

    @property
    def rows(self) -> int:
        return len(self.start) - 1

    @property
    def widest(self) -> int:
        """Edges of the row that has most."""
        return int(np.diff(self.start).max())

    def edges_of(self, row: int) -> slice:
        return slice(int(self.start[row]), int(self.start[row + 1]))

    def halves(self, row: int) -> tuple[Int64s, Int64s]:
        """Edges of the two rows whose sum a row is: its edges of even and of odd place."""
        edges = np.arange(self.start[row], self.start[row + 1])
        return edges[::2], edges[1::2]

    def of_rows(self, rows: Sequence[Int64s]) -> BaseMatrix:
        """A matrix of rows that are given by their edges in this one."""
        start = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
        edges = np.concatenate(rows)
        return BaseMatrix(start, self.column[edges], self.shift[edges], self.columns, self.lift)


@dataclass(frozen=True)
class Code:
    """A code: base matrix of `rows` x `columns`, each entry of which stands for `lift` checks and bits. A rung of the
    ladder is 256 columns wide with lift 256, frames of 65 536 bits.

    `degrees` gives (column degree, number of columns), ascending. Both QBERs are measured: up to `sure_qber` at most
    one frame in a hundred needs help, up to `thrifty_qber` at most one in five.
    """

    rung: int
    rows: int
    degrees: tuple[tuple[int, int], ...]
    schedule: Schedule
    sure_qber: float
    thrifty_qber: float
    seed: int = 1
    columns: int = COLUMNS
    lift: int = LIFT
    # Thousandths of the rows (at least one row) that are in halves after each round of help.
    split: tuple[int, int, int] = (60, 220, 1000)

    @property
    def frame_bits(self) -> int:
        return self.columns * self.lift

    @property
    def syndrome_bits(self) -> int:
        return self.rows * self.lift

    @property
    def edges(self) -> int:
        return sum(d * n for d, n in self.degrees)

    def efficiency(self, qber: float) -> float:
        """f = syndrome bits / (n h(qber)) of a full frame that decodes at once."""
        return self.rows / self.columns / binary_entropy(qber)

    @property
    def base(self) -> BaseMatrix:
        """The base matrix, built on first use (some 100 ms) and kept."""
        return _built(self.rows, self.degrees, self.seed, self.columns, self.lift)

    @property
    def digest(self) -> bytes:
        """16 bytes of SHA-256 over all that `build` makes the matrix of, and how help goes: two modules with equal
        digests have the same code. Cheap, because core asks for it and must not build matrices."""
        definition = repr((CONSTRUCTION, self.lift, self.columns, self.rows, self.degrees, self.seed, self.split))
        return hashlib.sha256(definition.encode()).digest()[:DIGEST_BYTES]


# (row a, row b) -> the differences shift_a - shift_b of the columns that join them
_Differences = dict[tuple[int, int], list[int]]


def _choose_rows(degree: int, row_degree: Int64s, paired: Int64s, mix: _SplitMix) -> list[int]:
    """Rows of least degree, preferring those seldom paired with the ones already chosen; ties at random."""
    chosen: list[int] = []
    cost = 8 * row_degree
    for _ in range(degree):
        best = np.flatnonzero(cost == cost.min())
        chosen.append(int(best[mix.below(len(best))]))
        cost += 2 * paired[chosen[-1]]
        cost[chosen] = np.iinfo(np.int64).max // 2
    return chosen


def _choose_shifts(rows: list[int], used: _Differences, lift: int, mix: _SplitMix) -> list[int]:
    """A shift for each row so that few differences repeat: those in `used`, to which the new ones are added."""
    shifts: list[int] = []
    for j, row in enumerate(rows):
        conflicts = np.zeros(lift, np.int64)
        for other, s in zip(rows[:j], shifts, strict=True):
            for difference in used.get((row, other), ()):
                conflicts[(difference + s) % lift] += 1
        best = np.flatnonzero(conflicts == conflicts.min())
        shifts.append(int(best[mix.below(len(best))]))
    for j, a in enumerate(rows):
        for k, b in enumerate(rows):
            if a != b:
                used.setdefault((a, b), []).append((shifts[j] - shifts[k]) % lift)
    return shifts


def build(
    rows: int, degrees: tuple[tuple[int, int], ...], seed: int, columns: int = COLUMNS, lift: int = LIFT
) -> BaseMatrix:
    """Raises ValueError if the degrees do not describe as many columns."""
    degree_of = [d for d, n in degrees for _ in range(n)]
    if len(degree_of) != columns or max(degree_of) > rows:
        raise ValueError(f"degrees {degrees} do not fit {columns} columns, {rows} rows")
    mix = _SplitMix(seed)
    row_degree = np.zeros(rows, np.int64)
    paired = np.zeros((rows, rows), np.int64)
    used: _Differences = {}
    edges: list[tuple[int, int, int]] = []
    for c, degree in enumerate(degree_of):
        zigzag = degree == 2 and c < rows - 1
        chosen = [c, c + 1] if zigzag else _choose_rows(degree, row_degree, paired, mix)
        edges += [(row, c, shift) for row, shift in zip(chosen, _choose_shifts(chosen, used, lift, mix), strict=True)]
        row_degree[chosen] += 1
        paired[np.ix_(chosen, chosen)] += 1
    row, column, shift_of = np.array(sorted(edges), np.int64).T
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int64)
    return BaseMatrix(start, np.ascontiguousarray(column), np.ascontiguousarray(shift_of), columns, lift)


_built = lru_cache(maxsize=_KEPT)(build)
