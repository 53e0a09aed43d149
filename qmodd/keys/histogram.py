"""Where in the period clicks arrive: what shows a clock's drift, a detector's delay, and an arrival time that somebody
shifted.

The phase is counted in 2^-64 of a period. Multiplying by it wraps round as the phase does, so that there is no
division and nothing is rounded after the period: loops and numpy agree bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qmodd.keys.jit import COMPILED, kernel

Int64s = npt.NDArray[np.int64]

_TURN = 1 << 64
MAX_CELLS = 1 << 16
_LANES, _CHUNK = 4, 1024


@kernel
def _fold_loop(t: Int64s, origin: int, step: int, offset: int, cells: int, part: npt.NDArray[np.uint32]) -> None:
    """`part` (4, cells), zeros. Four histograms by turns, so that clicks in one cell do not wait for each other; cells
    are worked out in chunks, which the compiler does several at a time."""
    cell = np.empty(_CHUNK, np.uint32)  # an unsigned index is not looked at for being negative
    a, b, c, d = part[0], part[1], part[2], part[3]
    wide, half = np.uint64(cells), np.uint64(32)
    for first in range(0, len(t), _CHUNK):
        clicks = t[first : first + _CHUNK]
        size = len(clicks)
        for i in range(size):
            phase = np.uint64(clicks[i] - origin) * step + offset
            cell[i] = ((phase >> half) * wide) >> half
        whole = size - size % _LANES
        for i in range(0, whole, _LANES):
            a[cell[i]] += np.uint32(1)
            b[cell[i + 1]] += np.uint32(1)
            c[cell[i + 2]] += np.uint32(1)
            d[cell[i + 3]] += np.uint32(1)
        for i in range(whole, size):
            a[cell[i]] += np.uint32(1)


def _fold_numpy(t: Int64s, origin: int, step: np.uint64, offset: np.uint64, cells: int) -> Int64s:
    phase = (t - origin).astype(np.uint64) * step + offset
    cell = ((phase >> np.uint64(32)) * np.uint64(cells)) >> np.uint64(32)
    counts: Int64s = np.bincount(cell.astype(np.int64), minlength=cells).astype(np.int64)
    return counts


def fold(t: Int64s, period_ps: float, cells: int, origin_ps: int = 0, fraction_ps: float = 0.0) -> Int64s:
    """Clicks (int64 ps) in each of `cells` equal parts of the period that begins at origin + fraction. int64 (cells,).

    The period is rounded to 2^-64 turns a ps: the phase of a click a second from the origin is good to 3e-8 turns, of
    one an hour away to 1e-4. Raises ValueError unless
    1 <= cells <= MAX_CELLS, the period is at least 2 ps, and there are fewer than 2^32 clicks.
    """
    if not (1 <= cells <= MAX_CELLS and 2 <= period_ps < float(1 << 62) and len(t) < 1 << 32):
        raise ValueError(f"cannot fold {len(t)} clicks at {period_ps} ps into {cells} cells")
    numerator, denominator = float(period_ps).as_integer_ratio()
    step = np.uint64((2 * _TURN * denominator + numerator) // (2 * numerator))
    # A click counted as t lies between t and t + 1, so it is taken half a picosecond later: no click is on an edge.
    ahead, by = (0.5 - float(fraction_ps)).as_integer_ratio()
    offset = np.uint64(_TURN * ahead * denominator // (by * numerator) % _TURN)
    if not COMPILED:
        return _fold_numpy(t, origin_ps, step, offset, cells)
    part = np.zeros((_LANES, cells), np.uint32)
    _fold_loop(t, origin_ps, step, offset, cells, part)
    total: Int64s = part.sum(axis=0, dtype=np.int64)
    return total
