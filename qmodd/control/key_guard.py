"""What is kept out of the key for the interferometer's sake, and why: pilot, actuator and bias facts, nothing else.

Leaving out intervals for their own X errors would make a bad channel look good (reference keys, no post-selection). So
this is the only place that decides it, and it is never told a count of X detections or anything computed from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from qmodd.control.phase_estimate import PhaseModel, PilotTally, from_pilot

HOP = "heater hops by one turn"
MOVE = "heater moves far"
ACTUATOR = "heater not under control"
TEMPERATURE = "temperature not stable"
BIAS = "detector bias"


@dataclass
class KeyGuard:
    """`model`: the fringe as calibrated; `offset_rad`: what the pilot reads at the optimum, as calibrated and not as
    learned since; `limit_rad`: error from which on a batch stays out by its pilot. Times are monotonic seconds."""

    model: PhaseModel
    offset_rad: float
    limit_rad: float
    kept_out: int = 0
    _until: dict[str, float] = field(default_factory=dict)
    _holding: dict[str, str] = field(default_factory=dict)

    def pilot_far(self, tally: PilotTally) -> bool:
        """A batch's own pilot says that the phase was off: keep the batch out. One that cannot be judged says nothing.

        Whole batches, not intervals: an interval that is kept out shows no pilot either.
        """
        if min(tally.dx0, tally.dx1) <= 0:
            return False
        seen = from_pilot(tally, self.model)
        far = abs(seen.value - math.sin(self.offset_rad)) > math.sin(self.limit_rad) + 3.0 * math.sqrt(seen.variance)
        self.kept_out += far
        return far

    def moving(self, reason: str, until_s: float) -> None:
        """The heater makes a move that takes until then to settle: HOP or MOVE."""
        self._until[reason] = max(until_s, self._until.get(reason, -math.inf))

    def fact(self, reason: str, holds: bool, why: str = "") -> None:
        """ACTUATOR, TEMPERATURE or BIAS holds, or holds no more."""
        if holds:
            self._holding[reason] = why
        else:
            self._holding.pop(reason, None)

    def reasons(self, now_s: float) -> frozenset[str]:
        """Why what is received now stays out of the key; empty: nothing stands against it."""
        self._until = {reason: until for reason, until in self._until.items() if until > now_s}
        return frozenset(self._holding) | frozenset(self._until)
