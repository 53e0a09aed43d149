"""Quasi-cyclic LDPC codes, built from a seed and a degree table.

The construction is fixed, integer arithmetic only, so that both modules build the same code whatever their libraries:
column by column, the rows of least degree that are least often paired with each other, then a cyclic shift for each row
that closes as few 4-cycles as possible. Degree-2 columns come first and form a zigzag, which keeps them from closing
short cycles among themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log2

import numpy as np
import numpy.typing as npt

LIFT = 256
COLUMNS = 256
FRAME_BITS = LIFT * COLUMNS
_MASK = (1 << 64) - 1


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


@dataclass(frozen=True)
class Schedule:
    """How messages are scaled: by a factor that rises from `first` to `last` with a time constant of `tau` iterations,
    capped at `cap` channel values."""

    first: float
    last: float
    tau: float
    cap: float


@dataclass(frozen=True)
class Code:
    """One rung of the ladder: `rows` x 256 base matrix of lift 256, frames of 65 536 bits.

    `degrees` gives (column degree, number of columns), ascending. `design_qber` is the largest QBER it is chosen for.
    """

    rung: int
    rows: int
    degrees: tuple[tuple[int, int], ...]
    design_qber: float
    schedule: Schedule
    seed: int = 1

    @property
    def frame_bits(self) -> int:
        return FRAME_BITS

    @property
    def syndrome_bits(self) -> int:
        return self.rows * LIFT

    @property
    def edges(self) -> int:
        return sum(d * n for d, n in self.degrees)

    def efficiency(self, qber: float) -> float:
        """f = syndrome bits / (n h(qber)) of a frame that decodes at once."""
        return self.rows / COLUMNS / binary_entropy(qber)

    @cached_property
    def base(self) -> BaseMatrix:
        """The base matrix, built on first use (some 100 ms) and kept."""
        return build(self.rows, self.degrees, self.seed)


@dataclass(frozen=True)
class BaseMatrix:
    """Edges sorted by row: row l has the edges start[l] .. start[l+1]; `column` and `shift` per edge, all int64.

    Check i of row l is the sum of the bits (i + shift) mod 256 of its columns.
    """

    start: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    shift: npt.NDArray[np.int64]


def _choose_rows(degree: int, row_degree: list[int], paired: npt.NDArray[np.int64], mix: _SplitMix) -> list[int]:
    """Rows of least degree, preferring those seldom paired with the ones already chosen; ties at random."""
    chosen: list[int] = []
    for _ in range(degree):
        cost = 8 * np.array(row_degree) + 2 * paired[:, chosen].sum(axis=1)
        cost[chosen] = np.iinfo(np.int64).max
        best = np.flatnonzero(cost == cost.min())
        chosen.append(int(best[mix.below(len(best))]))
    return chosen


def _choose_shifts(rows: list[int], used: npt.NDArray[np.uint8], mix: _SplitMix) -> list[int]:
    """A shift for each row so that few differences repeat: used[a, b, d] counts shift_a - shift_b = d."""
    shifts: list[int] = []
    every = np.arange(LIFT)
    for j, row in enumerate(rows):
        conflicts = np.zeros(LIFT, np.int64)
        for other, s in zip(rows[:j], shifts, strict=True):
            conflicts += used[row, other, (every - s) % LIFT]
        best = np.flatnonzero(conflicts == conflicts.min())
        shifts.append(int(best[mix.below(len(best))]))
    for j, a in enumerate(rows):
        for k, b in enumerate(rows):
            if a != b:
                used[a, b, (shifts[j] - shifts[k]) % LIFT] += 1
    return shifts


def build(rows: int, degrees: tuple[tuple[int, int], ...], seed: int) -> BaseMatrix:
    """Raises ValueError if the degrees do not describe 256 columns."""
    columns = [d for d, n in degrees for _ in range(n)]
    if len(columns) != COLUMNS or max(columns) > rows:
        raise ValueError(f"degrees {degrees} do not fit {COLUMNS} columns, {rows} rows")
    mix = _SplitMix(seed)
    row_degree = [0] * rows
    paired = np.zeros((rows, rows), np.int64)
    used = np.zeros((rows, rows, LIFT), np.uint8)
    edges: list[tuple[int, int, int]] = []
    for c, degree in enumerate(columns):
        zigzag = degree == 2 and c < rows - 1
        chosen = [c, c + 1] if zigzag else _choose_rows(degree, row_degree, paired, mix)
        for row, shift in zip(chosen, _choose_shifts(chosen, used, mix), strict=True):
            edges.append((row, c, shift))
            row_degree[row] += 1
        paired[np.ix_(chosen, chosen)] += 1
    row, column, shift_of = np.array(sorted(edges), np.int64).T
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int64)
    return BaseMatrix(start, np.ascontiguousarray(column), np.ascontiguousarray(shift_of))
