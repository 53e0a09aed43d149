"""Codes of efficiency mode: frames of a million bits, each with the rate that its QBER asks for.

A long frame has nearly the share of errors that was expected, so its code needs little margin, and degrees are chosen
for how far they reach instead of for speed. Columns are 960 bits high: 15 registers, an odd number, so that columns do
not compete for the same places of the cache. The number of columns follows from the block, that of rows from the QBER:
no ladder, but a table of how many rows codes of a family need, measured by `python -m benchmarks.keys_ldpc_long`.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, sqrt

from qmodd.keys.reconciliation.codes import Code, Schedule, binary_entropy
from qmodd.keys.reconciliation.reach import FAMILIES, REACH

LIFT = 960
USUAL_BITS = 983_040
# Shorter blocks are left to the ladder: a million bits are what makes the difference.
LEAST_BITS = USUAL_BITS // 2
LEAST_QBER, MOST_QBER = REACH[0][0], REACH[-1][0]
# Thousandths of the rows that are in halves after each round of help.
SPLIT = (25, 100, 1000)


def covers(n_bits: int, qber: float) -> bool:
    """Whether there are long codes for such a block."""
    return n_bits >= LEAST_BITS and LEAST_QBER <= qber <= MOST_QBER


def frames_of(n_bits: int) -> int:
    """Frames are at least as long as usual, or the whole block."""
    return max(1, n_bits // USUAL_BITS)


def columns_of(n_bits: int) -> int:
    """Columns of the code for a block of `n_bits`."""
    return -(-n_bits // (frames_of(n_bits) * LIFT))


def needed(qber: float) -> tuple[float, int]:
    """(f, family): what a frame needs that has exactly this share of errors. Between the measured points a line; where
    the family changes the worse of the two, because neither is at home there."""
    after = next(i for i, (q, _, _) in enumerate(REACH) if q >= qber)
    high, high_f, high_family = REACH[after]
    low, low_f, low_family = REACH[max(0, after - 1)]
    part = 1.0 if high == low else (qber - low) / (high - low)
    f = low_f + part * (high_f - low_f) if high_family == low_family or part in (0.0, 1.0) else max(low_f, high_f)
    return f, high_family if 2 * part >= 1.0 else low_family


def long_code(n_bits: int, qber: float) -> Code:
    """For a block of `n_bits` with this expected QBER: one standard deviation of a frame's errors is provided for.

    Raises ValueError if `covers` says no.
    """
    if not covers(n_bits, qber):
        raise ValueError(f"no long code for {n_bits} bits of QBER {qber}")
    columns = columns_of(n_bits)
    provided = min(MOST_QBER, qber + sqrt(qber * (1.0 - qber) / (columns * LIFT)))
    f, family = needed(provided)
    # Rounded, so that two machines whose logarithms differ in the last place come to the same rows.
    return make_long_code(columns, ceil(round(columns * f * binary_entropy(provided), 6)), family)


@lru_cache(maxsize=256)
def make_long_code(columns: int, rows: int, family: int) -> Code:
    shares, schedule = FAMILIES[family]
    return Code(-1, rows, degrees(columns, rows, *shares), Schedule(*schedule), 0.0, 0.0, 1, columns, LIFT, SPLIT)


def degrees(
    columns: int, rows: int, twos: int, fours: int, middle: int, middles: int, top: int, tops: int
) -> tuple[tuple[int, int], ...]:
    """(degree, number of columns): of degree 2 `twos` thousandths of the rows, of degrees 4, `middle` and `top` so many
    thousandths of the columns, of degree 3 the rest."""
    count = {2: min(rows - 1, rows * twos // 1000)}
    for degree, share in ((4, fours), (middle, middles), (top, tops)):
        count[degree] = count.get(degree, 0) + columns * share // 1000
    count[3] = columns - sum(count.values())
    return tuple(sorted((d, n) for d, n in count.items() if n))
