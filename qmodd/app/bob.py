"""The receiver: calibrates with the transmitter's light, then keeps the interferometers in phase while keying."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field

from calibration.context import CalibrationContext, LightRefused
from calibration.graph import Graph, bring_up
from calibration.names import DETECTORS
from calibration.procedures import bob_graph
from drivers.errors import Refused
from drivers.roles import LightMode
from qmodd.app.operator import Operator
from qmodd.control.detectors import LatchWatch
from qmodd.control.loop import LoopFault, Scheduler
from qmodd.control.phase_lock import LockReport, PhaseCounts, PhaseLock, PhaseLockConfig, Stage
from qmodd.keys.bob_engine import BobEngine
from qmodd.keys.counts import BatchReport
from qmodd.lifecycle import Activity, Operational
from qmodd.module import Module

# How long the receiver waits for a transmitter that is still getting ready before it says that calibration failed.
LIGHT_PATIENCE_S = 600.0
LIGHT_RETRY_S = 1.0
LIGHT_ANSWER_S = 5.0
# The lock follows what the die does within this; beyond it the fringe itself moves too fast.
LOCK_K = 0.1


@dataclass
class PatientLight:
    """The transmitter's light over the service channel; a transmitter that is not ready yet is waited for."""

    operator: BobOperator

    async def set(self, mode: LightMode, state: int = 0, intensity: int = 0, photons_scale: float = 1.0) -> None:
        """Raises LightRefused with the transmitter's last reason when it has not been ready for ten minutes."""
        wiring = self.operator.wiring
        end = wiring.clock.monotonic() + LIGHT_PATIENCE_S
        while True:
            try:
                await self._ask(mode, state, intensity, photons_scale)
                return
            except LightRefused as e:
                if wiring.clock.monotonic() > end:
                    raise
                wiring.life.set_activity(Activity.CALIBRATING, f"waiting for the transmitter's light: {e}")
            await asyncio.sleep(LIGHT_RETRY_S)

    async def _ask(self, mode: LightMode, state: int, intensity: int, scale: float) -> None:
        engine = self.operator.wiring.engine
        assert isinstance(engine, BobEngine)
        try:
            async with asyncio.timeout(LIGHT_ANSWER_S):
                await engine.request_light(mode, state, intensity, scale)
        except Refused as e:
            raise LightRefused(str(e)) from e
        except TimeoutError:
            raise LightRefused(f"no answer from the transmitter within {LIGHT_ANSWER_S:g} s") from None


@dataclass
class BobOperator(Operator):
    _batches: deque[tuple[BatchReport, float]] = field(default_factory=lambda: deque(maxlen=256))
    _flagged: str | None = None
    lock: PhaseLock | None = None

    def graph(self) -> Graph:
        return bob_graph()

    def context(self, module: Module) -> CalibrationContext:
        context = self.wiring.calibration_context(module, self.progress)
        context.tags, context.detectors = module.tags, module.detectors
        context.light = PatientLight(self)
        return context

    def add_loops(self, scheduler: Scheduler, module: Module, context: CalibrationContext) -> None:
        self.add_tec_loop(scheduler, module)
        self.lock = None

        async def phase(now_s: float) -> None:
            await self._phase_step(module, context, now_s)

        watch = LatchWatch(module.detectors, lambda: self._working_bias(context), self._latched, asyncio.sleep)
        self.wiring.add_loop(scheduler, "detector latch", self.wiring.heartbeat_s, watch.step)
        self.wiring.add_loop(scheduler, "interferometer phase", self.wiring.config.control.phase_period_s, phase)

    async def serve(self, module: Module, context: CalibrationContext) -> None:
        life = self.wiring.life
        life.set_activity(Activity.LOCKING, "interferometer phase at its calibrated set point")
        self.lock = PhaseLock(self._lock_config(context), context.drive.power("phase"))
        self._batches.clear()
        life.set_operational(Operational.ENABLED, "calibrated; all loops check in")
        life.set_activity(Activity.READY, "waiting for the transmitter to start keys")
        await self.wiring.key_while_allowed(self._sweep_if_asked(module, context))

    def _lock_config(self, context: CalibrationContext) -> PhaseLockConfig:
        control = self.wiring.config.control
        return PhaseLockConfig.of(
            context.record("arm_phase"),
            context.drive.max_power("phase"),
            error_limit=math.radians(control.phase_limit_deg),
            visibility_min=control.visibility_min,
            interval_max_s=10.0 * control.phase_period_s,
            fresh_s=5.0 * control.phase_period_s,
            hold_max_s=60.0 * control.phase_period_s,
            degraded_max_s=10.0 * control.phase_period_s,
            recalibrate_after_s=5.0 * control.phase_period_s,
        )

    def on_batch(self, batch: BatchReport, seconds: float) -> None:
        """For the engine: public counts of one batch."""
        self._batches.append((batch, seconds))

    async def _phase_step(self, module: Module, context: CalibrationContext, now_s: float) -> None:
        lock = self.lock
        if lock is None or not self.in_service:
            self._batches.clear()
            return
        total: PhaseCounts | None = None
        while self._batches:
            batch, seconds = self._batches.popleft()
            counts = PhaseCounts.of(batch, seconds)
            total = counts if total is None else total + counts
        action = lock.update(now_s, total, ready=self.temperature_within(LOCK_K))
        if action.power_w != context.drive.power("phase"):
            await context.drive.set_power("phase", action.power_w)
        self._flag(action.flag)
        self.wiring.report_lock(lock.report())
        if action.stage is Stage.FAULT:
            raise LoopFault(f"interferometer phase: {lock.report().why}")
        if action.request is not None:
            self.wiring.sweep_wanted.set()

    def _working_bias(self, context: CalibrationContext) -> tuple[float, ...] | None:
        """A per detector while in service; while a calibration moves the bias it looks after latches itself."""
        record = context.store.active("detector_bias")
        if record is None or not self.in_service:
            return None
        return tuple(record.value[f"{name}_bias_a"] for name in DETECTORS)

    def _latched(self, latched: bool, names: str) -> None:
        """What a latched detector sees stays out of the key: a bias fact, not one of the block's own errors."""
        reason = "detector latched"
        if latched:
            self.wiring.engine.flag_interval(reason, since_s=2.0 * self.wiring.heartbeat_s)
            self.wiring.events.record("detector.latched", {"detectors": names})
        else:
            self.wiring.engine.clear_flag(reason)

    def _flag(self, why: str | None) -> None:
        """Kept out of the key by actuator facts only, from now until the flag goes."""
        engine = self.wiring.engine
        if self._flagged is not None and self._flagged != why:
            engine.clear_flag(self._flagged)
        if why is not None:
            engine.flag_interval(why)
        self._flagged = why

    async def _sweep_if_asked(self, module: Module, context: CalibrationContext) -> None:
        """A phase that was lost beyond the local search: stop keys, take the whole fringe again, go on."""
        while True:
            self.wiring.sweep_wanted.clear()
            await self.wiring.sweep_wanted.wait()
            why = f"phase lost: {self.lock.report().why if self.lock else ''}"
            await self.wiring.stop_keying(why)
            self.wiring.life.set_operational(Operational.DEGRADED, why)
            self.wiring.life.set_activity(Activity.LOCKING, why)
            await bring_up(self.graph(), context, ["crosstalk_trim"], ["arm_phase"])
            if self.lock is not None:
                self.lock.recalibrated(self._lock_config(context), context.drive.power("phase"))
            self.wiring.life.set_operational(Operational.ENABLED, "phase found again")
            self.wiring.life.set_activity(Activity.READY, "phase found again")

    def lock_report(self) -> LockReport | None:
        return self.lock.report() if self.lock else None
