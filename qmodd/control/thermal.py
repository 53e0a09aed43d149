"""Supervises the TEC controller: gains, limits, a gentle ramp, stability, and a diagnosis where it fails."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from drivers.roles import TecReading, TecState, TemperatureController
from qmodd.clock import Clock
from qmodd.control.loop import LoopFault


@dataclass(frozen=True)
class ThermalConfig:
    """Gains after SIMC for the reference plant (reference pair A6.6).

    `feed_forward_k_per_w` lowers the submount's target by what the heaters' sum warms the die above it (A6.3), against
    the sum at `reference_w`; 0 turns it off.
    """

    target_c: float = 30.0
    kp_a_per_k: float = 0.95
    ti_s: float = 8.8
    current_limit_a: float = 2.0
    ramp_c_per_s: float = 0.5
    stable_k: float = 0.02
    stable_for_s: float = 2.0
    feed_forward_k_per_w: float = 0.0
    reference_w: float = 0.0
    runaway_k: float = 4.0
    sink_max_c: float = 70.0


def ramped(now_c: float, target_c: float, ramp_c_per_s: float, dt_s: float) -> float:
    """The next set point on the way to a target, never faster than the ramp."""
    reach = ramp_c_per_s * dt_s
    return min(max(target_c, now_c - reach), now_c + reach)


class TecLoop:
    """A loop's `step`. Raises LoopFault with a diagnosis, or a drivers.errors.DriverError."""

    def __init__(
        self,
        tec: TemperatureController,
        config: ThermalConfig,
        clock: Clock,
        heater_sum_w: Callable[[], float] | None = None,
    ) -> None:
        self._tec = tec
        self._config = config
        self._clock = clock
        self._heater_sum_w = heater_sum_w
        self._set_c: float | None = None
        self._last_s = 0.0
        self._within_since: float | None = None
        self._best_error_k = math.inf
        self.reading: TecReading | None = None

    async def start(self) -> None:
        """Gains and limits, then on, from where the temperature is now."""
        c = self._config
        await self._tec.set_gains(c.kp_a_per_k, c.ti_s)
        await self._tec.set_current_limit(c.current_limit_a)
        self.reading = await self._tec.read()
        self._last_s = self._clock.monotonic()
        if self.reading.state in (TecState.STABLE, TecState.NOT_STABLE):
            # It runs already, as after a restart of the daemon: turning it on anew would lose its integral.
            self._set_c = self.reading.target_c
            return
        self._set_c = self.reading.object_c
        await self._tec.set_target(self._set_c)
        await self._tec.enable(True)

    async def step(self, now_s: float) -> None:
        if self._set_c is None:
            await self.start()
        reading = self.reading = await self._tec.read()
        self._diagnose(reading)
        self._watch(reading, now_s)
        await self._lead(now_s)

    async def wait_stable(
        self, sleep: Callable[[float], Awaitable[None]], timeout_s: float, period_s: float = 0.5
    ) -> None:
        """Step until stable. Raises LoopFault when that takes longer than timeout_s."""
        end = self._clock.monotonic() + timeout_s
        while True:
            await self.step(self._clock.monotonic())
            if self.stable:
                return
            if self._clock.monotonic() >= end:
                r = self.reading
                where = f"{r.object_c:.3f} C, {r.current_a:+.2f} A" if r else "no reading"
                raise LoopFault(f"not stable at {self._target():.2f} C after {timeout_s:.0f} s: {where}")
            await sleep(period_s)

    @property
    def stable(self) -> bool:
        """The controller says so, and the reading has been within its window for long enough, as of the last step."""
        if self.reading is None or self._within_since is None or self.reading.state is not TecState.STABLE:
            return False
        return self._last_s - self._within_since >= self._config.stable_for_s

    def _target(self) -> float:
        c = self._config
        if self._heater_sum_w is None or c.feed_forward_k_per_w == 0.0:
            return c.target_c
        return c.target_c - c.feed_forward_k_per_w * (self._heater_sum_w() - c.reference_w)

    async def _lead(self, now_s: float) -> None:
        assert self._set_c is not None
        dt = max(0.0, now_s - self._last_s)
        self._last_s = now_s
        wanted = ramped(self._set_c, self._target(), self._config.ramp_c_per_s, dt)
        # Below 0.1 mK a write would only load the bus.
        if abs(wanted - self._set_c) > 1e-4:
            self._set_c = wanted
            await self._tec.set_target(wanted)

    def _watch(self, reading: TecReading, now_s: float) -> None:
        if abs(reading.object_c - self._target()) > self._config.stable_k:
            self._within_since = None
        elif self._within_since is None:
            self._within_since = now_s

    def _diagnose(self, r: TecReading) -> None:
        c = self._config
        if r.state is TecState.ERROR:
            raise LoopFault(f"the TEC controller reports error {r.error}")
        if not math.isfinite(r.object_c) or not -20.0 < r.object_c < 90.0:
            raise LoopFault(f"the object's thermistor reads {r.object_c:.1f} C: open or shorted")
        if r.sink_c > c.sink_max_c:
            raise LoopFault(f"heat sink at {r.sink_c:.1f} C; {c.sink_max_c:.0f} C is the limit (fan, mounting)")
        if r.state is TecState.OFF:
            raise LoopFault("the TEC controller is off although it was turned on")
        error = abs(r.object_c - r.ramp_target_c)
        self._best_error_k = min(self._best_error_k, error)
        railed = abs(r.current_a) > 0.95 * c.current_limit_a
        if railed and error > self._best_error_k + c.runaway_k:
            raise LoopFault(
                f"temperature runs away from its target ({r.object_c:.1f} C, target {r.ramp_target_c:.1f} C) at "
                f"{r.current_a:+.2f} A: Peltier element reversed or too weak"
            )
