"""The receiver: calibrates with the transmitter's light, then keeps the interferometers in phase while keying."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from calibration.context import CalibrationContext, LightRefused
from calibration.graph import Graph, bring_up
from calibration.names import DETECTORS
from calibration.procedures import bob_graph
from drivers.errors import Refused
from drivers.roles import LightMode
from qmodd.app.operator import Operator
from qmodd.app.phase import FAULT_FILE, OUTPUT, OWNER, PhaseFault, PhaseService
from qmodd.app.upkeep import REFUSALS
from qmodd.control.detectors import LatchWatch
from qmodd.control.facts import Stale
from qmodd.control.loop import Scheduler
from qmodd.control.phase_estimate import PhaseCounts, PilotLike, PilotTally
from qmodd.control.phase_loop import Surroundings
from qmodd.control.phase_types import LockReport
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
FOUND = "phase found again"
# The fringe between both interferometers; everything else is this module's own, and checked as it ages.
RESTS_ON_PEER = ("arm_phase",)
LATCHED = "detector latched"


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
    phase: PhaseService | None = None
    _blind: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.wiring.bay.rests_on_peer = RESTS_ON_PEER

    def graph(self) -> Graph:
        return bob_graph()

    def context(self, module: Module) -> CalibrationContext:
        context = self.wiring.calibration_context(module, self.progress)
        context.tags, context.detectors = module.tags, module.detectors
        context.light = PatientLight(self)
        return context

    def add_loops(self, scheduler: Scheduler, module: Module, context: CalibrationContext) -> None:
        self.add_tec_loop(scheduler, module, context)
        self._forget_flags()
        self.phase, self._blind = None, ""
        self.wiring.leases.own(OUTPUT, OWNER)
        watch = LatchWatch(module.detectors, lambda: self._working_bias(context), self._latched, asyncio.sleep)
        biases = [f"detector.{name}" for name in module.detectors.channels]
        self.wiring.add_loop(scheduler, "detector latch", self.wiring.heartbeat_s, watch.step, outputs=biases)

        async def slow(now_s: float) -> None:
            if self.phase is None or not self.phase.pilot:
                await self._phase_step(now_s)

        self.wiring.add_loop(scheduler, "interferometer phase", self.wiring.config.control.phase_period_s, slow)

    def _forget_flags(self) -> None:
        """What the session before kept out of the key ends with it: the next one looks anew before it makes keys."""
        if self.phase is not None:
            self.phase.loop.clear_flags()
        self.wiring.engine.clear_flag(LATCHED)

    async def serve(self, module: Module, context: CalibrationContext) -> None:
        life = self.wiring.life
        life.set_activity(Activity.LOCKING, "interferometer phase at its calibrated set point")
        self.phase = PhaseService(self.wiring, context, self._surroundings())
        await self.phase.loop.begin()
        self._follow_pilot()
        life.set_operational(Operational.ENABLED, "calibrated; all loops check in")
        life.set_activity(Activity.READY, "waiting for the transmitter to start keys")
        if self.phase.loop.lock.latched:
            self.wiring.sweep_wanted.set()
        await self.wiring.key_while_allowed(self._sweep_if_asked(self.phase, context))

    async def resume(self, module: Module, context: CalibrationContext, redone: frozenset[str]) -> None:
        if self.phase is not None:
            await self.phase.resume()

    def _surroundings(self) -> Surroundings:
        async def feed_forward(delta_w: float) -> None:
            if self.tec is not None:
                await self.tec.feed_forward(delta_w)

        return Surroundings(
            temperature=self._temperature,
            leased=lambda: "" if self.wiring.leases.free(OUTPUT) else f"output {OUTPUT} is leased",
            blind=lambda: self._blind,
            feed_forward=feed_forward,
        )

    def _temperature(self) -> str:
        stale = [str(f) for f in self.tec.facts() if isinstance(f, Stale)] if self.tec else []
        if stale:
            return stale[0]
        return "" if self.temperature_within(LOCK_K) else f"temperature not within {LOCK_K:g} K of its set point"

    # counts

    def on_batch(self, batch: BatchReport, seconds: float) -> None:
        """For the engine: public counts of one batch."""
        engine = self.wiring.engine
        assert isinstance(engine, BobEngine)
        if self.phase is not None and self.in_service:
            share = batch.live_slots / max(1, batch.end_slot - batch.first_slot)
            self.phase.on_batch(PhaseCounts.of(batch, seconds), engine.batch_end_s, share)

    def on_pilot(self, pilot: PilotLike, end_s: float) -> bool:
        """For the engine: pilot clicks of a batch read at `end_s`, before anything was said about it; True keeps the
        batch out of the key."""
        phase = self.phase
        if phase is None or not self.in_service:
            return False
        before = phase.pilot
        keep_out = phase.on_pilot(PilotTally.of(pilot), end_s)
        if phase.pilot and not before:
            self._add_fast_loop()
        return keep_out

    def _follow_pilot(self) -> None:
        engine = self.wiring.engine
        assert isinstance(engine, BobEngine)
        engine.on_pilot = self.on_pilot

    def _add_fast_loop(self) -> None:
        """A pilot is worth a faster loop; it is added once and rests while there is no pilot."""
        scheduler, name = self.wiring.scheduler, "interferometer phase by pilot"
        if scheduler is None or any(r.name == name for r in scheduler.reports()):
            return

        async def fast(now_s: float) -> None:
            if self.phase is not None and self.phase.pilot:
                await self._phase_step(now_s)

        self.wiring.add_loop(scheduler, name, self.wiring.config.control.pilot_period_s, fast)

    async def _phase_step(self, now_s: float) -> None:
        phase = self.phase
        if phase is None:
            return
        if not self.in_service:
            phase.loop.rest()
            return
        latched = phase.loop.lock.latched
        request = await phase.step(now_s)
        if request is not None or phase.loop.lock.latched != latched:
            self.wiring.sweep_wanted.set()

    # detectors

    def _working_bias(self, context: CalibrationContext) -> tuple[float, ...] | None:
        """A per detector while in service; while a calibration moves the bias it looks after latches itself."""
        record = context.store.active("detector_bias")
        if record is None or not self.in_service:
            return None
        return tuple(record.value[f"{name}_bias_a"] for name in DETECTORS)

    @property
    def blind(self) -> str:
        """Why detections are kept out for what a detector does; "": they are not."""
        return self._blind

    def _latched(self, latched: bool, names: str) -> None:
        """What a latched detector sees stays out of the key: a bias fact, not one of the block's own errors."""
        self._blind = f"detector {names} has latched" if latched else ""
        if latched:
            self.wiring.engine.flag_interval(LATCHED, since_s=2.0 * self.wiring.heartbeat_s)
            self.wiring.events.record("detector.latched", {"detectors": names})
        else:
            self.wiring.engine.clear_flag(LATCHED)

    # losing the phase, and finding it again

    async def _sweep_if_asked(self, phase: PhaseService, context: CalibrationContext) -> None:
        """A phase that was lost beyond the search: stop keys, take the whole fringe again, go on. One that was given
        up: no keys until a person clears the latch."""
        wanted = self.wiring.sweep_wanted
        while True:
            await wanted.wait()
            wanted.clear()
            lock = phase.loop.lock
            why = f"phase given up: {lock.latched}" if lock.latched else f"phase lost: {phase.report().why}"
            await self._stop(why)
            while lock.latched:
                await wanted.wait()
                wanted.clear()
            found = await self._sweep(phase, context)
            self.wiring.life.set_operational(Operational.ENABLED if not found else Operational.DEGRADED, found or FOUND)
            self.wiring.life.set_activity(Activity.READY, found or FOUND)

    async def _stop(self, why: str) -> None:
        await self.wiring.stop_keying(why)
        self.wiring.life.set_operational(Operational.DEGRADED, why)
        self.wiring.life.set_activity(Activity.LOCKING, why)

    async def _sweep(self, phase: PhaseService, context: CalibrationContext) -> str:
        """The whole fringe anew; why it could not be taken, "" when it was. The lock asks again, later and later."""
        async with self.walking:
            self.in_service = False
            try:
                await bring_up(self.graph(), context, ["crosstalk_trim"], ["arm_phase"])
                why = ""
            except REFUSALS as e:
                why = f"phase lost, and its fringe could not be taken: {e}"
                self.wiring.events.record("phase.sweep_failed", {"why": str(e)[:480]})
            await phase.resume()
            self.in_service = True
        return why

    def latches(self) -> dict[str, str]:
        """Beside those of the safety: a phase that was given up, which holds keys and leaves the module as it is."""
        why = self._latch()
        return {**super().latches(), **({"phase": why} if why else {})}

    def shown_latches(self) -> list[dict[str, Any]]:
        phase = self._latch()
        shown = [{"latch": "phase", "why": phase[:480], "since": "", "dark": False}] if phase else []
        return [*super().shown_latches(), *shown]

    async def clear_latch(self, name: str, by: str) -> None:
        if name != "phase":
            await super().clear_latch(name, by)
            return
        if not self._latch():
            raise LookupError(f"no latch {name!r} is set")
        if self.phase is not None:
            self.phase.clear(by)
        else:
            self._fault_file().clear()
            self.wiring.events.record("phase.latch_cleared", {"by": by})
        self.wiring.sweep_wanted.set()

    def _latch(self) -> str:
        """Also before a session has come so far as to have a lock."""
        return self.phase.loop.lock.latched if self.phase is not None else self._fault_file().read()

    def _fault_file(self) -> PhaseFault:
        return PhaseFault(self.wiring.config.module.state_dir / FAULT_FILE)

    # what is told

    def lock_report(self) -> LockReport | None:
        return self.phase.report() if self.phase is not None else None

    def phase_numbers(self) -> dict[str, int | float | bool]:
        """For telemetry; empty while there is no lock."""
        return self.phase.numbers() if self.phase is not None and self.in_service else {}
