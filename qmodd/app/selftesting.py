"""Self-tests in the daemon: at boot before the calibrations, on command, on schedule; the report retained, a failure
an alarm and a dark module.

A level that has failed is owed: every start runs it again until it has passed, over restarts of the daemon too; nothing
else clears it.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

import numpy as np

from calibration.context import CalibrationContext
from calibration.graph import Graph, bring_up
from qmodd.app.failures import SelftestFailed
from qmodd.app.outputs import SPARE, SPARE_TEST_A
from qmodd.app.upkeep import BUSY, Upkeep
from qmodd.durable import write_whole
from qmodd.lifecycle import Activity
from qmodd.module import Module
from qmodd.randomness import Randomness, SystemRandomness
from qmodd.requests import Refusal
from qmodd.selftest import trip
from qmodd.selftest.bench import Bench, Host
from qmodd.selftest.catalogue import CHECKS
from qmodd.selftest.golden import BadGolden, Golden
from qmodd.selftest.model import Check, Finding, Level, Report
from qmodd.selftest.runner import report_of, run
from qmodd.selftest.words import reasons, verdict

if TYPE_CHECKING:
    from qmodd.app.wiring import Wiring

FILE = "selftest-owed.json"
LOOK_S = 1.0
# A test by schedule waits so long for the end of a block: longer, and the block is lost with it.
BLOCK_S = 120.0
SERVING = (Activity.READY, Activity.KEYING)
Free = Callable[[Path], tuple[int, int]]


class Operating(Protocol):
    """The operator, as a self-test sees it. `walking` is held while outputs are moved."""

    wiring: Wiring
    walking: asyncio.Lock
    in_service: bool
    upkeep: Upkeep | None

    def graph(self) -> Graph: ...

    async def resume(self, module: Module, context: CalibrationContext, redone: frozenset[str]) -> None: ...


@dataclass(frozen=True)
class Job:
    """A self-test that somebody waits for."""

    level: Level
    by: str
    done: asyncio.Future[Report]


@dataclass(frozen=True)
class Owed:
    """The level that has failed, on disk."""

    path: Path

    def read(self) -> Level | None:
        """What cannot be read owes the most that a start can give."""
        try:
            return Level(json.loads(self.path.read_text(encoding="utf-8"))["level"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return Level.LIGHT_ON

    def failed(self, level: Level, why: str) -> None:
        """Once owed, a level stays owed: one below it does not take its place. The production level is no start's: what
        failed in it owes the most that a start can give."""
        before, level = self.read(), min(level, Level.LIGHT_ON, key=lambda one: len(one.upto))
        most = level if before is None or before in level.upto else before
        write_whole(self.path, json.dumps({"level": most.value, "why": why}) + "\n")

    def passed(self, level: Level) -> None:
        before = self.read()
        if before is not None and before in level.upto:
            self.path.unlink()


@dataclass
class SelfTesting:
    """`boot` and `boot_warm` in the bring-up of a session, `serve` beside its service; `ask` from commands. `free`:
    free and all bytes of the file system of a path; `randomness`: the generator that is tested, and keys rest on."""

    host: Operating
    checks: Sequence[Check] = CHECKS
    free: Free = lambda _path: (1 << 60, 1 << 60)
    randomness: Randomness = field(default_factory=SystemRandomness)
    _jobs: asyncio.Queue[Job] = field(default_factory=lambda: asyncio.Queue(1))
    _findings: list[Finding] = field(default_factory=list)
    _spent: dict[str, float] = field(default_factory=dict)
    _tripped: list[Finding] = field(default_factory=list)
    _wanted: Level | None = None
    _last_s: float = -math.inf
    fraction: float = 0.0  # of the test that runs, over all of its levels; 0 between tests
    _levels: tuple[int, int] = (0, 1)  # passed and all of it

    def __post_init__(self) -> None:
        self._wiring = self.host.wiring
        self.owed = Owed(self._wiring.config.module.state_dir / FILE)

    # at boot

    async def trip(self, module: Module, context: CalibrationContext) -> None:
        """The watchdog's trip, before a session toggles its line; its findings are the power-on level's. Once a start
        of the daemon, and again where it has failed: a session after a passing fault is not kept waiting by it."""
        if not trip.passed(self._tripped):
            self._tripped = await trip.trip_findings(self._bench(module, context, "automatic"))

    @property
    def boot_level(self) -> Level:
        """What the configuration says, and what is owed or was asked for."""
        levels = [Level(self._wiring.config.selftest.boot_level), self.owed.read(), self._wanted]
        return max((level for level in levels if level is not None), key=lambda level: len(level.upto))

    async def boot(self, module: Module, context: CalibrationContext) -> None:
        """The power-on level. Raises SelftestFailed."""
        self._findings, self._spent = list(self._tripped), {}
        # The watchdog's test took the rail away: until its monitor's mean is of the rail that is on.
        await asyncio.sleep(trip.SWITCH_S)
        await self._boot(module, context, (Level.POWER_ON,))
        # The heartbeat of this bus has the unconnected channel's flag as its known answer from the beginning.
        await module.heaters.set_current(SPARE, SPARE_TEST_A)

    async def boot_warm(self, module: Module, context: CalibrationContext) -> None:
        """What is wanted beyond power-on, with the chip at its temperature. Raises SelftestFailed."""
        steps = self.boot_level.upto[1:]
        if steps:
            await self._boot(module, context, steps)
        self._wanted = None

    async def _boot(self, module: Module, context: CalibrationContext, steps: Sequence[Level]) -> None:
        self._wiring.life.set_activity(Activity.SELFTEST, f"{steps[-1]} self-test at start")
        report = await self._run(module, context, steps, "automatic")
        self._judge(report, "start")

    # on command

    def ask(self, level: Level, by: str, force: bool) -> asyncio.Future[Report] | None:
        """Test as soon as that can be; None: at the next start, which a failed module tries by itself.

        Raises Refusal: production without `force`, another test waits, something leased, or the module is not there.
        """
        if level is Level.PRODUCTION and not force:
            raise Refusal("wrong_state", "selftest: the production level takes hours of service; `force` runs it")
        life = self._wiring.life
        if not self.host.in_service or life.activity not in SERVING:
            if life.activity is not Activity.SAFE or level is Level.PRODUCTION:
                raise Refusal("wrong_state", f"selftest: the module is {life.activity}: {life.why('activity')}")
            self._wanted = level
            return None
        if (lease := self._wiring.leases.any()) is not None:
            raise Refusal("wrong_state", f"selftest: {lease.output} is leased by {lease.client}")
        if self._jobs.full():
            raise Refusal("busy", "selftest: another one waits already")
        done: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait(Job(level, by, done))
        return done

    # in service

    async def serve(self, module: Module, context: CalibrationContext) -> None:
        """Never returns. Raises SelftestFailed, or what ends a session."""
        self._last_s = self._now()
        while True:
            job = await self._next()
            try:
                report = await self._outage(module, context, job)
            except Refusal as e:
                _answer(job.done, e)
            except BaseException as e:
                _answer(job.done, Refusal("device", f"selftest: {e}"[:480]))
                raise
            else:
                if not job.done.done():
                    job.done.set_result(report)
                self._judge(report, job.by)

    def abandon(self, why: str) -> None:
        """The session has ended: nobody waits any longer."""
        while not self._jobs.empty():
            _answer(self._jobs.get_nowait().done, Refusal("wrong_state", f"selftest: {why}"[:480]))

    async def _next(self) -> Job:
        config = self._wiring.config.selftest
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    return await self._jobs.get()
            except TimeoutError:
                pass
            due = config.every_h > 0.0 and self._now() - self._last_s >= 3600.0 * config.every_h
            if due and self._may() and self._wiring.engine.status.peer_state not in BUSY:
                await self._block_end()
                return Job(Level(config.schedule_level), "schedule", asyncio.get_running_loop().create_future())

    def _may(self) -> bool:
        w = self._wiring
        return self.host.in_service and w.life.activity in SERVING and w.leases.any() is None

    async def _block_end(self) -> None:
        """An open block is not thrown away for what can wait."""
        status, end = self._wiring.engine.status, self._now() + BLOCK_S
        before = status.blocks_committed
        while (
            self._wiring.life.activity is Activity.KEYING
            and self._wiring.engine.status.blocks_committed == before
            and self._now() < end
        ):
            await asyncio.sleep(0.25)

    async def _outage(self, module: Module, context: CalibrationContext, job: Job) -> Report:
        """Keys stop, the module is tested, every output goes back, set points come from their records again, keys may
        come back. Raises Refusal when the module is not in service any more."""
        why = f"{job.level} self-test by {job.by}"
        async with self.host.walking:
            if not self._may():
                raise Refusal("wrong_state", f"selftest: the module is {self._wiring.life.activity}")
            await self._wiring.stop_keying(why)
            self.host.in_service = False
            self._wiring.life.set_activity(Activity.SELFTEST, why)
            await self._wiring.tell_peer()
            self._findings, self._spent = [], {}
            before = {name: o.value for name, o in self._wiring.leases.outputs.items()}
            report = await self._run(module, context, job.level.upto, job.by)
            if not report.passed:
                return report
            await self._restore(before)
            self._wiring.life.set_activity(Activity.CALIBRATING, "set points of the calibrations again")
            await bring_up(self.host.graph(), context, self._walkable())
            await self.host.resume(module, context, frozenset())
            self.host.in_service = True
            self._wiring.life.set_activity(Activity.READY, "self-test passed; keys next")
        return report

    async def _restore(self, before: dict[str, float]) -> None:
        """Values as they were. The temperature's target is its loop's own."""
        for name, output in self._wiring.leases.outputs.items():
            if not name.startswith("tec.") and output.value != before[name]:
                await output.write(before[name])

    def _walkable(self) -> list[str]:
        """What keys rest on, without what waits after a failure: its outputs are where its old record says."""
        graph, failing = self.host.graph(), set(self.host.upkeep.failing if self.host.upkeep else ())
        behind = failing.union(*(graph.descendants(name) for name in failing))
        return [name for name in graph.prompt if name not in behind]

    # the test itself

    def bench_host(self) -> Host:
        """The controller, as its checks see it."""
        clock = self._wiring.clock

        def synchronised() -> tuple[bool, str]:
            good = clock.utc_synchronised()
            return good, "" if good else "nothing on this host says that the clock is synchronised"

        return Host(self._wiring.config.module.state_dir, self.free, synchronised)

    async def _run(self, module: Module, context: CalibrationContext, steps: Sequence[Level], by: str) -> Report:
        """The levels in order, heartbeats of the buses at rest meanwhile; published, whatever came of it."""
        w, begun = self._wiring, self._now()
        taken = w.clock.utc().isoformat(timespec="milliseconds")
        bench = self._bench(module, context, by)
        w.heartbeats_rest = True
        try:
            for done, step in enumerate(steps):
                self._levels = done, len(steps)
                report = await run(bench, step, self.checks, only=step, findings=self._findings)
                self._spent |= report.level_seconds
        finally:
            w.heartbeats_rest, self.fraction = False, 0.0
        report = report_of(bench, steps[-1], taken, self._now() - begun, self._findings, self._spent)
        report = self._held_against_golden(report)
        self._last_s = self._now()
        w.publish_selftest(report)
        w.events.record("selftest.done", self._event(report, by))
        return report

    def _bench(self, module: Module, context: CalibrationContext, by: str) -> Bench:
        w = self._wiring
        # Patterns of the tests only; the same in two runs of one simulated history.
        seed = crc32(f"{w.config.module.serial} {w.clock.utc().isoformat(timespec='milliseconds')}".encode())
        rng = np.random.default_rng(seed)
        bench = Bench(module, replace(context, operator=by), w.clock, self.bench_host(), rng, self._progress)
        bench.randomness, bench.serial = self.randomness, w.bay.serial
        return bench

    def _held_against_golden(self, report: Report) -> Report:
        path = self._wiring.config.selftest.golden
        if path is None or not path.exists():
            return report
        try:
            return Golden.load(path).applied(report)
        except BadGolden as e:
            self._wiring.events.record("selftest.no_golden", {"why": str(e)[:480]})
            return report

    def _event(self, report: Report, by: str) -> dict[str, str | int | float | bool | None]:
        return {
            "level": report.level.value,
            "passed": report.passed,
            "by": by,
            "checks": len(report.findings),
            "failed": len(report.failed),
            "suspects": ", ".join(report.suspects)[:400],
            "seconds": round(report.seconds, 3),
            "why": verdict(report)[:480],
        }

    def _judge(self, report: Report, by: str) -> None:
        """Raises SelftestFailed, after it has been noted that the level is owed."""
        if report.passed:
            self.owed.passed(report.level)
            return
        why = reasons(report)
        self.owed.failed(report.level, why)
        raise SelftestFailed(f"{report.level} self-test failed ({by}): {why}")

    def _progress(self, _name: str, fraction: float, _message: str) -> None:
        done, levels = self._levels
        self.fraction = (done + fraction) / levels
        self._wiring.door.telemetry("progress", {"fraction": fraction})

    def _now(self) -> float:
        return self._wiring.clock.monotonic()


def _answer(done: asyncio.Future[Report], refusal: Refusal) -> None:
    """Nobody may be waiting: then the refusal is in the event log only."""
    if not done.done():
        done.set_exception(refusal)
        done.exception()
