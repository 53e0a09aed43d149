"""Takes the temperature controller down after a safe stop: held for a moment, ramped towards the heat sink, off.

Held first, because most sessions are tried again within seconds and a thermal shock would cost them minutes. It goes
on while sessions fail, and ends when one takes the controller over. A daemon that is gone leaves the same to the
controller: its communication watchdog (MeCom parameter 2060) takes the output down without a word from anybody.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from drivers.errors import DriverError
from drivers.roles import TecReading, TecState, TemperatureController

# After the longest pause before a session is tried again; then so long for the ramp; both with what the last reading
# and writes take are within 60 s of the safe stop.
HOLD_S, RAMP_S = 20.0, 35.0
STEP_S = 1.0
# This near the heat sink the element pumps next to nothing.
NEAR_K = 1.0

Report = Callable[[str, dict[str, str | float]], None]


@dataclass
class TecRampDown:
    """One controller's way down. `told` gets what an operator should read of the output, `record` events; `done` is
    awaited at the end.

    `begin` starts it, `release` ends it for who regulates; `run` does the work and never returns.
    """

    tec: TemperatureController
    ramp_c_per_s: float
    now: Callable[[], float]
    told: Callable[[str], None]
    record: Report
    done: Callable[[], Awaitable[None]]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _since: float | None = None
    _ramp_at: float = 0.0
    _set_c: float = math.nan
    _why: str = ""
    _trouble: str = ""
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def active(self) -> bool:
        return self._since is not None

    def begin(self, why: str, hold_s: float = HOLD_S) -> None:
        """From now on; one that has begun goes on, sooner where `hold_s` says so."""
        now = self.now()
        if self._since is None:
            self._since, self._set_c, self._trouble = now, math.nan, ""
            self._ramp_at = now + hold_s
        self._ramp_at = min(self._ramp_at, now + hold_s)
        self._why = why
        self._wanted.set()

    async def release(self) -> None:
        """Somebody regulates again: nothing is written any more when this returns."""
        async with self._lock:
            self._end()

    def _end(self) -> None:
        self._since = None
        self._wanted.clear()

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            async with self._lock:
                await self._step()
            await self.sleep(STEP_S)

    async def _step(self) -> None:
        now = self.now()
        if self._since is None or now < self._ramp_at:
            return
        try:
            over = await self._lower(await self.tec.read(), now)
        except DriverError as e:
            # The controller's own watchdog is at work meanwhile; what is told is the truth as of now.
            if not self._trouble:
                self._trouble = str(e)
                self.record("tec.ramp_not_followed", {"why": self._trouble[:480]})
                self.told(f"{self._why}; its ramp cannot be followed ({e}), its own watchdog takes it down")
            over = now - self._ramp_at > RAMP_S
        if over:
            self._end()
            await self.done()

    async def _lower(self, r: TecReading, now: float) -> bool:
        """One step; True when the output is off by its own word."""
        if r.state in (TecState.OFF, TecState.ERROR):
            self.record("tec.ramped_down", {"why": self._why[:480], "object_c": round(r.object_c, 2)})
            self.told(f"{self._why}; ramped down, output off")
            return True
        if now - self._ramp_at > RAMP_S - 2.0 * STEP_S or abs(r.object_c - r.sink_c) <= NEAR_K:
            await self.tec.drive_current(None)
            await self.tec.enable(False)
            return False  # confirmed by the next reading
        if math.isnan(self._set_c):
            self._set_c = r.ramp_target_c
            self.told(f"{self._why}; being ramped down")
        step = self.ramp_c_per_s * STEP_S
        self._set_c += min(max(r.sink_c - self._set_c, -step), step)
        await self.tec.set_target(self._set_c)
        return False
