"""The ladder of codes: how many parity rows for which QBER.

Degrees and schedules were found by random search on simulated frames; `design_qber` is where less than about one frame
in a hundred fails at first, measured over some hundred frames a rung (benchmarks tell the figures).
"""

from __future__ import annotations

from qmodd.keys.reconciliation.codes import COLUMNS, Code, Schedule

# From this many rows on: columns of degree 2 and 3 (of 256), degree of the rest, schedule.
_FAMILIES = (
    (0, 0, 164, 12, Schedule(0.20, 0.96, 6.3, 2.3)),
    (14, 5, 164, 12, Schedule(0.24, 0.84, 3.1, 4.7)),
    (15, 0, 183, 13, Schedule(0.28, 0.91, 9.2, 3.4)),
    (29, 12, 181, 14, Schedule(0.21, 0.91, 6.6, 5.5)),
    (41, 23, 177, 14, Schedule(0.28, 0.88, 7.4, 4.4)),
    (57, 32, 174, 16, Schedule(0.16, 0.95, 8.4, 3.7)),
    (78, 42, 180, 22, Schedule(0.22, 0.92, 6.3, 5.3)),
)

# (rows, design QBER)
_RUNGS = (
    (8, 0.0018),
    (9, 0.0022),
    (10, 0.0026),
    (11, 0.0030),
    (12, 0.0034),
    (13, 0.0038),
    (14, 0.0042),
    (15, 0.0046),
    (16, 0.0050),
    (17, 0.0054),
    (18, 0.0058),
    (19, 0.0063),
    (20, 0.0068),
    (21, 0.0073),
    (22, 0.0078),
    (23, 0.0083),
    (24, 0.0088),
    (26, 0.0098),
    (28, 0.0108),
    (30, 0.0118),
    (32, 0.0129),
    (34, 0.0140),
    (36, 0.0151),
    (38, 0.0162),
    (40, 0.0174),
    (43, 0.0191),
    (46, 0.0209),
    (49, 0.0228),
    (52, 0.0247),
    (56, 0.0272),
    (60, 0.0297),
    (64, 0.0325),
    (68, 0.0353),
    (72, 0.0380),
    (76, 0.0410),
    (80, 0.0440),
    (85, 0.0475),
    (90, 0.0515),
    (96, 0.0560),
)


def _code(rung: int, rows: int, design_qber: float) -> Code:
    _, twos, threes, top, schedule = [f for f in _FAMILIES if f[0] <= rows][-1]
    degrees = ((2, twos), (3, threes), (min(top, rows), COLUMNS - twos - threes))
    return Code(rung, rows, tuple((d, n) for d, n in degrees if n), design_qber, schedule)


LADDER = tuple(_code(i, rows, qber) for i, (rows, qber) in enumerate(_RUNGS))


def select_code(qber: float) -> Code:
    """The code of highest rate for frames of this QBER. Beyond the ladder (5.6 %) the strongest one, which will fail
    more and more often; there is little key to lose there. Raises ValueError outside 0 .. 1/2."""
    if not 0.0 <= qber < 0.5:
        raise ValueError(f"QBER {qber} is not in [0, 1/2)")
    return next((code for code in LADDER if code.design_qber >= qber), LADDER[-1])
