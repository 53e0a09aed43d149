"""Bob's self-test laser behind its shutter: continuous, coherent light into his own input.

The shutter's drive passes a hardware interlock: it holds the shutter closed while any detector is biased.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sim.faults import FaultSchedule
from sim.individuals import Diode
from sim.physics.optics import from_db

OPEN_V = 4.5
WEAK = 0.3


class SelfTestDiode:
    """Dark and closed at the start. unbiased: line of the detectors' bias controller; swing: scale of its drift."""

    def __init__(self, individual: Diode, unbiased: Callable[[], bool], swing: float) -> None:
        self._i = individual
        self._unbiased = unbiased
        self._swing = swing
        self._stuck_v: float | None = None
        self._factor = 1.0
        self.drive_v = 0.0
        self.shutter_v = 0.0

    def apply_faults(self, faults: FaultSchedule, t: float) -> None:
        weak = faults.active("weak", "bob.diode", t)
        self._factor = 0.0 if faults.active("dead", "bob.diode", t) else weak.number(WEAK) if weak else 1.0
        stuck = faults.active("stuck", "bob.diode_shutter", t)
        self._stuck_v = stuck.number(self.position_v()) if stuck else None

    def position_v(self) -> float:
        """Drive to which the shutter's position belongs, V. One that hangs no longer obeys the interlock either."""
        if self._stuck_v is not None:
            return self._stuck_v
        return self.shutter_v if self._unbiased() else 0.0

    def shutter_db(self) -> float:
        """Loss of its shutter beyond that of the open one, dB."""
        closed = max(0.0, 1.0 - max(0.0, self.position_v()) / OPEN_V)
        return self._i.isolation_db * closed * closed

    def emitted_w(self) -> float:
        """Light in front of the shutter, W."""
        return self._factor * self._i.slope_w_per_v * max(0.0, self.drive_v - self._i.threshold_v)

    def entry_w(self) -> float:
        """Light that it adds at the module's input, W; 0 when it is off."""
        emitted = self.emitted_w()
        return emitted * from_db(self.shutter_db() + self._i.coupler_db) if emitted else 0.0

    def detuning_hz(self, t: float) -> float:
        """Its frequency at world time t, s, less the channel's."""
        i = self._i
        swings = zip(i.swing_hz.tolist(), i.swing_s.tolist(), i.swing_rad.tolist(), strict=True)
        slow = math.fsum(hz * math.sin(2.0 * math.pi * t / s + rad) for hz, s, rad in swings)
        return i.offset_hz + self._swing * slow
