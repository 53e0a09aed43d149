"""Keeps the calibrations good while the module is in service (reference control B12).

Every few seconds the graph is asked what is out or soon will be. What disturbs nothing is done at once, beside the
keys. What takes keys or light away stops them when its record runs out, at the end of a block where that is near; it
says before what it will cost, and gives the keys back by itself. All that will soon be due is done in one outage. What
keys do not rest on is done one at a time, spread out, never before the first keys unless it is short.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from calibration.context import CalibrationContext, CalibrationRefused, LightRefused, Progress
from calibration.fit import FitRefused
from calibration.graph import Cause, Graph, bring_up, redo, verify
from calibration.plan import Due, plan
from calibration.procedure import Disturbs
from drivers.errors import DriverError
from qmodd.app.upkeep_failures import Failures
from qmodd.app.upkeep_keys import KeyWatch
from qmodd.app.wiring import Wiring
from qmodd.lifecycle import Activity
from qmodd.module import Module

REFUSALS = (CalibrationRefused, FitRefused, LightRefused)
# How long the other side's calibration is waited for.
PEER_PATIENCE_S = 120.0
# A deferred calibration of this cost, all that it disturbs included, may come before the first keys.
CHEAP_S = 2.0
# What keys do not rest on waits until the end of a block is this near: nothing else is looked at meanwhile.
BLOCK_NEAR_S = 30.0
TAKES = {Disturbs.NOTHING: "nothing", Disturbs.KEYS: "keys", Disturbs.LINK: "keys and the transmitter's light"}
BUSY = (Activity.CALIBRATING, Activity.LOCKING)
# Nothing is calibrated while the chip is further than this from its temperature: records would be of another chip.
NEAR_K = 0.3


class Host(Protocol):
    """The operator, as upkeep sees it. `walking` is held during every calibration outside of a boot."""

    wiring: Wiring
    walking: asyncio.Lock
    in_service: bool

    def graph(self) -> Graph: ...

    def temperature_within(self, kelvin: float) -> bool:
        """The chip is near its target, by a regulating controller."""
        ...

    async def resume(self, module: Module, context: CalibrationContext, redone: frozenset[str]) -> None:
        """Outputs are at the set points of their records again: loops start anew from there."""
        ...


@dataclass
class Upkeep:
    """One session's upkeep. `run` never returns; it rests while the module is not in service.

    Raises drivers.errors.DriverError when a device fails while outputs are being moved; refusals are kept in `failing`.
    """

    host: Host
    module: Module
    context: CalibrationContext
    submount_c: float = math.nan
    _asked: dict[str, str] = field(default_factory=dict)
    _walk_why: str | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _peer_busy_since: float | None = None
    _last_deferred: float = -math.inf
    _commits: int | None = None

    def __post_init__(self) -> None:
        self._wiring = self.host.wiring
        self._graph = self.host.graph()
        self._keys = KeyWatch(self._wiring)
        self._faults = Failures(self._wiring, self._graph, self.context)

    # --- what others may ask ---

    def plan(self, margin_s: float = 0.0) -> list[Due]:
        """What is out or will be within the margin, by state alone, at the temperature last read."""
        asked = self._asked.keys()
        return plan(
            self._graph, self.context, self.submount_c, margin_s=margin_s, in_service=self.host.in_service, force=asked
        )

    @property
    def failing(self) -> dict[str, str]:
        """What could not be done, by name, and why; it is tried again by itself."""
        return {n: f.why for n, f in self._faults.failing.items()}

    def ask(self, names: Iterable[str], by: str) -> None:
        """Calibrate these as soon as that can be, whatever their state; their records carry the name."""
        self._asked |= dict.fromkeys(names, by)
        self._wake.set()

    def ask_walk(self, why: str) -> None:
        """Bring every output to the set point of its active record, redoing what is out."""
        self._walk_why = why
        self._wake.set()

    # --- life ---

    async def run(self) -> None:
        with self._keys.listening():
            while True:
                self._wake.clear()
                await self.step()
                try:
                    async with asyncio.timeout(self._wiring.config.control.upkeep_period_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def step(self) -> None:
        """One look at the graph, and what follows from it."""
        if self._wiring.engine.status.peer_state not in BUSY:
            self._peer_busy_since = None
        elif self._peer_busy_since is None:
            self._peer_busy_since = self._now()
        if not self._may():
            return
        async with self.host.walking:
            await self._look()
            await self._live(self._ready(self.plan(self._margin_s)))
        group = self._chosen(self._ready(self.plan(self._margin_s)))
        if group or self._walk_why is not None:
            await self._outage(group)

    @property
    def _margin_s(self) -> float:
        return self._wiring.config.control.upkeep_margin_s

    def _now(self) -> float:
        return self._wiring.clock.monotonic()

    def _may(self) -> bool:
        """In service, at temperature, nothing leased, and nobody else at work with the outputs."""
        w = self._wiring
        if not self.host.in_service or w.life.activity not in (Activity.READY, Activity.KEYING):
            return False
        if self._commits is None:
            self._commits = w.engine.status.blocks_committed
        return w.leases.any() is None and self.host.temperature_within(NEAR_K)

    async def _look(self) -> None:
        self.submount_c = self._faults.submount_c = await self.context.submount.read_celsius()
        if not self.failing:
            return
        # What was asked for and failed is let go while the record before it holds; what held before may have run out.
        due = {d.name for d in self.plan(self._margin_s)} | self._faults.waiting(self._now())
        for name in [n for n in self.failing if n not in due]:
            self._faults.good(name)
        self._faults.judge()

    def _ready(self, due: list[Due]) -> list[Due]:
        held = self._held_back()
        return [d for d in due if d.name not in held]

    def _held_back(self) -> set[str]:
        """Those that failed and wait for their next turn, and what rests on them."""
        waiting = self._faults.waiting(self._now()) - self._asked.keys()
        return waiting.union(*(self._graph.descendants(n) for n in waiting))

    # --- beside the keys ---

    async def _live(self, due: list[Due]) -> None:
        context = replace(
            self.context, keying=self._wiring.life.activity is Activity.KEYING, progress=self._wiring.progress_event
        )
        for d in due:
            if d.disturbs is not Disturbs.NOTHING or not self._alone(d, due):
                continue
            try:
                if d.action == "check":
                    await self._verify(d, context)
                else:
                    by = self._asked.get(d.name, "automatic")
                    await redo(self._graph, replace(context, operator=by), d.name, d.why)
                    self._asked.pop(d.name, None)
                self._faults.good(d.name)
            except (*REFUSALS, DriverError) as e:
                self._faults.failed([d.name], e)

    def _alone(self, d: Due, due: list[Due]) -> bool:
        """Redoing it takes nothing else along that disturbs."""
        if d.action == "check":
            return True
        children = set(self._graph.descendants(d.name))
        return all(x.disturbs is Disturbs.NOTHING for x in due if x.name in children)

    async def _verify(self, d: Due, context: CalibrationContext) -> None:
        found = await verify(self._graph, context, d.name)
        if not found.good:
            self._event("upkeep.out_of_spec", calibration=d.name, why=found.why)

    # --- what has to stop keys ---

    def _chosen(self, due: list[Due]) -> list[Due]:
        """What is done in the next outage, in order; empty: there is none now."""
        keying = self._wiring.life.activity is Activity.KEYING
        group = [d for d in due if not d.deferred or d.name in self._asked]
        # A check that moves nothing was made already; only what is left of it counts.
        if any(d.disturbs is not Disturbs.NOTHING for d in group):
            return [] if self._peer_in_the_way(group) else self._with_early(group)
        if group or self._peer_in_the_way([]):
            return []
        idle = not keying and not self._keys_next()
        for d in due:
            one = [d, *(x for x in due if x.name in self._graph.descendants(d.name))]
            if d.deferred and d.disturbs is not Disturbs.NOTHING and self._deferred_now(one, idle):
                return one
        return []

    def _with_early(self, group: Sequence[Due]) -> list[Due]:
        """What would be due soon is done in the same outage."""
        names = {d.name for d in group}
        early = self._ready(self.plan(math.inf))
        return [d for d in early if d.name in names or not d.deferred]

    def _keys_next(self) -> bool:
        w = self._wiring
        return w.why_no_keys() is None and w.engine.status.peer_ready

    def _deferred_now(self, one: Sequence[Due], idle: bool) -> bool:
        """Short ones when no keys are about to be made; others after the first block, spread out, as a block ends."""
        cost = sum(d.cost_s for d in one)
        if idle and cost <= CHEAP_S:
            return True
        left_s = self._keys.block_left_s()
        if not idle and (left_s is None or left_s > BLOCK_NEAR_S):
            return False
        first = self._wiring.engine.status.blocks_committed > (self._commits or 0)
        rested = self._now() - self._last_deferred >= self._wiring.config.control.upkeep_spread_s
        return first and (idle or rested)

    def _peer_in_the_way(self, group: Sequence[Due]) -> bool:
        """The other module is calibrating: it needs this module's light, or cannot give its own. Waited for, within
        reason: what it waits for may be this module's calibration."""
        status = self._wiring.engine.status
        if status.peer_state not in BUSY or self._peer_busy_since is None:
            return False
        patient = not group or not any(d.name in self._asked for d in group)
        return patient and self._now() - self._peer_busy_since < PEER_PATIENCE_S

    async def _outage(self, group: Sequence[Due]) -> None:
        why = self._announce(group)
        if self._wiring.life.activity is Activity.KEYING:
            await self._block_end(group, why)
        async with self.host.walking:
            if not self._may():
                return
            begin = self._now()
            await self._stop(why)
            versions = self._versions()
            self.host.in_service = False
            self._wiring.life.set_activity(Activity.CALIBRATING, why)
            await self._wiring.tell_peer()
            failed = await self._walk(group)
            redone = frozenset(n for n, v in self._versions().items() if v != versions.get(n))
            await self.host.resume(self.module, self.context, redone)
            self.host.in_service = True
            self._event(
                "upkeep.failed" if failed else "upkeep.done",
                names=", ".join(sorted(redone)),
                seconds=round(self._now() - begin, 3),
                why=failed,
            )
            self._faults.judge()
            self._wiring.life.set_activity(Activity.READY, self._wiring.keys_blocked or "upkeep is done; keys next")

    def _announce(self, group: Sequence[Due]) -> str:
        takes = max((d.disturbs for d in group), default=Disturbs.KEYS)
        cost_s = sum(d.cost_s for d in group)
        names = ", ".join(d.name for d in group) or "all set points"
        reasons = "; ".join(f"{d.name}: {d.why}" for d in group) or str(self._walk_why)
        self._event("upkeep.planned", names=names[:480], why=reasons[:480], cost_s=round(cost_s, 3), takes=TAKES[takes])
        return f"upkeep of {names} (about {cost_s:.0f} s without {TAKES[takes]}): {reasons}"[:480]

    async def _block_end(self, group: Sequence[Due], why: str) -> None:
        """What only grows old may serve to the end of the block, where that comes in time; what is wrong may not."""
        most_s = 2.0 * BLOCK_NEAR_S if group else 0.0
        patience_s = min((d.remaining_s for d in group if not d.deferred), default=most_s)
        left_s = self._keys.block_left_s()
        if patience_s <= 0.0 or (left_s is not None and left_s > patience_s):
            if patience_s > 0.0:
                self._event("upkeep.block_dropped", why=f"{left_s:.0f} s to its end; {patience_s:.0f} s are left")
            return
        self._wiring.notice = why
        try:
            async with asyncio.timeout(patience_s):
                await self._keys.block_end()
        except TimeoutError:
            self._event("upkeep.block_dropped", why=f"it has not ended within {patience_s:.0f} s")
        finally:
            self._wiring.notice = ""

    async def _stop(self, why: str) -> None:
        self._keys.stopping()
        await self._wiring.stop_keying(why)

    async def _walk(self, group: Sequence[Due]) -> str | None:
        """The work itself. Returns why it failed; everything is back at what is stored then."""
        by = ", ".join(sorted({self._asked[d.name] for d in group if d.name in self._asked})) or "automatic"
        context = replace(self.context, operator=by, progress=self._progress)
        force = {d.name for d in group if d.name in self._asked}
        due = {d.name: d.why for d in group if d.name not in force}
        self._walk_why = None
        try:
            await self._bring_up(group, context, force, due)
        except REFUSALS as e:
            self._faults.failed([d.name for d in group], e)
            await self._restore(context)
            return str(e)
        finally:
            for d in group:
                self._asked.pop(d.name, None)
        walked = {*self._walkable(), *(d.name for d in group)}
        for name in [n for n in self.failing if n in walked]:
            self._faults.good(name)
        if still := [d for d in self.plan() if d.name in walked and d.cause is Cause.RECORD]:
            left = CalibrationRefused(still[0].name, f"still out: {still[0].why}")
            self._faults.failed([d.name for d in still], left)
            return str(left)
        return None

    async def _bring_up(
        self, group: Sequence[Due], context: CalibrationContext, force: set[str], due: dict[str, str]
    ) -> None:
        deferred, walkable = [d.name for d in group if d.deferred], self._walkable()
        if group and len(deferred) == len(group):
            self._last_deferred = self._now()
            await bring_up(self._graph, context, deferred, force, due)
        else:
            await bring_up(self._graph, context, {*walkable, *force, *due}, force, due)
        if deferred:
            # They leave outputs where they measured, and keys rest on those.
            await bring_up(self._graph, context, walkable)

    def _walkable(self) -> list[str]:
        """What keys rest on, without what failed and waits: its outputs are where its record says already."""
        held = self._held_back()
        return [n for n in self._graph.prompt if n not in held]

    def _progress(self, progress: Progress) -> None:
        if progress.fraction == 0.0:
            step = f"upkeep: {progress.procedure}" + (f": {progress.message}" if progress.message else "")
            self._wiring.life.set_activity(Activity.CALIBRATING, step)
        self._wiring.progress_event(progress)

    async def _restore(self, context: CalibrationContext) -> None:
        """Outputs back to what is stored, so that keys can go on where the old records are still good."""
        for p in self._graph:
            record = self.context.store.active(p.name)
            if record is None or p.deferred:
                continue
            try:
                await p.apply(context, record)
            except REFUSALS as e:
                self._faults.failed([p.name], e)

    # --- small things ---

    def _versions(self) -> dict[str, int]:
        found = {n: self.context.store.active(n) for n in self._graph.names}
        return {n: r.version for n, r in found.items() if r is not None}

    def _event(self, name: str, **fields: str | int | float | bool | None) -> None:
        self._wiring.events.record(name, fields)
