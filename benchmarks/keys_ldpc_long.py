"""`python -m benchmarks.keys_ldpc_long ROWS...`: measure how far long codes reach, for `reconciliation.reach`.

For every number of rows (of codes for blocks of the usual length) the two families that were found nearest to it are
tried, and the one that reaches further is printed as a line of REACH: (QBER, f, family). Frames have exactly so many
errors, and a code reaches as far as all of them decode.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qmodd.keys.reconciliation import Code, decode, syndrome
from qmodd.keys.reconciliation.codes import binary_entropy, inverse_entropy
from qmodd.keys.reconciliation.decoder import Workspace
from qmodd.keys.reconciliation.long import USUAL_BITS, columns_of, make_long_code
from qmodd.keys.reconciliation.reach import FAMILIES, FOUND_AT

FRAMES = 6
_BEST_F, _STEP = 1.05, 0.996
Order = npt.NDArray[np.int64]


def decodes(code: Code, work: Workspace, qber: float, order: Order) -> bool:
    """A frame comes out right; `order` says which bits are wrong first."""
    bob = np.zeros(code.frame_bits, np.uint8)
    alice = bob.copy()
    alice[order[: round(qber * len(order))]] = 1
    return bool(np.array_equal(decode(code, bob, syndrome(code, alice), workspace=work).bits, alice))


def reach(code: Code, orders: Sequence[Order]) -> float:
    """The highest QBER of all frames: each has to go down from where those before it came to."""
    work, qber = Workspace(code.base), inverse_entropy(code.rows / code.columns / _BEST_F)
    for order in orders:
        while not decodes(code, work, qber, order):
            qber *= _STEP
    return qber


def main(arguments: Sequence[str]) -> int:
    orders = [np.random.default_rng(seed).permutation(USUAL_BITS) for seed in range(FRAMES)]
    for rows in map(int, arguments):
        near = sorted(range(len(FAMILIES)), key=lambda i: max(FOUND_AT[i] / rows, rows / FOUND_AT[i]))
        codes = [(i, make_long_code(columns_of(USUAL_BITS), rows, i)) for i in near[:2]]
        qber, family, code = max(((reach(code, orders), i, code) for i, code in codes), key=lambda t: t[0])
        f = code.rows / code.columns / binary_entropy(qber)
        sys.stdout.write(f"    ({qber:.6f}, {f:.4f}, {family}),\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
