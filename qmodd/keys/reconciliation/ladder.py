"""The ladder of codes: how many parity rows for which QBER.

Degrees and schedules come from random search on simulated frames. At `design_qber` some half frame in a hundred fails
at first (0 to 1.8 % by rung, 400 frames simulated); f there falls from 1.76 (0.17 %) over 1.50 (0.29 %), 1.38 (0.5 %),
1.28 (1 %) and 1.21 (2.3 %) to 1.16 (5 %). A failed frame costs 1/16 of its bits, so fewer failures would not pay.
"""

from __future__ import annotations

from qmodd.keys.reconciliation.codes import COLUMNS, Code, Schedule

# From this many rows on: columns of degree 2 and 3 (of 256), degree of the rest, schedule.
_FAMILIES = (
    (0, 0, 164, 12, Schedule(0.20, 0.96, 6.3, 2.3)),
    (14, 5, 164, 12, Schedule(0.24, 0.84, 3.1, 4.7)),
    (17, 0, 183, 13, Schedule(0.28, 0.91, 9.2, 3.4)),
    (29, 12, 181, 14, Schedule(0.21, 0.91, 6.6, 5.5)),
    (41, 23, 177, 14, Schedule(0.28, 0.88, 7.4, 4.4)),
    (57, 32, 174, 16, Schedule(0.16, 0.95, 8.4, 3.7)),
    (78, 42, 180, 22, Schedule(0.22, 0.92, 6.3, 5.3)),
)

# (rows, design QBER)
# fmt: off
_RUNGS = (
    (8, 0.00166), (9, 0.00204), (10, 0.00258), (11, 0.0029), (12, 0.0034), (13, 0.00378), (14, 0.00415),
    (15, 0.00457), (16, 0.00498), (17, 0.00545), (18, 0.00582), (19, 0.0064), (20, 0.00685), (21, 0.0073),
    (22, 0.0078), (23, 0.0083), (24, 0.00875), (26, 0.00975), (28, 0.0108), (30, 0.0116), (32, 0.0129),
    (34, 0.014), (36, 0.0152), (38, 0.0163), (40, 0.0174), (43, 0.0194), (46, 0.0212), (49, 0.0231),
    (52, 0.025), (56, 0.0275), (60, 0.0306), (64, 0.0335), (68, 0.0361), (72, 0.0387), (76, 0.0415),
    (80, 0.0454), (85, 0.05), (90, 0.0542), (96, 0.0595),
)
# fmt: on


def _code(rung: int, rows: int, design_qber: float) -> Code:
    _, twos, threes, top, schedule = [f for f in _FAMILIES if f[0] <= rows][-1]
    degrees = ((2, twos), (3, threes), (min(top, rows), COLUMNS - twos - threes))
    return Code(rung, rows, tuple((d, n) for d, n in degrees if n), design_qber, schedule)


LADDER = tuple(_code(i, rows, qber) for i, (rows, qber) in enumerate(_RUNGS))


def select_code(qber: float) -> Code:
    """The code of highest rate for frames of this QBER. Beyond the ladder (6 %) the strongest one, which will fail
    more and more often; there is little key to lose there. Raises ValueError outside 0 .. 1/2."""
    if not 0.0 <= qber < 0.5:
        raise ValueError(f"QBER {qber} is not in [0, 1/2)")
    return next((code for code in LADDER if code.design_qber >= qber), LADDER[-1])
