"""Supervises the TEC controller: identifies its plant, sets gains and limits, ramps gently, feeds the heaters' sum
forward, knows when the chip is stable, and says why where it fails."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from calibration.fit import FitRefused
from calibration.tec_experiment import Experiment, Identified, Relay, experiment
from drivers.roles import TecReading, TecState, TemperatureController
from qmodd.clock import Clock
from qmodd.control.facts import Fact, Freshness, LoopFault, Railed
from qmodd.control.feed_forward import NOMINAL_W_PER_A, TargetOffset, Tuning, ramped

# Changes of the heaters' sum below this are not worth a write, W (0.1 mK of target).
SUM_STEP_W = 0.2e-3
# How far the target may lead a driven temperature: about what the current that drives it is worth to the regulator.
AHEAD_K = 0.6
# While identifying: readings a step of the loop, and the time between them.
READINGS, READING_S = 4, 0.1


@dataclass(frozen=True)
class ThermalConfig:
    """Working point and limits; the gains are the start values, used until the plant has been identified.

    `period_s` is the loop's own.
    """

    target_c: float = 30.0
    kp_a_per_k: float = 0.95
    ti_s: float = 8.8
    current_limit_a: float = 2.0
    ramp_c_per_s: float = 0.5
    stable_k: float = 0.02
    stable_for_s: float = 2.0
    runaway_k: float = 4.0
    sink_max_c: float = 70.0
    period_s: float = 0.5


class TecLoop:
    """A loop's `step`. Raises LoopFault with a diagnosis, or a drivers.errors.DriverError.

    Without a `tuning` the plant is identified first, on the way to the target where there is one: that costs no time.
    `identified` is awaited with what was found, once the chip is within 0.1 K of its target. `heater_sum_w` gives the
    power of all heaters (None: not known yet); its changes are fed forward.
    """

    def __init__(
        self,
        tec: TemperatureController,
        config: ThermalConfig,
        clock: Clock,
        heater_sum_w: Callable[[], float | None] | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        tuning: Tuning | None = None,
        identified: Callable[[Identified], Awaitable[None]] | None = None,
    ) -> None:
        self._tec = tec
        self._config = config
        self._clock = clock
        self._sum = heater_sum_w or (lambda: None)
        self._sleep = sleep
        self._identified = identified
        # Somebody else has the set point: the loop goes on reading and diagnosing, and writes nothing.
        self.let_go: Callable[[], bool] = lambda: False
        self._wanted = tuning is None and identified is not None
        self.tuning = tuning or Tuning(config.kp_a_per_k, config.ti_s, config.current_limit_a)
        self.found: Identified | None = None
        self.not_identified = ""
        self._to_store: Identified | None = None
        self._experiment: Experiment | None = None
        self._done: asyncio.Future[Identified] | None = None
        self._set_c: float | None = None
        self._written_c = math.nan
        self._offset = TargetOffset()
        self._sum_seen: float | None = None
        self._last_s = 0.0
        self._within_since: float | None = None
        self._best_error_k = math.inf
        self._turned_off = ""
        self._fresh = Freshness("thermistor", config.period_s, repeats=12)
        self._facts: tuple[Fact, ...] = ()
        self.reading: TecReading | None = None

    # start

    async def start(self) -> None:
        """Gains and limits, then on, from where the temperature is now; or the identification, where it is wanted."""
        await self._set_tuning(self.tuning)
        self.reading = await self._tec.read()
        self._last_s = self._clock.monotonic()
        # It may run already, as after a restart of the daemon: turning it on anew would lose its integral.
        runs = self.reading.state in (TecState.STABLE, TecState.NOT_STABLE)
        self._set_c = self.reading.target_c if runs else self.reading.object_c
        c = self._config
        chosen = experiment(self.reading, c.target_c, self.tuning.clamp_a, c.ramp_c_per_s) if self._wanted else None
        if chosen is not None:
            await self._begin(chosen, runs)
        elif not runs:
            await self._write_target()
            await self._tec.enable(True)

    async def _set_tuning(self, tuning: Tuning) -> None:
        self.tuning = tuning
        await self._tec.set_gains(tuning.kp_a_per_k, tuning.ti_s)
        await self._tec.set_current_limit(min(tuning.clamp_a, self._config.current_limit_a))

    def aim(self, celsius: float) -> None:
        """Another target from the next step on; the way there is ramped as always."""
        self._config = replace(self._config, target_c=celsius)
        self._within_since, self._best_error_k = None, math.inf

    async def step(self, now_s: float) -> None:
        if self._set_c is None:
            await self.start()
        if self._experiment is not None:
            await self._experiment_step()
            return
        reading = self.reading = await self._tec.read()
        await self._diagnose(reading)
        self._find_facts(reading, now_s)
        self._watch(reading, now_s)
        await self._lead(now_s)
        await self._store()
        if self._wanted and self._within_since is not None and now_s - self._within_since >= self._config.stable_for_s:
            await self._begin(Relay(self.tuning.clamp_a), running=True)

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
                raise LoopFault(f"not stable at {self._config.target_c:.2f} C after {timeout_s:.0f} s: {where}")
            await sleep(period_s)

    # what it knows

    @property
    def stable(self) -> bool:
        """The controller says so, and the reading has been within its window for long enough, as of the last step."""
        if self.reading is None or self._within_since is None or self.reading.state is not TecState.STABLE:
            return False
        return not self._facts and self._last_s - self._within_since >= self._config.stable_for_s

    @property
    def identifying(self) -> bool:
        """The current is driven, not regulated: the temperature is nobody's set point."""
        return self._experiment is not None

    @property
    def offset_k(self) -> float:
        """What the feed-forward adds to the target now."""
        return self._offset.kelvin

    def facts(self) -> tuple[Fact, ...]:
        """Stale reading, railed current; as of the last step."""
        return self._facts

    # feed-forward

    async def feed_forward(self, delta_w: float) -> None:
        """The heaters' sum changes by delta_w (W) now: meet it at once. The loop does not count it again."""
        if self._sum_seen is not None:
            self._sum_seen += delta_w
        self._meet(delta_w)
        if self._set_c is not None and self._experiment is None:
            await self._write_target()

    def _meet(self, delta_w: float) -> None:
        t = self.tuning
        self._offset.add(delta_w / t.watts_per_a, t.kp_a_per_k)

    def _follow_sum(self) -> None:
        now = self._sum()
        if now is None:
            return
        if self._sum_seen is None:
            # The first sum that is known: what it is has been regulated out long ago.
            self._sum_seen = now
        elif abs(now - self._sum_seen) >= SUM_STEP_W:
            self._meet(now - self._sum_seen)
            self._sum_seen = now

    # identification

    async def identify(self) -> Identified:
        """By command: a relay about the present temperature, in the loop's own steps; regulation then goes on with the
        new gains. Raises FitRefused, or LoopFault while the loop is not running."""
        if self.reading is None or self._experiment is not None:
            raise LoopFault("the temperature loop is not regulating")
        self._done = asyncio.get_running_loop().create_future()
        await self._begin(Relay(self.tuning.clamp_a), running=True)
        return await self._done

    async def _begin(self, chosen: Experiment, running: bool) -> None:
        self._wanted = False
        self._within_since = None
        self.reading = await self._tec.read()
        await self._drive(chosen, self._clock.monotonic())
        if not running:
            await self._tec.enable(True)
        self._experiment = chosen

    async def _drive(self, chosen: Experiment, at_s: float) -> bool:
        """One reading; the current that follows from it. False when the experiment is over."""
        assert self.reading is not None
        amperes = chosen.step(at_s, self.reading)
        if amperes is None:
            return False
        if not chosen.drives(amperes):
            await self._tec.drive_current(amperes)
            chosen.drove(self._clock.monotonic(), amperes)
        return True

    async def _experiment_step(self) -> None:
        """A few readings, for a loop's period is too long for the plant's delay."""
        assert self._experiment is not None
        chosen = self._experiment
        for n in range(READINGS):
            if n:
                await self._sleep(READING_S)
            began = self._clock.monotonic()
            self.reading = replace(await self._tec.read(), state=TecState.NOT_STABLE)
            self._last_s = self._clock.monotonic()
            try:
                self._check_reading(self.reading)
                if not n:
                    await self._lead_driven()
                if await self._drive(chosen, 0.5 * (began + self._last_s)):
                    continue
            except (FitRefused, LoopFault) as e:
                await self._give_up(e)
            await self._evaluate(chosen)
            return

    async def _lead_driven(self) -> None:
        """The controller ramps its target by itself, driven or not: it has to be where regulation will begin."""
        assert self.reading is not None
        target, now = self._config.target_c, self.reading.object_c
        self._set_c = min(max(target, now - AHEAD_K), now + AHEAD_K)
        await self._write_target()

    async def _give_up(self, error: Exception) -> None:
        """A plant that does not do what a plant does: no regulation may follow. Raises LoopFault."""
        self._experiment = None
        self._set_c = None
        self._wanted = self._identified is not None and self._done is None
        await self._tec.enable(False)
        await self._tec.drive_current(None)
        self._finish(error)
        raise LoopFault(f"temperature controller: {error}") from error

    async def _evaluate(self, chosen: Experiment) -> None:
        try:
            found = chosen.evaluate().at(self._config.target_c)
        except FitRefused as e:
            # It responds, and with the right sign: the start values serve, and nothing is stored.
            self.not_identified = str(e)
            self._finish(e)
            await self._regulate(chosen.hold_a)
            return
        self.found, self.not_identified = found, ""
        clamp = found.clamp_a(self._config.current_limit_a)
        watts = found.watts_per_a()
        await self._set_tuning(Tuning(*found.gains(), clamp, watts if watts else NOMINAL_W_PER_A))
        if self._done is None:
            self._to_store = found
        self._finish(found)
        await self._regulate(found.hold_a)

    def _finish(self, outcome: Identified | Exception) -> None:
        if self._done is not None and not self._done.done():
            if isinstance(outcome, Exception):
                self._done.set_exception(outcome)
            else:
                self._done.set_result(outcome)
        self._done = None

    async def _regulate(self, hold_a: float) -> None:
        """Regulation begins with an empty integral: what it has to hold is given to it as an offset of the target."""
        assert self.reading is not None
        self._experiment = None
        c = self._config
        self._set_c = min(max(c.target_c, self.reading.object_c - AHEAD_K), self.reading.object_c + AHEAD_K)
        self._offset = TargetOffset()
        self._offset.add(hold_a, self.tuning.kp_a_per_k)
        self._sum_seen = None
        self._fresh.restart()
        self._best_error_k = math.inf
        await self._write_target()
        await self._tec.drive_current(None)

    async def _store(self) -> None:
        if self._to_store is None or self._identified is None:
            return
        if self._near(0.1):
            found, self._to_store = self._to_store, None
            await self._identified(found)

    # regulation

    async def _lead(self, now_s: float) -> None:
        assert self._set_c is not None
        dt = max(0.0, now_s - self._last_s)
        self._last_s = now_s
        self._offset.advance(dt, self.tuning.ti_s)
        self._follow_sum()
        self._set_c = ramped(self._set_c, self._config.target_c, self._config.ramp_c_per_s, dt)
        # Below 0.1 mK a write would only load the bus.
        if not abs(self._set_c + self._offset.kelvin - self._written_c) <= 1e-4:
            await self._write_target()

    def _near(self, kelvin: float) -> bool:
        return self.reading is not None and abs(self.reading.object_c - self._config.target_c) < kelvin

    async def _write_target(self) -> None:
        assert self._set_c is not None
        if self.let_go():
            return
        wanted = self._set_c + self._offset.kelvin
        await self._tec.set_target(wanted)
        self._written_c = wanted

    def _watch(self, reading: TecReading, now_s: float) -> None:
        if abs(reading.object_c - self._config.target_c) > self._config.stable_k:
            self._within_since = None
        elif self._within_since is None:
            self._within_since = now_s

    def _find_facts(self, r: TecReading, now_s: float) -> None:
        found: list[Fact] = []
        if (stale := self._fresh.see((r.object_c, r.current_a, r.sink_c), now_s)) is not None:
            found.append(stale)
        limit = min(self.tuning.clamp_a, self._config.current_limit_a)
        if abs(r.current_a) > 0.98 * limit:
            found.append(Railed("TEC current", f"TEC current {r.current_a:+.2f} A is at its limit of {limit:.2f} A"))
        self._facts = tuple(found)

    def _check_reading(self, r: TecReading) -> None:
        c = self._config
        if r.state is TecState.ERROR:
            raise LoopFault(f"the TEC controller reports error {r.error}")
        if not math.isfinite(r.object_c) or not -20.0 < r.object_c < 90.0:
            raise LoopFault(f"the object's thermistor reads {r.object_c:.1f} C: open or shorted")
        if r.sink_c > c.sink_max_c:
            raise LoopFault(f"heat sink at {r.sink_c:.1f} C; {c.sink_max_c:.0f} C is the limit (fan, mounting)")

    async def _diagnose(self, r: TecReading) -> None:
        self._check_reading(r)
        if r.state is TecState.OFF:
            raise LoopFault(self._turned_off or "the TEC controller is off although it was turned on")
        c = self._config
        error = abs(r.object_c - r.ramp_target_c)
        self._best_error_k = min(self._best_error_k, error)
        railed = abs(r.current_a) > 0.95 * min(self.tuning.clamp_a, c.current_limit_a)
        if railed and error > self._best_error_k + c.runaway_k:
            # Holding on would only make it worse.
            await self._tec.enable(False)
            wants = "warm" if r.current_a < 0.0 else "cool"
            self._turned_off = (
                f"CHECK POLARITY: temperature runs away from its target ({r.object_c:.1f} C, target "
                f"{r.ramp_target_c:.1f} C, {error - self._best_error_k:.1f} K further than it was; {c.runaway_k:g} K "
                f"is the limit) at {r.current_a:+.2f} A, which should {wants} it: Peltier element reversed or too weak"
            )
            raise LoopFault(self._turned_off)
