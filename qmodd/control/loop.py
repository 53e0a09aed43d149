"""Runs named loops, each on its own period, and says the truth about them.

A loop that raises or does not end in time is restarted once; failing again soon, it gives up, and what it drove goes to
its safe values through the callback, with the reason. Trouble of one loop delays no other.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from drivers.bus.usage import BusUse, in_use
from drivers.errors import DriverError
from qmodd.clock import Clock
from qmodd.control.facts import Fact, Missed
from qmodd.control.facts import LoopFault as LoopFault

EXPECTED = (DriverError, LoopFault, TimeoutError)
# A loop that has run well for this many periods after a restart has its one restart back.
FORGIVEN_AFTER = 20
# Periods that the percentiles of lateness are taken over.
REMEMBERED = 1024


class LoopState(StrEnum):
    RUNNING = "running"
    RESTARTED = "restarted"
    FAILED = "failed"


@dataclass(frozen=True)
class Loop:
    """`step` gets the monotonic time; a period in which it does not end within `deadline_s` is a failure.

    `facts` tells what the loop has to report about its inputs and outputs after a step.
    """

    name: str
    period_s: float
    step: Callable[[float], Awaitable[None]]
    deadline_s: float = 0.0
    facts: Callable[[], Sequence[Fact]] = tuple

    def __post_init__(self) -> None:
        if self.period_s <= 0:
            raise ValueError(f"loop {self.name}: period {self.period_s} s")
        if self.deadline_s <= 0:
            object.__setattr__(self, "deadline_s", max(3.0 * self.period_s, 0.5))


@dataclass(frozen=True)
class LoopReport:
    """Since start: periods run and overrun, lateness of the start of a period (s; p99 over the last 1024), time inside
    a step (s), restarts, and why it is not running where it is not.

    `period_mean_s` is what the period really was. `bus_*_s` is the time that a step's transactions held their buses,
    measured there (drivers.bus.usage); `bus_share` of all time since start. `facts` holds of the last step.
    """

    name: str
    period_s: float
    state: LoopState
    why: str
    runs: int
    overruns: int
    late_rms_s: float
    late_max_s: float
    busy_last_s: float
    busy_max_s: float
    restarts: int
    period_mean_s: float = 0.0
    late_p99_s: float = 0.0
    bus_last_s: float = 0.0
    bus_max_s: float = 0.0
    bus_sum_s: float = 0.0
    bus_share: float = 0.0
    bus_transactions: int = 0
    facts: tuple[str, ...] = ()


@dataclass
class CheckIn:
    """Who has to give a sign of life, and when each last did. Times are monotonic seconds."""

    _deadline: dict[str, float] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)

    def expect(self, name: str, deadline_s: float, now_s: float) -> None:
        """From now on `name` must report at least every deadline_s."""
        self._deadline[name] = deadline_s
        self._seen[name] = now_s

    def report(self, name: str, now_s: float) -> None:
        """Raises KeyError for a name that nobody expects."""
        if name not in self._deadline:
            raise KeyError(name)
        self._seen[name] = now_s

    def forget(self, name: str) -> None:
        self._deadline.pop(name, None)
        self._seen.pop(name, None)

    def clear(self) -> None:
        """Nobody has to report any more."""
        self._deadline.clear()
        self._seen.clear()

    def late(self, now_s: float) -> dict[str, float]:
        """Names past their deadline and how long each has been silent, s."""
        return {n: now_s - self._seen[n] for n, d in self._deadline.items() if now_s - self._seen[n] > d}

    def all_in(self, now_s: float) -> bool:
        return not self.late(now_s)


@dataclass
class _Statistics:
    runs: int = 0
    overruns: int = 0
    late_square_sum: float = 0.0
    late_max: float = 0.0
    busy_last: float = 0.0
    busy_max: float = 0.0
    restarts: int = 0
    well: int = 0
    state: LoopState = LoopState.RUNNING
    why: str = ""
    first_start: float = 0.0
    last_start: float = 0.0
    bus_last: float = 0.0
    bus_max: float = 0.0
    meter: BusUse = field(default_factory=BusUse)
    late: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    missed: Missed | None = None
    facts: tuple[str, ...] = ()


def _untold(loop: str, facts: tuple[str, ...]) -> None:
    return None


class Scheduler:
    """Runs loops until cancelled. `safe` is awaited with (loop, reason) when a loop has given up; `told` is called with
    (loop, facts) whenever a loop's facts have changed."""

    def __init__(
        self,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
        safe: Callable[[str, str], Awaitable[None]],
        told: Callable[[str, tuple[str, ...]], None] = _untold,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._safe = safe
        self._told = told
        self._loops: dict[str, Loop] = {}
        self._statistics: dict[str, _Statistics] = {}
        self._group: asyncio.TaskGroup | None = None
        self.check_in = CheckIn()

    def add(self, loop: Loop) -> None:
        """Before or while running. Raises ValueError for a name twice."""
        if loop.name in self._loops:
            raise ValueError(f"two loops are called {loop.name!r}")
        self._loops[loop.name] = loop
        self._statistics[loop.name] = _Statistics()
        if self._group is not None:
            self._group.create_task(self._run(loop), name=f"loop {loop.name}")

    async def run(self) -> None:
        """Ends only when cancelled; an error that no loop may raise (a bug) ends it with that error."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for loop in self._loops.values():
                    group.create_task(self._run(loop), name=f"loop {loop.name}")
                await asyncio.Event().wait()
            finally:
                self._group = None
                self.check_in.clear()

    @property
    def running(self) -> bool:
        return self._group is not None

    def reports(self) -> tuple[LoopReport, ...]:
        return tuple(self.report(name) for name in self._loops)

    def report(self, name: str) -> LoopReport:
        """Raises KeyError for an unknown loop."""
        loop, s = self._loops[name], self._statistics[name]
        return LoopReport(
            name=name,
            period_s=loop.period_s,
            state=s.state,
            why=s.why,
            runs=s.runs,
            overruns=s.overruns,
            late_rms_s=math.sqrt(s.late_square_sum / s.runs) if s.runs else 0.0,
            late_max_s=s.late_max,
            busy_last_s=s.busy_last,
            busy_max_s=s.busy_max,
            restarts=s.restarts,
            period_mean_s=(s.last_start - s.first_start) / (s.runs - 1) if s.runs > 1 else loop.period_s,
            late_p99_s=float(np.percentile(s.late, 99)) if s.late else 0.0,
            bus_last_s=s.bus_last,
            bus_max_s=s.bus_max,
            bus_sum_s=s.meter.seconds,
            bus_share=s.meter.seconds / max(self._clock.monotonic() - s.first_start, 1e-9) if s.runs else 0.0,
            bus_transactions=s.meter.transactions,
            facts=s.facts,
        )

    async def _run(self, loop: Loop) -> None:
        # Its own task, so its own context: whatever bus it uses charges this meter.
        in_use.set(self._statistics[loop.name].meter)
        self.check_in.expect(loop.name, loop.deadline_s + loop.period_s, self._clock.monotonic())
        due = self._clock.monotonic()
        while True:
            try:
                await self._period(loop, due)
            except EXPECTED as e:
                if not await self._again(loop, _say(loop, e)):
                    return
            due = self._next(loop, due)
            await self._sleep(max(0.0, due - self._clock.monotonic()))

    async def _period(self, loop: Loop, due: float) -> None:
        s, start = self._statistics[loop.name], self._clock.monotonic()
        self._began(s, start, max(0.0, start - due))
        used = s.meter.seconds
        try:
            async with asyncio.timeout(loop.deadline_s):
                await loop.step(start)
        except TimeoutError:
            s.missed = Missed(loop.name, f"{loop.name}: a step did not end within {loop.deadline_s:g} s")
            raise
        finally:
            s.busy_last = self._clock.monotonic() - start
            s.busy_max = max(s.busy_max, s.busy_last)
            s.bus_last = s.meter.seconds - used
            s.bus_max = max(s.bus_max, s.bus_last)
            self._report_facts(loop, s)
        self.check_in.report(loop.name, self._clock.monotonic())
        s.well += 1
        if s.state is LoopState.RESTARTED and s.well >= FORGIVEN_AFTER:
            s.state, s.why = LoopState.RUNNING, ""

    @staticmethod
    def _began(s: _Statistics, start: float, late: float) -> None:
        if not s.runs:
            s.first_start = start
        s.last_start = start
        s.runs += 1
        s.late_square_sum += late * late
        s.late_max = max(s.late_max, late)
        s.late.append(late)

    def _report_facts(self, loop: Loop, s: _Statistics) -> None:
        found = [*loop.facts(), *([s.missed] if s.missed else [])]
        s.missed = None
        now = tuple(str(f) for f in found)
        if now != s.facts:
            s.facts = now
            self._told(loop.name, now)

    def _next(self, loop: Loop, due: float) -> float:
        """Periods that are already over are skipped and counted, never run in a burst."""
        missed = max(0, math.floor((self._clock.monotonic() - due) / loop.period_s))
        s = self._statistics[loop.name]
        s.overruns += missed
        if missed:
            s.missed = Missed(loop.name, f"{loop.name}: {missed} periods of {loop.period_s:g} s were missed")
        return due + (missed + 1) * loop.period_s

    async def _again(self, loop: Loop, why: str) -> bool:
        """The one restart, if there is one left; else everything that the loop drove goes safe."""
        s = self._statistics[loop.name]
        s.well, s.why = 0, why
        if s.state is LoopState.RUNNING:
            s.state = LoopState.RESTARTED
            s.restarts += 1
            return True
        s.state = LoopState.FAILED
        await self._safe(loop.name, why)
        self.check_in.forget(loop.name)
        return False


def _say(loop: Loop, error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"did not end within {loop.deadline_s:g} s"
    return str(error) or type(error).__name__
