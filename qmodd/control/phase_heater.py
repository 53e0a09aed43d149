"""The heater that turns the receiver's phase, with what has to move beside it so that nothing else turns.

A phase is a straight line in the powers of all heaters: the other elements are held against the crosstalk of this one,
and where there is a ballast the sum of all stays, so that the die does not warm (reference control B3, pair A6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from calibration.context import CalibrationContext
from calibration.record import Record

PHASE, BALLAST = "phase", "ballast"
OTHERS = ("basis", "split", "combine")
# What the warming of the die adds to a heater's own effect on its interferometer (reference pair A6, 3).
DIE_SHARE = 0.156
# Power changes below this are not worth a transaction, W (0.04 degrees of phase).
LEAST_W = 8e-6
# The part measures its supply in windows of this length, two of which hold a change, s (reference pair A6).
RAIL_WINDOW_S = 0.12
RAIL_QUIESCENT_A = (0.0, 0.010)
# The sum of the currents must be what was written to this, A: a tenth of a heater's drive.
RAIL_TOLERANCE_A = 0.002


def per_radian(
    p_pi_w: float, crosstalk: Record | None = None, others: tuple[str, ...] = OTHERS, ballast: bool = False
) -> dict[str, float]:
    """W of every heater for one more radian of the phase, all other phases held.

    p_pi_w: of the phase heater, the die's warming included. Without a crosstalk record the phase heater moves alone,
    and a ballast against it.
    """
    if crosstalk is None:
        alone = p_pi_w / math.pi
        if not ballast:
            return {PHASE: alone}
        return {PHASE: alone * (1.0 + DIE_SHARE), BALLAST: -alone * (1.0 + DIE_SHARE)}
    v = crosstalk.value
    names = [PHASE, *(n for n in others if f"p_pi_{n}_w" in v)]
    gain = np.array(
        [[v.get(f"theta_{i}_{j}", float(i == j)) * math.pi / v[f"p_pi_{j}_w"] for j in names] for i in names]
    )
    if not ballast:
        gain += np.array([[v.get(f"common_{i}_rad_per_w", 0.0)] * len(names) for i in names])
    wanted = np.zeros(len(names))
    wanted[0] = 1.0
    powers = np.linalg.solve(gain, wanted)
    out = {n: float(p) for n, p in zip(names, powers, strict=True)}
    if ballast:
        out[BALLAST] = -float(powers.sum())
    return out


@dataclass
class PhaseHeater:
    """`base_w`: powers at phase 0; `per_rad_w` as from `per_radian`; `max_w`: largest power of each channel.

    The range is that of the phase heater and of the ballast; the others, which move by little, stop at their own rails.
    """

    context: CalibrationContext
    per_rad_w: Mapping[str, float]
    base_w: dict[str, float]
    max_w: Mapping[str, float]
    written: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, context: CalibrationContext, p_pi_w: float) -> PhaseHeater:
        """From the records in force, about where the heaters are. Raises CalibrationRefused without heater records."""
        drive, channels = context.drive, context.heaters.channels
        ballast = BALLAST in channels and f"{BALLAST}_r0_ohm" in context.record("heater_iv").value
        line = per_radian(p_pi_w, context.store.active("crosstalk"), ballast=ballast)
        base = {name: drive.power(name) for name in line}
        most = {name: drive.max_power(name) for name in line}
        if ballast:
            # Together they draw what keeps both within their range over a whole turn and more.
            base[BALLAST] = min(most[BALLAST], max(0.0, min(most[PHASE], most[BALLAST]) - base[PHASE]))
        return cls(context, line, base, most)

    @property
    def balanced(self) -> bool:
        """A ballast keeps the sum of the powers."""
        return BALLAST in self.per_rad_w

    @property
    def low_rad(self) -> float:
        return max(min(self._ends(name)) for name in self._limiting())

    @property
    def high_rad(self) -> float:
        return min(max(self._ends(name)) for name in self._limiting())

    def powers(self, phase_rad: float) -> dict[str, float]:
        """W by channel, each within its range."""
        return {
            name: min(max(self.base_w[name] + slope * phase_rad, 0.0), self.max_w[name])
            for name, slope in self.per_rad_w.items()
        }

    async def go(self, phase_rad: float) -> float:
        """Write what has changed; the change of the sum of all powers, W. Raises drivers.errors.DriverError."""
        wanted, drive = self.powers(phase_rad), self.context.drive
        before = math.fsum(self.written.get(name, drive.power(name)) for name in wanted)
        for name in sorted(wanted, key=lambda n: n != PHASE):
            if name not in self.written or abs(wanted[name] - self.written[name]) >= LEAST_W:
                await drive.set_power(name, wanted[name])
                self.written[name] = wanted[name]
        return math.fsum(self.written[name] for name in wanted) - before

    def _limiting(self) -> list[str]:
        return [name for name in (PHASE, BALLAST) if name in self.per_rad_w]

    def _ends(self, name: str) -> tuple[float, float]:
        slope = self.per_rad_w[name]
        return -self.base_w[name] / slope, (self.max_w[name] - self.base_w[name]) / slope


@dataclass
class RailWatch:
    """Whether the current that the heaters draw is what was written: a source that does not obey shows here, whatever
    it answers on its bus (reference pair A6: supply monitor).

    What else hangs on the rail is learned once, within limits. Times are monotonic seconds.
    """

    context: CalibrationContext
    quiescent_a: float | None = None
    _changed_s: float = -math.inf
    _sum_a: float = -1.0

    def note(self, now_s: float) -> None:
        """After every write: the monitor needs two windows to show a change."""
        total = self._total()
        if abs(total - self._sum_a) > 0.25 * RAIL_TOLERANCE_A:
            self._changed_s = now_s
            self._sum_a = total

    async def check(self, now_s: float) -> str | None:
        """Why the heaters are not what they were told, "" when they are, None while the monitor cannot tell yet.

        Raises drivers.errors.DriverError.
        """
        if now_s - self._changed_s < RAIL_WINDOW_S:
            return None
        drawn = (await self.context.rail.read()).current_a
        rest, written = drawn - self._total(), self._total()
        if self.quiescent_a is None and RAIL_QUIESCENT_A[0] <= rest <= RAIL_QUIESCENT_A[1]:
            self.quiescent_a = rest
        expected = written + (self.quiescent_a if self.quiescent_a is not None else 0.004)
        if abs(drawn - expected) <= RAIL_TOLERANCE_A:
            return ""
        return (
            f"heaters draw {drawn * 1e3:.1f} mA where {expected * 1e3:.1f} mA were written; "
            f"{RAIL_TOLERANCE_A * 1e3:g} mA is the limit"
        )

    def _total(self) -> float:
        heaters = self.context.heaters
        return math.fsum(heaters.current(name) for name in heaters.channels if name != "spare")
