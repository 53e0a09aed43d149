"""The transmitter looks at its own states inside a run of keys, and holds their modulators by what it sees itself.

Now and then a third of a second of slots carries one class after another (FIX) instead of symbols. They are scheduled
by slot, so that no edge falls into a symbol; the source answers them as not valid, so that nothing of them can become
key. PA3 then reads every class by itself: Q(X0)/Q(X1) = 1 + sin d tells the state modulator's bias, signed, and decoy
over signal is the ratio that the key length rests on (reference pair A5). Nobody outside can shape these readings.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from calibration.context import CalibrationContext
from drivers.errors import Refused
from drivers.roles import LightMode
from qmodd.control.facts import Railed
from qmodd.control.modulators import DecoyLock

# (state, intensity) of the windows, in order.
WINDOWS = ((2, 0), (3, 0), (0, 0), (1, 0), (0, 1), (1, 1))
# The source wants 0.2 s of lead for each of the settings; sending them takes a part of it.
LEAD_S, WINDOW_S = 0.5, 0.06
# Photodiodes are read from this share of a window on; 64 conversions take a quarter of it.
FROM = 0.25
SAMPLES = 64
# Keys are sent again for this long before anything else reads the light.
MARGIN_S = 0.02
STATE_LIMIT_V = 0.6


@dataclass(frozen=True)
class StateLaw:
    """d ln(Q(X0)/Q(X1))/dV, and the bias at which both are equal as of the last alignment, V."""

    slope_per_v: float
    null_v: float


@dataclass(frozen=True)
class DecoyLaw:
    """Ratio of the intensities that is wanted, and the share of PA3's reading that no pulse makes."""

    ratio: float
    background: float


@dataclass
class SourceProbe:
    """A loop's `step`. `active`: keys are being made; `lock` holds the decoy between two looks.

    Raises Railed when the state bias would have to leave its alignment by more than `limit_v`, and what drivers raise.
    """

    context: CalibrationContext
    active: Callable[[], bool]
    state: StateLaw
    decoy: DecoyLaw
    lock: DecoyLock
    write_state: Callable[[float], Awaitable[None]]
    gain: float = 0.8
    limit_v: float = STATE_LIMIT_V
    probing: bool = field(default=False, init=False)
    volts: float = field(init=False)
    state_error: float = field(default=0.0, init=False)
    decoy_error: float = field(default=0.0, init=False)
    looks: int = field(default=0, init=False)
    missed: int = field(default=0, init=False)
    _over_s: float = field(default=-math.inf, init=False)

    def __post_init__(self) -> None:
        self.volts = self.state.null_v

    async def step(self, now_s: float) -> None:
        if not self.active():
            return
        self.probing = True
        try:
            seen = await self._look()
            # Nobody else may take the last window's light for that of keys.
            await self.context.sleep(max(0.0, self._over_s - self.context.clock.monotonic()))
        finally:
            self.probing = False
        if seen is None:
            self.missed += 1
            return
        self.looks += 1
        await self._apply(seen)

    async def _look(self) -> list[float] | None:
        """PA3 by window, A; None where the run ended meanwhile or a reading came too late for its window."""
        source, clock = self.context.need_source(), self.context.clock
        run, slot = await source.now()
        began_s = clock.monotonic()
        self._over_s = began_s
        per_s = 1e12 / source.period_ps
        starts = [slot + math.ceil((LEAD_S + k * WINDOW_S) * per_s) for k in range(len(WINDOWS) + 1)]
        try:
            for start, (state, intensity) in zip(starts, WINDOWS, strict=False):
                await source.set_mode(LightMode.FIX, state, intensity, at_slot=start)
            await source.set_mode(LightMode.KEY, at_slot=starts[-1])
        except Refused:
            # Too late for one of them: what was planned is replaced by keys at once.
            await source.set_mode(LightMode.KEY if self.active() else LightMode.OFF)
            return None
        if not self.active():
            # The run's end has darkened the source before all this was planned.
            await source.set_mode(LightMode.OFF)
            return None
        self._over_s = began_s + LEAD_S + len(WINDOWS) * WINDOW_S + MARGIN_S
        seen = []
        for k in range(len(WINDOWS)):
            due_s = began_s + LEAD_S + (k + FROM) * WINDOW_S
            await self.context.sleep(max(0.0, due_s - clock.monotonic()))
            amperes = (await self.context.photocurrents("pa3", samples=SAMPLES))["pa3"]
            now_run, now = await source.now()
            if now_run != run or not starts[k] <= now < starts[k + 1] or not self.active() or amperes <= 0.0:
                return None
            seen.append(amperes)
        return seen

    async def _apply(self, seen: list[float]) -> None:
        x0, x1, z0, z1, weak0, weak1 = seen
        background = self.decoy.background
        ratio = ((weak0 + weak1) / (z0 + z1) - background) / (1.0 - background)
        self.state_error = math.log(x0 / x1)
        self.decoy_error = math.log(max(ratio, 1e-6) / self.decoy.ratio)
        self.lock.probed(self.decoy_error)
        volts = self.volts - self.gain * self.state_error / self.state.slope_per_v
        if abs(volts - self.state.null_v) > self.limit_v:
            moved = volts - self.state.null_v
            raise Railed("state", f"state modulator: bias moved {moved:+.2f} V, {self.limit_v} V is the limit")
        self.volts = volts
        await self.write_state(volts)
