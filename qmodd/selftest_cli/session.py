"""One module tested from power-on, its core built and not running. Whatever is wrong with it becomes a finding.

The same pieces as in the daemon: devices, watchdog line, rails, the loop that holds the temperature; no keys, no
network. Whatever ends it, the rails drop and every output goes to its safe value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from drivers.errors import DriverError
from qmodd.app.core import Core
from qmodd.app.failures import NotReady
from qmodd.app.identify import firmware_sha256
from qmodd.app.late import Late
from qmodd.app.safe_stop import SAFE_DEADLINE_S
from qmodd.calibrate.session import NoPeer
from qmodd.control.loop import Scheduler
from qmodd.lifecycle import Administrative
from qmodd.safety import Watchdog, WatchdogStarved, check_interlock, safe_state
from qmodd.selftest.bench import Bench, Production
from qmodd.selftest.model import Check, Finding, Level, Report, Verdict
from qmodd.selftest.runner import report_of, run
from qmodd.selftest.trip import SWITCH_S, trip_findings
from qmodd.selftest_cli.opening import failed, not_run, open_devices, opening

# From ambient to the target, on the slowest module within specification.
WARM_S = 180.0
CONTACTS = {"cover_closed": "cover"}
CONTACTS_S = 0.25
TEC_NEEDS = ("thermistor", "peltier", "heat sink", "supply", "submount")
Say = Callable[[str], None]
T = TypeVar("T")
Told = Callable[[str, float, str], None]


async def examine_module(
    core: Core,
    level: Level,
    checks: Sequence[Check],
    *,
    only: Level | None = None,
    say: Say = lambda _text: None,
    progress: Told = lambda _name, _fraction, _message: None,
    on_bench: Callable[[Bench], None] = lambda _bench: None,
    production: Production | None = None,
) -> Report:
    """Every level up to `level`, or `only` one, each step told to `say` and `progress`. `on_bench` is handed the bench
    when the test is over: its figures. `production`: over what and how long that level runs.

    A device that fails is a finding; a bug is raised.
    """
    trial = Trial(core, say, progress)
    trial.bench.production = production or trial.bench.production
    report = await trial.test(level, checks, (only,) if only else level.upto)
    on_bench(trial.bench)
    return report


@dataclass
class Trial:
    """One run. `ended`: why the bench does not hold any more (rails dropped, platform away); then nothing is run."""

    core: Core
    say: Say
    progress: Told
    findings: list[Finding] = field(default_factory=list)
    ended: str = ""
    bench: Bench = field(init=False)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _tec: asyncio.Event = field(default_factory=asyncio.Event)
    _warm: bool = False
    _trip_s: float = 0.0

    def __post_init__(self) -> None:
        core, wiring = self.core, self.core.wiring
        context = core.operator.context(wiring.module)
        context.operator = "qmodd selftest"
        if core.config.module.role == "bob":
            context.light = NoPeer()
        rng = np.random.default_rng(int.from_bytes(core.injected.randomness.bytes(8), "big"))
        host = core.operator.selftesting.bench_host()
        self.bench = Bench(wiring.module, context, wiring.clock, host, rng, self.progress)
        self.bench.randomness = core.injected.randomness

    async def test(self, level: Level, checks: Sequence[Check], steps: Sequence[Level]) -> Report:
        clock, life = self.core.wiring.clock, self.core.wiring.life
        begun, taken = clock.monotonic(), clock.utc().isoformat(timespec="milliseconds")
        spent: dict[str, float] = {}
        if life.administrative is Administrative.LOCKED:
            why = f"the module is locked ({life.why('administrative')}); `unlock` it first"
            self.findings = [failed("administrative.unlocked", "administrative lock", why), *not_run(steps, why)]
        elif latched := self.core.operator.dark_latch():
            why = f"{latched}; `clear-latch` it first"
            self.findings = [failed("latches.clear", "safety latch", why), *not_run(steps, why)]
        else:
            await self._session(checks, steps, spent)
        seconds = clock.monotonic() - begun
        self.bench.serial = self.core.wiring.bay.serial
        return report_of(self.bench, level, taken, seconds, self.findings, spent)

    async def _session(self, checks: Sequence[Check], steps: Sequence[Level], spent: dict[str, float]) -> None:
        module = self.core.wiring.module
        try:
            async with asyncio.TaskGroup() as group:
                tasks = await self._begin(group)
                await self._levels(checks, steps, spent)
                for task in tasks:
                    task.cancel()
        finally:
            self.core.operator.in_service = False
            outputs = list(module.outputs())
            await safe_state(module.platform, outputs, lambda name, what: self.say(f"{name} {what}"), SAFE_DEADLINE_S)
            self.core.operator.safekeeping.lit = False
            await self.core.operator.safekeeping.leave_tec("the self-test is over")
            await module.close()

    async def _begin(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Devices, watchdog, rails, temperature loop, as far as it goes. Returns what has to be cancelled."""
        self.say("opening and identifying the devices")
        module, operator = self.core.wiring.module, self.core.operator
        faults = await open_devices(module)
        self.findings += opening(self.bench, faults)
        if "platform" in faults:
            self._end("the platform does not answer: no rail can be switched on")
            return []
        self.bench.context.firmware_sha256 = firmware_sha256(module.identities)
        try:
            operator.check_parts(module)
        except NotReady as e:
            if "source" not in faults:
                self.findings.append(failed("symbol_period", self.bench.part("source"), str(e)))
        await self._identify()
        return await self._power(group, "tec" not in faults)

    async def _identify(self) -> None:
        """The photonic module that is in: its factory record and its records come into force."""
        wiring = self.core.wiring
        try:
            await wiring.bay.identify(wiring.module.identities, self.bench.context)
        except (NotReady, DriverError) as e:
            part = self.bench.part("fru") if self.bench.has("fru") else "factory record"
            needs = (self.bench.bus("fru"),) if self.bench.has("fru") else ()
            self.findings.append(failed("module.identified", part, str(e), needs))

    async def _power(self, group: asyncio.TaskGroup, with_tec: bool) -> list[asyncio.Task[None]]:
        core, module = self.core, self.core.wiring.module
        scheduler = Scheduler(core.wiring.clock, asyncio.sleep, self._gave_up)
        late = Late(scheduler, core.wiring.clock.monotonic)
        watchdog = Watchdog(module.platform, late, core.config.safety.watchdog_period_s)
        try:
            await check_interlock(module.platform)
            if contacts := await self._contacts():
                self._opened(contacts)
                return []
            self.findings += await self._trip()
            await watchdog.toggle()
            await core.operator.ramp.release()
            await core.operator.rails_on(module)
            # The watchdog's test took the rail away: until its monitor's mean is of the rail that is on.
            await asyncio.sleep(SWITCH_S)
        except WatchdogStarved as e:
            await self._starved(e)
            return []
        except DriverError as e:
            self.findings.append(failed("platform.switches", "platform", str(e), (self.bench.bus("platform"),)))
            self._end(f"the rails could not be switched on: {e}")
            return []
        tasks = [
            group.create_task(self._guard(watchdog), name="watchdog"),
            group.create_task(self._watch_contacts(), name="contacts"),
        ]
        if with_tec:
            core.operator.add_tec_loop(scheduler, module, self.bench.context)
            self.bench.aim = core.operator.tec.aim if core.operator.tec else None
        else:
            self._tec.set()
        return [*tasks, group.create_task(scheduler.run(), name="loops")]

    async def _trip(self) -> list[Finding]:
        """Of the power-on level, though it comes before: nothing may toggle meanwhile."""
        begun = self.bench.clock.monotonic()
        found = await trip_findings(self.bench)
        self._trip_s = self.bench.clock.monotonic() - begun
        return found

    async def _guard(self, watchdog: Watchdog) -> None:
        try:
            await watchdog.run()
        except WatchdogStarved as e:
            await self._starved(e)

    async def _watch_contacts(self) -> None:
        """A contact that opens takes the light away: what is judged after that would be judged wrongly."""
        while not self.ended:
            await asyncio.sleep(CONTACTS_S)
            try:
                contacts = await self._contacts()
            except DriverError:
                return  # the watchdog says what there is to say of the platform
            if contacts:
                self._opened(contacts)

    async def _starved(self, error: WatchdogStarved) -> None:
        """Rails are off by the hardware: say whose doing it was."""
        platform = self.core.wiring.module.platform
        try:
            open_loop, contacts = not await platform.read("interlock_ok"), await self._contacts()
        except DriverError as e:
            self.findings.append(failed("platform.answers", "platform", str(e), (self.bench.bus("platform"),)))
            self._end(str(error))
            return
        if open_loop or contacts:
            self._opened(contacts)
        else:
            needs = (self.bench.part("platform"), self.bench.bus("platform"))
            self.findings.append(failed("watchdog.holds", "watchdog", str(error), needs))
            self._end(str(error))

    async def _contacts(self) -> list[str]:
        """Contacts of the interlock loop that are open, where the platform has a line for them."""
        platform = self.core.wiring.module.platform
        present = [line for line in CONTACTS if line in platform.lines]
        return [CONTACTS[line] for line in present if not await platform.read(line)]

    def _opened(self, contacts: Sequence[str]) -> None:
        if self.ended:
            return
        at = f" at the {' and the '.join(contacts)}" if contacts else ""
        why = f"the interlock loop is open{at}: light and heat are off"
        self.findings.append(failed("interlock.closed", "interlock", why))
        self._end(why)

    async def _gave_up(self, loop: str, why: str) -> None:
        part = self.bench.part("tec")
        needs = (*TEC_NEEDS, self.bench.bus("tec"))
        self.findings.append(failed("temperature_loop.runs", part, f"loop {loop}: {why}", needs))
        # Checks of the temperature control then drive the element themselves.
        self.bench.notes["temperature_loop"] = why
        self._tec.set()

    def _end(self, why: str) -> None:
        self.ended = self.ended or why
        self._over.set()

    async def _levels(self, checks: Sequence[Check], steps: Sequence[Level], spent: dict[str, float]) -> None:
        clock = self.core.wiring.clock
        for step in steps:
            if step is not Level.POWER_ON and not self.ended:
                await self._until(self._warm_up())
            if why := self.ended or self._too_cold(step):
                self.findings += not_run((step,), why)
                continue
            begun = clock.monotonic()
            self.say(f"{step} self-test")
            report = await self._until(run(self.bench, step, checks, only=step, findings=self.findings))
            spent |= report.level_seconds if report else {step.value: clock.monotonic() - begun}
            if step is Level.POWER_ON:
                spent[step.value] += self._trip_s

    async def _until(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The work to its end, or to the moment when the bench does not hold any more: then None."""
        task = asyncio.ensure_future(work)
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            task.cancel()
        if task.done() and not task.cancelled():
            return task.result()
        await asyncio.wait({task})
        return None

    async def _warm_up(self) -> None:
        if self._warm or self._tec.is_set():
            return
        self.say("bringing the chip to temperature")
        begun = self.core.wiring.clock.monotonic()
        waiting = asyncio.ensure_future(self.core.operator.warm_up())
        gave_up = asyncio.ensure_future(self._tec.wait())
        try:
            await asyncio.wait({waiting, gave_up}, timeout=WARM_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gave_up.cancel()
            waiting.cancel()
        self._warm = waiting.done() and not waiting.cancelled() and waiting.exception() is None
        if self._warm:
            self.say(f"at temperature after {self.core.wiring.clock.monotonic() - begun:.0f} s")
        elif not self._tec.is_set():
            self._tec.set()
            needs = (*TEC_NEEDS, self.bench.bus("tec"))
            why = f"the chip is not at its temperature after {WARM_S:.0f} s"
            self.findings.append(failed("warm_up", self.bench.part("tec"), why, needs, Level.LIGHT_OFF))

    def _too_cold(self, step: Level) -> str:
        """Light-off can be judged at any temperature; interferometers and paths cannot."""
        if step in (Level.POWER_ON, Level.LIGHT_OFF) or self._warm:
            return ""
        return "the chip is not at its temperature"


def unreachable(report: Report) -> bool:
    """No device answered at all: the module is not there."""
    opens = [f for f in report.findings if f.name.startswith("opens.")]
    return bool(opens) and all(f.verdict is Verdict.FAILED for f in opens)
