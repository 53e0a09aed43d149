"""The ladder of codes: which of them for which QBER.

Degrees and schedules of the families come from random search on simulated frames; the two QBERs of each rung are
measured, 240 and 60 frames (`python -m benchmarks.keys_ldpc_scan` does it again). A frame that fails at first costs
some 6 % more syndrome, less than the next rung for all frames would: that is why the thrifty choice lets some fail.
"""

from __future__ import annotations

from dataclasses import dataclass

from qmodd.keys.reconciliation.codes import COLUMNS, Code, Schedule
from qmodd.keys.reconciliation.rungs import FAMILIES, RUNGS


@dataclass(frozen=True)
class Family:
    """Columns of degree 2 in thousandths of the rows, of degree 4 and of degree `top` (of 256, the rest has degree 3),
    and the schedule that goes with them."""

    twos_share: int
    fours: int
    tops: int
    top: int
    schedule: Schedule

    def degrees(self, rows: int) -> tuple[tuple[int, int], ...]:
        """At most `rows` - 1 columns of degree 2, so that they form one zigzag without a cycle."""
        twos = min(rows - 1, rows * self.twos_share // 1000)
        counts = (
            (2, twos),
            (3, COLUMNS - twos - self.fours - self.tops),
            (4, self.fours),
            (min(self.top, rows), self.tops),
        )
        return tuple((degree, count) for degree, count in counts if count)


def make_code(rung: int, rows: int, family: int, sure_qber: float, thrifty_qber: float, seed: int = 1) -> Code:
    share, fours, tops, top, schedule = FAMILIES[family]
    made = Family(share, fours, tops, top, Schedule(*schedule))
    return Code(rung, rows, made.degrees(rows), made.schedule, sure_qber, thrifty_qber, seed)


LADDER = tuple(make_code(i, *rung) for i, rung in enumerate(RUNGS))


def select_code(qber: float, *, hurry: bool = False) -> Code:
    """The code of highest rate for frames of this QBER: with the fewest bits disclosed, help included, or (`hurry`)
    with help for one frame in a hundred at most.

    Beyond the ladder the strongest one, which will fail more and more often; there is no key to lose there. Raises
    ValueError outside 0 .. 1/2.
    """
    if not 0.0 <= qber < 0.5:
        raise ValueError(f"QBER {qber} is not in [0, 1/2)")
    reach = (code.sure_qber if hurry else code.thrifty_qber for code in LADDER)
    return next((code for code, most in zip(LADDER, reach, strict=True) if most >= qber), LADDER[-1])
