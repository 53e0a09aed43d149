"""Detectors that latch: noticed by their bias voltage, reset by taking the bias away, counted, limited.

Reference control B8."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from drivers.roles import DetectorBank
from qmodd.control.loop import LoopFault

LATCHED_V = 0.2
RESET_S = 0.05
MOST_RESETS, WINDOW_S = 10, 60.0


@dataclass
class LatchWatch:
    """A loop's `step`. `bias_a` are the working points; `told(latched, names)` brackets the reset of a latch.

    Raises LoopFault when more than ten resets were needed within a minute: bias too high, or too much light.
    """

    detectors: DetectorBank
    bias_a: Callable[[], tuple[float, ...] | None]
    told: Callable[[bool, str], None]
    sleep: Callable[[float], Awaitable[None]]
    resets: int = field(default=0, init=False)
    _times: deque[float] = field(default_factory=deque, init=False)

    async def step(self, now_s: float) -> None:
        bias = self.bias_a()
        if bias is None:
            return
        volts = await self.detectors.read_bias_voltage()
        latched = [abs(v) > LATCHED_V for v in volts]
        if not any(latched):
            return
        names = ", ".join(n for n, bad in zip(self.detectors.channels, latched, strict=True) if bad)
        self._count(now_s, names)
        self.told(True, names)
        await self.detectors.set_bias([0.0 if bad else b for b, bad in zip(bias, latched, strict=True)])
        await self.sleep(RESET_S)
        await self.detectors.set_bias(list(bias))
        self.told(False, names)

    def _count(self, now_s: float, names: str) -> None:
        self.resets += 1
        self._times.append(now_s)
        while now_s - self._times[0] > WINDOW_S:
            self._times.popleft()
        if len(self._times) > MOST_RESETS:
            raise LoopFault(f"detectors {names} latched {len(self._times)} times within {WINDOW_S:.0f} s")
