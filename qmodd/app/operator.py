"""Runs one module: boot, self-test, temperature, calibration, lock, keys; and safe, with a reason, when a part fails.

A session is everything between opening the devices and the first failure or command that ends it. Whatever ends it,
the rails drop first. Then it starts again by itself, after a pause that grows, unless the module is locked or held.
"""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

from calibration.context import CalibrationContext, Progress
from calibration.graph import Graph, bring_up
from calibration.plan import Due, plan
from drivers.roles import TecState
from qmodd.app.failures import EXPECTED, Interrupted, LoopGaveUp, interrupted, leaves, reason
from qmodd.app.identify import firmware_sha256
from qmodd.app.late import Late
from qmodd.app.monitor_desk import PERIOD_S as MONITORS_S
from qmodd.app.monitor_desk import MonitorDesk
from qmodd.app.safe_stop import SafeStop
from qmodd.app.safekeeping import Safekeeping
from qmodd.app.selftesting import SelfTesting
from qmodd.app.temperature import PERIOD_S, tec_loop
from qmodd.app.upkeep import Upkeep
from qmodd.app.warm_up import warm_up
from qmodd.app.wiring import Wiring
from qmodd.control.loop import Scheduler
from qmodd.control.parts import PartsWatch
from qmodd.control.thermal import TecLoop
from qmodd.lifecycle import Activity, Administrative, Operational
from qmodd.module import Module
from qmodd.safety import Watchdog, check_interlock
from qmodd.safety.ramp import TecRampDown

log = logging.getLogger("qmodd.operator")

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 15.0)
# A session that lasted this long was a good one: the next failure starts at the shortest pause again.
GOOD_SESSION_S = 60.0
STOPPING = "the daemon is stopping"
# Every part is looked at this often in service: before the loops that a broken one upsets give up.
PARTS_PERIOD_S = 1.0


@dataclass
class Operator(ABC):
    """Common to both kinds of module. Subclasses say which calibrations, which loops, and what keying needs."""

    wiring: Wiring
    held: str | None = None  # why no session may start, by command
    # What ended the last session, until one is in service again; None, too, when it was ended on purpose.
    failure: BaseException | None = None
    # Calibrations to redo at the next walk, and who asked for them.
    force: frozenset[str] = frozenset()
    force_by: str = "automatic"
    _interrupt: asyncio.Queue[Exception] = field(default_factory=lambda: asyncio.Queue(1))
    _resume: asyncio.Event = field(default_factory=asyncio.Event)
    _failures: int = 0
    _module: Module | None = None
    in_service: bool = False
    tec: TecLoop | None = None
    # Held during every calibration outside of a boot: one walk moves the outputs at a time.
    walking: asyncio.Lock = field(default_factory=asyncio.Lock)
    upkeep: Upkeep | None = None
    calibrations: CalibrationContext | None = None
    safekeeping: Safekeeping = field(init=False)
    safe_stop: SafeStop = field(init=False)
    selftesting: SelfTesting = field(init=False)
    monitor_desk: MonitorDesk = field(init=False)

    def __post_init__(self) -> None:
        self.safekeeping = Safekeeping(self.wiring, self._end_session, lambda: self.tec.reading if self.tec else None)
        self.safe_stop = SafeStop(self.wiring, self.safekeeping)
        self.wiring.latched = self.shown_latches
        self.selftesting = SelfTesting(self)
        self.monitor_desk = MonitorDesk(self.wiring)

    # what differs between the sides

    def check_parts(self, module: Module) -> None:
        """What the identities of the parts do not say. Raises NotReady."""
        return None

    @abstractmethod
    def graph(self) -> Graph: ...

    @abstractmethod
    def context(self, module: Module) -> CalibrationContext: ...

    @abstractmethod
    def add_loops(self, scheduler: Scheduler, module: Module, context: CalibrationContext) -> None:
        """Loops that run while the module is up; those of a calibrated module check `in_service` themselves."""

    @abstractmethod
    async def serve(self, module: Module, context: CalibrationContext) -> None:
        """From calibrated to keying; returns only when cancelled, raises when service has to end."""

    async def resume(self, module: Module, context: CalibrationContext, redone: frozenset[str]) -> None:
        """After a calibration in service: outputs are at the set points of their records, `redone` have new ones; loops
        start anew from there. `in_service` is still False."""
        return None

    def latches(self) -> dict[str, str]:
        """What waits for a person to clear it: name and why."""
        return self.safekeeping.latches()

    def shown_latches(self) -> list[dict[str, Any]]:
        """The same for `state`."""
        return self.safekeeping.shown()

    def told(self) -> dict[str, str]:
        """What the interlocks' loop has seen and what is no reason to go dark, by alarm."""
        return self.safekeeping.monitor.told

    def dark_latch(self) -> str:
        """Why no output may be switched on before a person clears it; "" when it may."""
        return self.safekeeping.dark()

    @property
    def ramp(self) -> TecRampDown:
        """The temperature controller's way down after a safe stop; who regulates outside of a session releases it."""
        return self.safekeeping.ramp

    async def clear_latch(self, name: str, by: str) -> None:
        """Raises LookupError for a latch that is not set, StillViolated with the reading that still violates."""
        async with self.safe_stop.hardware:
            await self.safekeeping.clear(name, by, self.wiring.module, self._module is None)
        self._resume.set()

    # calibration

    def due(self) -> list[Due]:
        """What is out now, by the state of the records alone, with everything that rests on it."""
        if self.upkeep is not None:
            return self.upkeep.plan()
        reading = self.tec.reading if self.tec else None
        context = self.calibrations or self.context(self.wiring.module)
        return plan(self.graph(), context, reading.object_c if reading else math.nan)

    def request_calibration(self, names: frozenset[str], by: str) -> None:
        """Redo these for `by`, whatever their state: in service without going dark, else in the walk of a new start."""
        if self.upkeep is not None and self.in_service:
            self.upkeep.ask(names, by)
            return
        self.force, self.force_by = self.force | names, by
        self.interrupt(f"calibration of {', '.join(sorted(names))[:200]} by {by}")

    def request_walk(self, why: str) -> None:
        """Outputs to the set points of the active records again, redoing what is out: after a rollback."""
        if self.upkeep is not None and self.in_service:
            self.upkeep.ask_walk(why)

    # life

    async def run(self) -> None:
        """Never returns; cancelled by the daemon's stop, after which everything is safe."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.ramp.run(), name="TEC ramp-down")
            group.create_task(self._sessions(), name="sessions")

    async def _sessions(self) -> None:
        try:
            while True:
                await self._until_allowed()
                started = self.wiring.clock.monotonic()
                try:
                    await self._session()
                except Exception as e:
                    self._log_bugs(e)
                    self.safekeeping.ended(e)
                    await self._ended(e, self.wiring.clock.monotonic() - started)
        except asyncio.CancelledError:
            # Also in the middle of another safe stop, which then has not reached every output.
            if self._module is not None or not self.safe_stop.made_safe:
                self._module = self.wiring.module
                await self._go_safe(STOPPING)
                await self.safekeeping.leave_tec(STOPPING)
            raise

    def interrupt(self, why: str) -> None:
        """End the session on purpose. The reason becomes that of the safe state."""
        self._end_session(Interrupted(why))

    def _end_session(self, cause: Exception) -> None:
        if self._interrupt.empty():
            self._interrupt.put_nowait(cause)

    def forget_interrupts(self) -> None:
        """Of a session before."""
        while not self._interrupt.empty():
            self._interrupt.get_nowait()

    def hold(self, why: str) -> None:
        """No session until `release`."""
        self.held = why
        self.interrupt(why)

    def release(self) -> None:
        self.held = None
        self._resume.set()

    async def _until_allowed(self) -> None:
        life = self.wiring.life
        while True:
            self._resume.clear()
            if life.administrative is Administrative.LOCKED:
                why = f"locked: {life.why('administrative')}"
            elif latched := self.dark_latch():
                why = latched
            elif self.held is not None:
                why = self.held
            else:
                return
            await self.safe_stop.dark(why, self._log_bugs)
            await self.safekeeping.watch_cover(self._resume, self.safe_stop.hardware)

    async def _session(self) -> None:
        self.forget_interrupts()
        await self.wiring.settings.begin_session()
        life, config = self.wiring.life, self.wiring.config
        life.set_activity(Activity.BOOT, "opening and identifying the devices")
        life.set_operational(Operational.DISABLED, "starting")
        self._module = module = self.wiring.module
        context = self.calibrations = self.context(module)
        identities = await module.open()
        self.check_parts(module)
        await self.wiring.bay.identify(identities, context)
        context.firmware_sha256 = self.wiring.engine.desk.firmware_sha256 = firmware_sha256(identities)
        self.wiring.events.record("devices.open", {r: f"{i.model} {i.serial}".strip() for r, i in identities.items()})
        scheduler = Scheduler(self.wiring.clock, asyncio.sleep, self._loop_failed, self._loop_facts)
        self.wiring.scheduler = scheduler
        watchdog = Watchdog(
            module.platform, Late(scheduler, self.wiring.clock.monotonic), config.safety.watchdog_period_s
        )
        # Before the watchdog's own test raises an enable, with every output at zero, and before anything stays on.
        await check_interlock(module.platform)
        await self.selftesting.trip(module, context)
        async with asyncio.TaskGroup() as group:
            await watchdog.toggle()
            await check_interlock(module.platform)
            group.create_task(watchdog.run(), name="watchdog")
            group.create_task(self.interrupted(), name="interrupt")
            await self.ramp.release()
            await self.rails_on(module)
            self.safekeeping.watch(scheduler)
            self.add_loops(scheduler, module, context)
            group.create_task(scheduler.run(), name="loops")
            await self._bring_up(module, context, scheduler)
            self.in_service, self.failure = True, None
            self.upkeep = Upkeep(self, module, context)
            group.create_task(self.upkeep.run(), name="upkeep")
            group.create_task(self.selftesting.serve(module, context), name="self-tests")
            await self.serve(module, context)

    async def rails_on(self, module: Module) -> None:
        self.safekeeping.lit, self.safe_stop.made_safe = True, False
        for line in ("heater_enable", "laser_enable"):
            if line == "laser_enable" and self.wiring.config.module.role != "alice":
                continue
            await module.platform.write(line, True)
        for output in list(self.wiring.life.inhibited):
            self.wiring.life.allow(output)

    async def _bring_up(self, module: Module, context: CalibrationContext, scheduler: Scheduler) -> None:
        life = self.wiring.life
        await self.selftesting.boot(module, context)
        self.add_heartbeats(scheduler, module)
        self._add_parts_watch(scheduler, context)
        life.set_activity(Activity.CALIBRATING, "bringing the chip to temperature")
        await self.warm_up()
        await self.selftesting.boot_warm(module, context)
        life.set_activity(Activity.CALIBRATING, "walking the calibration graph")
        force, by = self.force, self.force_by
        self.force, self.force_by = frozenset(), "automatic"
        async with self.walking:
            await bring_up(self.graph(), replace(context, operator=by), force=force)

    def add_tec_loop(self, scheduler: Scheduler, module: Module, context: CalibrationContext) -> None:
        leases = self.wiring.leases
        self.tec = tec_loop(self.wiring, module, context)
        self.tec.let_go = lambda: not leases.free("tec.target")
        leases.own("tec.target", "loop temperature")
        self.wiring.add_loop(scheduler, "temperature", PERIOD_S, self.tec.step, self.tec.facts)

    def temperature_within(self, kelvin: float) -> bool:
        """Near its target as of the last reading of a regulating controller."""
        reading = self.tec.reading if self.tec and not self.tec.identifying else None
        return (
            reading is not None
            and reading.state in (TecState.STABLE, TecState.NOT_STABLE)
            and abs(reading.object_c - self.wiring.config.control.tec_target_c) < kelvin
        )

    async def warm_up(self) -> None:
        """Wait until the chip is near its temperature. Raises NotReady when that takes too long."""
        await warm_up(self.wiring, lambda: self.tec.reading if self.tec else None, self.temperature_within)

    def add_heartbeats(self, scheduler: Scheduler, module: Module) -> None:
        """A harmless read on every bus, so that a bus that hangs is noticed although nothing else uses it."""
        for name, period_s, read in self.wiring.heartbeats(module):
            self.wiring.add_heartbeat(scheduler, f"bus {name}", period_s, read)
        self.wiring.add_loop(scheduler, "leases", 0.5, self.wiring.leases.step)
        self.wiring.add_loop(scheduler, "monitors", MONITORS_S, self.monitor_desk.step)

    def _add_parts_watch(self, scheduler: Scheduler, context: CalibrationContext) -> None:
        async def broken(why: str) -> None:
            self._end_session(LoopGaveUp(f"loop parts: {why}"))

        watch = PartsWatch(context, lambda: self.in_service, self.walking, broken)
        self.wiring.add_loop(scheduler, "parts", PARTS_PERIOD_S, watch.step)

    async def interrupted(self) -> None:
        """Raises what ends a session: an interlock, a loop that gave up, a command."""
        raise await self._interrupt.get()

    def _loop_facts(self, loop: str, facts: tuple[str, ...]) -> None:
        self.wiring.events.record("loop.facts", {"loop": loop, "facts": "; ".join(facts)[:480]})

    async def _loop_failed(self, loop: str, why: str) -> None:
        self._end_session(LoopGaveUp(f"loop {loop}: {why}"))

    def progress(self, progress: Progress) -> None:
        """Begin and end are events; what lies between is telemetry, for a bar."""
        if progress.fraction == 0.0:
            why = f"{progress.procedure}: {progress.message}" if progress.message else progress.procedure
            self.wiring.life.set_activity(Activity.CALIBRATING, why)
        self.wiring.progress_event(progress)

    async def _ended(self, error: BaseException, lasted_s: float) -> None:
        why = reason(error)
        self.failure = error if interrupted(error) is None else None
        await self._go_safe(why)
        if interrupted(error) is not None:
            self._failures = 0
            return
        if self.dark_latch():
            self._failures = 0
            self.wiring.events.record("session.failed", {"why": why, "again_in_s": 0.0})
            return
        self._failures = 1 if lasted_s > GOOD_SESSION_S else self._failures + 1
        pause = BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1]
        self.wiring.events.record("session.failed", {"why": why, "again_in_s": pause})
        if await self.safe_stop.wait_while_out():
            self._failures = 0
            return
        self.wiring.life.set_activity(Activity.SAFE, f"{why}; trying again in {pause:g} s")
        await self.safe_stop.pause(pause, why)

    async def _go_safe(self, why: str) -> None:
        self.in_service, self.upkeep = False, None
        self.selftesting.abandon(why)
        self.wiring.leases.end_all(why)
        module, self._module = self._module, None
        await self.safe_stop.after_session(module, why, self.failure is not None)

    def _log_bugs(self, error: BaseException) -> None:
        for leaf in leaves(error):
            if not isinstance(leaf, EXPECTED):
                log.error("internal error", exc_info=leaf)
