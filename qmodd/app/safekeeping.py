"""Interlocks, latches and the way down of one module, composed: what the operator asks before, in and after a session.

Anything that drives the module outside of a session asks `dark` first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from drivers.errors import DriverError
from drivers.roles import TecReading
from qmodd.app.failures import leaves
from qmodd.app.wiring import Wiring
from qmodd.control.loop import Scheduler
from qmodd.module import BringUpFailed, Module
from qmodd.safety.confirm import contradictions
from qmodd.safety.interlocks import Limits, Violation, violations
from qmodd.safety.latches import FILE, Latch, LatchStore, causes
from qmodd.safety.monitor import CONFIRM, Ring, SafetyMonitor, SafetyTripped, set_latch, still_violates
from qmodd.safety.ramp import TecRampDown
from qmodd.safety.readings import ModuleReader
from qmodd.safety.tamper import LINE, Tamper
from qmodd.safety.watchdog import HardwareTripped, InterlockOpen

# Communication watchdog of the temperature controller, s: with its own ramp it is off within 60 s.
WATCHDOG_MOST_S = 50.0
# The look at the end of a failed session, s.
LAST_LOOK_S, LOOK_AGAIN_S = 1.0, 0.05
# How often the cover is looked at while the module may not run, s.
COVER_S = 1.0
COVER, WATCHDOG, NOT_SAFE = "cover-open", "watchdog-tripped", "output-not-safe"


async def _still_on(module: Module) -> str:
    """What reads on with all enables low, or cannot be asked; "" when everything is off by its own word."""
    on, silent = await contradictions(module)
    return "; ".join([*on.values(), *(f"{name} cannot be read: {why}" for name, why in silent.items())])


class StillViolated(Exception):
    """A latch may not be cleared: its cause persists, or it cannot be shown that it does not."""


def limits_of(wiring: Wiring) -> Limits:
    s = wiring.config.safety
    return Limits(
        submount_max_c=s.submount_max_c,
        object_max_c=s.object_max_c,
        sink_max_c=s.sink_max_c,
        supply_max_c=s.supply_max_c,
        rail_max_a=s.rail_max_a,
        tec_max_a=s.tec_max_a,
        heater_budget_w=s.heater_budget_w,
        cryostat_max_k=s.cryostat_max_k,
        fan_min_rpm=s.fan_min_rpm,
    )


@dataclass
class Safekeeping:
    """`trip` ends the session; `tec` is the temperature loop's last reading."""

    wiring: Wiring
    trip: Callable[[SafetyTripped], None]
    tec: Callable[[], TecReading | None]
    lit: bool = False  # enables are commanded high
    store: LatchStore = field(init=False)
    ramp: TecRampDown = field(init=False)
    monitor: SafetyMonitor = field(init=False)
    tamper: Tamper = field(init=False)
    # By latch: why it may not be cleared now beside what is read; "" when it may.
    held_by: dict[str, Callable[[], str]] = field(default_factory=dict)
    _trips: deque[float] = field(default_factory=deque)
    _told_unwatched: bool = False

    def __post_init__(self) -> None:
        wiring = self.wiring
        self.store = LatchStore(wiring.config.module.state_dir / FILE)
        self.limits = limits_of(wiring)
        self._ring = Ring(wiring.heartbeat_s)
        self.ramp = TecRampDown(
            wiring.module.tec,
            wiring.config.safety.tec_ramp_c_per_s,
            wiring.clock.monotonic,
            self._told_of_tec,
            wiring.events.record,
            self._ramped,
        )
        safety = wiring.config.safety
        self.tamper = Tamper(safety.tamper, safety.tamper_debounce_s, wiring.clock.monotonic, self._tampered)
        self.monitor = SafetyMonitor(
            ModuleReader(
                wiring.module, wiring.budget, wiring.clock.monotonic, self.tec, self._on, cover=self.tamper.hear
            ),
            self.limits,
            self.store,
            self._ring,
            wiring.module.platform,
            self._utc,
            self.trip,
            self._record,
        )

    def _record(self, name: str, fields: dict[str, Any]) -> None:
        """`latch.set` is in `state` as well."""
        self.wiring.events.record(name, fields)
        if name == "latch.set":
            self.wiring.publish_state()

    def _utc(self) -> str:
        return self.wiring.clock.utc().isoformat(timespec="milliseconds")

    def _on(self) -> tuple[bool, bool]:
        """(laser, heaters)"""
        return self.lit and self.wiring.config.module.role == "alice", self.lit

    # in a session

    def watch(self, scheduler: Scheduler) -> None:
        """The loop of the interlocks; what this module does not have is said once."""
        self.monitor.told.clear()
        self.wiring.add_heartbeat(scheduler, "safety", self.wiring.heartbeat_s, self.monitor.step)
        unwatched = ModuleReader(self.wiring.module, self.wiring.budget, self.wiring.clock.monotonic).unwatched()
        if unwatched and not self._told_unwatched:
            self._told_unwatched = True
            why = f"this module has no {', '.join(unwatched)}"
            self.wiring.events.record("safety.unwatched", {"why": why})

    def ended(self, error: BaseException) -> None:
        """What ended a session may call for a latch. First of all that follows: a process may die at any instant."""
        for leaf in leaves(error):
            if isinstance(leaf, InterlockOpen) and leaf.cover:
                self.tamper.hear(False)
            if isinstance(leaf, InterlockOpen) and leaf.cover and self._on()[0]:
                self.latch(COVER, "the cover is open and was opened while light was on", ("cover_closed",))
            elif isinstance(leaf, HardwareTripped):
                self._count_trip(str(leaf))

    async def last_look(self) -> None:
        """After a session has failed, while the devices are still open: a loop may have ended it for what the
        interlocks had seen but not confirmed. What latches and is there at every one of these readings is latched."""
        reader = ModuleReader(self.wiring.module, self.wiring.budget, self.wiring.clock.monotonic)
        found: dict[str, Violation] | None = None
        try:
            async with asyncio.timeout(LAST_LOOK_S):
                for _ in range(CONFIRM):
                    readings = await reader.read(fresh=True)
                    self._ring.add(self._utc(), readings)
                    now = {v.interlock: v for v in violations(readings, self.limits) if v.latch}
                    found = now if found is None else {k: v for k, v in now.items() if k in found}
                    if not found:
                        return
                    await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError:
            return  # its own alarm says that a device does not answer
        for v in (found or {}).values():
            self.latch(v.interlock, v.why, (v.reading,))

    # the cover as a tamper contact

    async def confirm_cover(self) -> None:
        """After a session, while the devices are open: was the cover opened, or did its contact bounce?"""
        try:
            async with asyncio.timeout(LAST_LOOK_S + self.tamper.debounce_s):
                while self.tamper.suspect:
                    await asyncio.sleep(LOOK_AGAIN_S)
                    self.tamper.hear(await self.wiring.module.platform.read(LINE))
        except (DriverError, TimeoutError):
            return  # the next session, or the next look, goes on

    async def watch_cover(self, until: asyncio.Event, hardware: asyncio.Lock) -> None:
        """Wait for an event while nothing may run, and look at the cover meanwhile."""
        if not self.tamper.watching or LINE not in self.wiring.module.platform.lines:
            await until.wait()
            return
        try:
            while not until.is_set():
                try:
                    async with asyncio.timeout(LOOK_AGAIN_S if self.tamper.suspect else COVER_S):
                        await until.wait()
                except TimeoutError:
                    await self._look_at_cover(hardware)
        finally:
            await self.wiring.module.buses.close()

    async def _look_at_cover(self, hardware: asyncio.Lock) -> None:
        async with hardware:
            try:
                self.tamper.hear(await self.wiring.module.platform.read(LINE))
            except DriverError:
                return  # a part that does not answer is told by the next start

    def _tampered(self, why: str) -> None:
        """On record and latched before anything else; what is destroyed, is so when this returns."""
        self.wiring.events.record("tamper.struck", {"why": why, "policy": self.tamper.policy})
        if self.tamper.policy == "zeroise":
            self.wiring.tampered(why)
        self.latch(COVER, f"{why} (tamper contact)", (LINE,))

    def _count_trip(self, why: str) -> None:
        safety, now = self.wiring.config.safety, self.wiring.clock.monotonic()
        self._trips.append(now)
        while now - self._trips[0] > safety.trips_within_s:
            self._trips.popleft()
        if len(self._trips) >= safety.trips_max:
            self.latch(WATCHDOG, f"{len(self._trips)} trips within {safety.trips_within_s:g} s; the last: {why}")

    def latch(self, name: str, cause: str, readings: tuple[str, ...] = ()) -> None:
        held = Latch(name, cause[:480], self._utc(), readings, tuple(self._ring.rows))
        set_latch(self.store, held, self._record)

    # dark

    def dark(self) -> str:
        """Why nothing may be switched on; "" when it may."""
        return causes(self.store.all())

    def latches(self) -> dict[str, str]:
        return {held.name: held.cause for held in self.store.all()}

    def shown(self) -> list[dict[str, Any]]:
        """For `state`."""
        return [{"latch": h.name, "why": h.cause[:480], "since": h.at, "dark": True} for h in self.store.all()]

    async def clear(self, name: str, by: str, module: Module, open_module: bool) -> None:
        """Reads the hardware again. Raises LookupError, StillViolated, OSError; a device that does not open is one
        that cannot be read."""
        held = self.store.get(name)
        if name in self.held_by and (why := self.held_by[name]()):
            raise StillViolated(why)
        reader = ModuleReader(module, self.wiring.budget, self.wiring.clock.monotonic)
        try:
            if open_module:
                await self._open(module)
            readings = await reader.read(fresh=True)
            still = await _still_on(module) if name == NOT_SAFE and open_module else ""
        finally:
            if open_module:
                await module.close()
        if why := still or still_violates(held, readings, reader.unread, self.limits):
            self.wiring.events.record("latch.kept", {"latch": name, "by": by, "why": why[:480]})
            raise StillViolated(why)
        self.store.clear(name)
        if name == WATCHDOG:
            self._trips.clear()
        if self.wiring.alarms.alarms.raised(name):
            self.wiring.alarms.acknowledge(name, by)
        self.wiring.events.record("latch.cleared", {"latch": name, "by": by, "why": held.cause[:400]})
        self.wiring.publish_state()

    async def _open(self, module: Module) -> None:
        try:
            await module.open()
        except BringUpFailed as e:
            self.wiring.events.record("latch.not_all_read", {"why": str(e)[:480]})

    # the temperature controller's way down

    def _told_of_tec(self, why: str) -> None:
        self.wiring.life.inhibit(self.wiring.module.devices["tec"].name, why[:480])

    async def _ramped(self) -> None:
        """The controller is off: its line may rest until somebody needs it."""
        if not self.lit:
            await self.wiring.module.devices["tec"].close()

    async def leave_tec(self, why: str) -> None:
        """The daemon ends, nobody will ramp: the controller's communication watchdog takes the output down, and where
        that is off or slow, the output is switched off now."""
        patience_s = float(self.wiring.config.by_role("tec").options.get("watchdog_s", 0.0))
        if 0.0 < patience_s <= WATCHDOG_MOST_S:
            self._told_of_tec(f"{why}; held, and taken down by its own watchdog within {patience_s:g} s and its ramp")
            return
        try:
            await self.wiring.module.tec.enable(False)
        except DriverError as e:
            self._told_of_tec(f"{why}; could not be brought to its safe value: {e}")
