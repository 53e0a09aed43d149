"""Runs one module: boot, self-test, temperature, calibration, lock, keys; and safe, with a reason, when a part fails.

A session is everything between opening the devices and the first failure or command that ends it. Whatever ends it,
the rails drop first. Then it starts again by itself, after a pause that grows, unless the module is locked or held.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from calibration.context import CalibrationContext, Progress
from calibration.graph import Graph, bring_up
from calibration.plan import Due, plan
from drivers.roles import Identity, TecState
from qmodd.app.failures import EXPECTED, Interrupted, LoopGaveUp, NotReady, interrupted, leaves, reason
from qmodd.app.selftest import quick_selftest
from qmodd.app.temperature import PERIOD_S, tec_loop
from qmodd.app.upkeep import Upkeep
from qmodd.app.wiring import Wiring
from qmodd.control.loop import Scheduler
from qmodd.control.parts import PartsWatch
from qmodd.control.thermal import TecLoop
from qmodd.lifecycle import Activity, Administrative, Operational
from qmodd.module import Module
from qmodd.safety import Watchdog, check_interlock, safe_state

log = logging.getLogger("qmodd.operator")

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 15.0)
SAFE_DEADLINE_S = 0.8
# A session that lasted this long was a good one: the next failure starts at the shortest pause again.
GOOD_SESSION_S = 60.0
WARM_UP_S = 300.0
WARM_K = 0.1
# Every part is looked at this often in service: before the loops that a broken one upsets give up.
PARTS_PERIOD_S = 1.0
# Passing through on the way up does not count.
WARM_FOR_S = 2.5


def firmware_sha256(identities: Mapping[str, Identity]) -> str:
    """Over role, driver, model, serial number and firmware of every device: another one means other calibrations."""
    lines = (f"{r}\0{i.driver}\0{i.model}\0{i.serial}\0{i.firmware}\n" for r, i in sorted(identities.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass
class Late:
    """What the watchdog asks: loops that have not checked in."""

    scheduler: Scheduler
    now: Callable[[], float]

    def late(self) -> list[str]:
        return [f"{name} (silent for {age:.1f} s)" for name, age in self.scheduler.check_in.late(self.now()).items()]


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
        """Parts that have given up until a person clears them: name and why."""
        return {}

    def clear_latch(self, name: str, by: str) -> None:
        """Raises LookupError for a latch that is not set."""
        raise LookupError(f"no latch {name!r}")

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
        while True:
            await self._until_allowed()
            started = self.wiring.clock.monotonic()
            try:
                await self._session()
            except asyncio.CancelledError:
                await self._go_safe("the daemon is stopping")
                raise
            except Exception as e:
                self._log_bugs(e)
                await self._ended(e, self.wiring.clock.monotonic() - started)

    def interrupt(self, why: str) -> None:
        """End the session on purpose. The reason becomes that of the safe state."""
        self._end_session(Interrupted(why))

    def _end_session(self, cause: Exception) -> None:
        if self._interrupt.empty():
            self._interrupt.put_nowait(cause)

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
            elif self.held is not None:
                why = self.held
            else:
                return
            await self._dark(why)
            await self._resume.wait()

    async def _dark(self, why: str) -> None:
        """Make sure, on the hardware, that a module that may not run is dark; say so if that cannot be done."""
        self.wiring.life.set_activity(Activity.SAFE, why)
        self.wiring.life.set_operational(Operational.DISABLED, why)
        module = self.wiring.module
        try:
            await module.open()
        except Exception as e:
            self._log_bugs(e)
            self.wiring.life.set_operational(Operational.DISABLED, f"{why}; and {reason(e)}")
        finally:
            await self._safe_outputs(module, why)
            await module.close()

    async def _session(self) -> None:
        while not self._interrupt.empty():
            self._interrupt.get_nowait()
        life, config = self.wiring.life, self.wiring.config
        life.set_activity(Activity.BOOT, "opening and identifying the devices")
        life.set_operational(Operational.DISABLED, "starting")
        self._module = module = self.wiring.module
        context = self.calibrations = self.context(module)
        identities = await module.open()
        self.check_parts(module)
        context.firmware_sha256 = firmware_sha256(identities)
        self.wiring.events.record("devices.open", {r: f"{i.model} {i.serial}".strip() for r, i in identities.items()})
        scheduler = Scheduler(self.wiring.clock, asyncio.sleep, self._loop_failed, self._loop_facts)
        self.wiring.scheduler = scheduler
        watchdog = Watchdog(
            module.platform, Late(scheduler, self.wiring.clock.monotonic), config.safety.watchdog_period_s
        )
        async with asyncio.TaskGroup() as group:
            await watchdog.toggle()
            await check_interlock(module.platform)
            group.create_task(watchdog.run(), name="watchdog")
            group.create_task(self._interrupted(), name="interrupt")
            await self.rails_on(module)
            self.add_loops(scheduler, module, context)
            group.create_task(scheduler.run(), name="loops")
            await self._bring_up(module, context, scheduler)
            self.in_service, self.failure = True, None
            self.upkeep = Upkeep(self, module, context)
            group.create_task(self.upkeep.run(), name="upkeep")
            await self.serve(module, context)

    async def rails_on(self, module: Module) -> None:
        for line in ("heater_enable", "laser_enable"):
            if line == "laser_enable" and self.wiring.config.module.role != "alice":
                continue
            await module.platform.write(line, True)
        for output in list(self.wiring.life.inhibited):
            self.wiring.life.allow(output)

    async def _bring_up(self, module: Module, context: CalibrationContext, scheduler: Scheduler) -> None:
        life = self.wiring.life
        life.set_activity(Activity.SELFTEST, "quick check of read-back, rails and known answers")
        self.wiring.publish_selftest(await quick_selftest(module))
        self.add_heartbeats(scheduler, module)
        self._add_parts_watch(scheduler, context)
        life.set_activity(Activity.CALIBRATING, "bringing the chip to temperature")
        await self.warm_up()
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
        """Wait until the chip is near its temperature. Raises NotReady when that takes too long.

        The first calibrations (currents, photodiodes, modulators, detectors) do not feel the last tenth of a kelvin;
        the interferometers, which do, come last and are held by their lock.
        """
        end = self.wiring.clock.monotonic() + WARM_UP_S
        since = self.wiring.clock.monotonic()
        while self.wiring.clock.monotonic() - since < WARM_FOR_S:
            if not self.temperature_within(WARM_K):
                since = self.wiring.clock.monotonic()
            reading = self.tec.reading if self.tec else None
            if reading is not None:
                target_c = self.wiring.config.control.tec_target_c
                self.wiring.life.set_activity(
                    Activity.CALIBRATING, f"temperature {reading.object_c:.0f} C on its way to {target_c:.1f} C"
                )
            if self.wiring.clock.monotonic() > end:
                raise NotReady(f"the chip is not at its temperature after {WARM_UP_S:.0f} s: {reading}")
            await asyncio.sleep(0.5)

    def add_heartbeats(self, scheduler: Scheduler, module: Module) -> None:
        """A harmless read on every bus, so that a bus that hangs is noticed although nothing else uses it."""
        for name, period_s, read in self.wiring.heartbeats(module):
            self.wiring.add_heartbeat(scheduler, f"bus {name}", period_s, read)
        self.wiring.add_loop(scheduler, "leases", 0.5, self.wiring.leases.step)

    def _add_parts_watch(self, scheduler: Scheduler, context: CalibrationContext) -> None:
        async def broken(why: str) -> None:
            self._end_session(LoopGaveUp(f"loop parts: {why}"))

        watch = PartsWatch(context, lambda: self.in_service, self.walking, broken)
        self.wiring.add_loop(scheduler, "parts", PARTS_PERIOD_S, watch.step)

    async def _interrupted(self) -> None:
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
        self._failures = 1 if lasted_s > GOOD_SESSION_S else self._failures + 1
        pause = BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1]
        self.wiring.events.record("session.failed", {"why": why, "again_in_s": pause})
        self.wiring.life.set_activity(Activity.SAFE, f"{why}; trying again in {pause:g} s")
        await asyncio.sleep(pause)

    async def _go_safe(self, why: str) -> None:
        self.in_service, self.upkeep = False, None
        self.wiring.leases.end_all(why)
        self.wiring.life.set_operational(Operational.DISABLED, why)
        self.wiring.life.set_activity(Activity.SAFE, why)
        module, self._module = self._module, None
        if module is not None:
            await self._safe_outputs(module, why)
        await self.wiring.stop_keying(why)
        if module is not None:
            await module.close()

    async def _safe_outputs(self, module: Module, why: str) -> None:
        for device in module.outputs():
            self.wiring.life.inhibit(device.name, why)
        await safe_state(module.platform, list(module.outputs()), self._not_safe, SAFE_DEADLINE_S)

    def _not_safe(self, name: str, what: str) -> None:
        self.wiring.life.inhibit(name, what)
        self.wiring.events.record("output.not_confirmed_safe", {"output": name, "why": what})

    def _log_bugs(self, error: BaseException) -> None:
        for leaf in leaves(error):
            if not isinstance(leaf, EXPECTED):
                log.error("internal error", exc_info=leaf)
