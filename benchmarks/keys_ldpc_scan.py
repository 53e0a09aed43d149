"""`python -m benchmarks.keys_ldpc_scan ROWS...`: measure up to which QBER codes reach, for `reconciliation.rungs`.

For every number of rows the two families that were found nearest to it are tried, and the better one is printed as a
line of RUNGS: (rows, family, sure QBER, thrifty QBER, seed). The same random numbers decide the errors at every QBER,
so that failures grow with it. The sure one is taken 1.5 % lower than it came out: with two failures in 240 frames it is
known no better.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import sqrt

import numpy as np
import numpy.typing as npt

from qmodd.keys.reconciliation import FRAME_BITS, Code, decode, syndrome
from qmodd.keys.reconciliation.codes import COLUMNS, inverse_entropy
from qmodd.keys.reconciliation.decoder import Workspace
from qmodd.keys.reconciliation.ladder import make_code
from qmodd.keys.reconciliation.rungs import FAMILIES, FOUND_AT

# Frames tried and failures allowed: one in five for the thrifty choice, one in a hundred for the sure one.
THRIFTY, SURE = (60, 12), (240, 2)
_RESOLUTION, _STEP, _CAUTION = 1.006, 0.988, 0.985
_BEST_F, _WORST_F = 1.03, 1.9


def fails(code: Code, work: Workspace, qber: float, draws: npt.NDArray[np.float32], most: int) -> bool:
    """More than `most` of the frames do not come out right."""
    failed = 0
    for draw in draws:
        errors = (draw < qber).astype(np.uint8)
        result = decode(code, np.zeros(FRAME_BITS, np.uint8), syndrome(code, errors), workspace=work)
        failed += not np.array_equal(result.bits, errors)
        if failed > most:
            return True
    return False


def reach(code: Code, draws: npt.NDArray[np.float32]) -> tuple[float, float]:
    """(sure, thrifty) QBER of a code."""
    work = Workspace(code.base)
    low, high = (inverse_entropy(code.rows / COLUMNS / f) for f in (_WORST_F, _BEST_F))
    frames, most = THRIFTY
    while high / low > _RESOLUTION:
        middle = sqrt(low * high)
        low, high = (low, middle) if fails(code, work, middle, draws[:frames], most) else (middle, high)
    sure, (frames, most) = 0.975 * low, SURE
    while fails(code, work, sure, draws[:frames], most):
        sure *= _STEP
    return _CAUTION * sure, low


def main(arguments: Sequence[str]) -> int:
    draws = np.random.default_rng(11).random((SURE[0], FRAME_BITS), dtype=np.float32)
    for rows in map(int, arguments):
        order = sorted(range(len(FAMILIES)), key=lambda i: max(FOUND_AT[i] / rows, rows / FOUND_AT[i]))
        tried = [(*reach(make_code(0, rows, i, 0.0, 0.0), draws), i) for i in order[:2]]
        sure, thrifty, family = max(tried, key=lambda t: t[0] + t[1])
        sys.stdout.write(f"    ({rows}, {family}, {sure:.6f}, {thrifty:.6f}, 1),\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
