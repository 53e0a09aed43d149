"""Everything that an operator of a module uses, in one place: records, events, engine, door, and small helpers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.context import CalibrationContext, Progress, Settings
from calibration.factory import FactoryRecord
from calibration.fit import FitRefused, Resistance
from calibration.raw import RawStore
from calibration.record import Record
from calibration.store import Change, Kind, RecordStore
from qmodd.app.alarm_desk import FILE as ALARMS_FILE
from qmodd.app.alarm_desk import AlarmDesk
from qmodd.app.field_commands import Locate
from qmodd.app.identify import Bay
from qmodd.app.leases import Leases
from qmodd.app.outputs import SPARE, SPARE_TEST_A, catalogue
from qmodd.app.setting_desk import SettingDesk
from qmodd.clock import Clock
from qmodd.config import Config
from qmodd.control.facts import Fact
from qmodd.control.loop import Loop, LoopFault, Scheduler
from qmodd.control.phase_lock import LockReport
from qmodd.door_core import DoorCore
from qmodd.events import EventLog
from qmodd.keys.alice_engine import AliceEngine
from qmodd.keys.bob_engine import BobEngine
from qmodd.keys.handover import Handover
from qmodd.keys.settings import Phase
from qmodd.lifecycle import Activity, LifeCycle
from qmodd.messages import CalibrationRecord, Event, State
from qmodd.module import Module
from qmodd.outbox import Outbox
from qmodd.safety.guards import HeaterBudget, guard, nominal_power
from qmodd.selftest.model import Report
from qmodd.selftest.retained import message

if TYPE_CHECKING:
    from qmodd.app.security_commands import Keys as SecurityKeys
    from qmodd.app.security_desk import SecurityDesk

EVENT_LIFETIME_S = 30 * 86_400.0
WATCH_S = 0.25
STOP_KEYING_S = 0.5
KEYING = "distilling keys"


@dataclass
class Wiring:
    """`engine`, `door`, `bay`, `locate` and `settings` are set by core before anything runs. `config`: what is in
    force, which may be another object from one moment to the next. `module_swapped`: called when another photonic
    module is in than before, with its records in force and nothing running."""

    config: Config
    clock: Clock
    life: LifeCycle
    events: EventLog
    outbox: Outbox
    records: RecordStore
    factory: FactoryRecord
    module: Module
    heartbeat_s: float = 0.3
    engine: AliceEngine | BobEngine = field(init=False)
    door: DoorCore = field(init=False)
    bay: Bay = field(init=False)
    locate: Locate = field(init=False)
    security: SecurityDesk = field(init=False)
    security_keys: SecurityKeys = field(init=False)
    leases: Leases = field(init=False)
    alarms: AlarmDesk = field(init=False)
    settings: SettingDesk = field(init=False)
    budget: HeaterBudget = field(init=False)
    # What is latched, for `state`; the operator's.
    latched: Callable[[], list[dict[str, Any]]] = list
    scheduler: Scheduler | None = None
    # A self-test has the buses: reads that only show whether they answer would come between.
    heartbeats_rest: bool = False
    # Wanted by command or by configuration; `stop` clears it, and the engine is not started again until `start`.
    keys_wanted: bool = True
    why_not_wanted: str = ""
    # Why no keys may be made on the calibrations as they are; and what is about to stop them.
    keys_blocked: str | None = None
    # Why no keys may be made while another pre-shared pad waits; "" when none does.
    rekeying: str = ""
    notice: str = ""
    raw: RawStore = field(default_factory=RawStore)
    module_swapped: list[Callable[[], None]] = field(default_factory=list)
    # Told, once for each opening, that the tamper contact has struck and the module is to be zeroised.
    tampered: Callable[[str], None] = lambda why: None
    lock: LockReport | None = None
    # None where nobody hands keys over.
    handover: Handover | None = None
    sweep_wanted: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.budget = HeaterBudget(self.config.safety.heater_budget_w, self.clock.monotonic, self.heater_power_w)
        guard(self.module, self.budget)
        outputs = catalogue(self.module, self.config.safety.tec_ramp_c_per_s)
        self.leases = Leases(outputs, self.clock, lambda name, fields: self.events.record(name, dict(fields)))
        self.leases.listeners.append(lambda _output, _leased: self.publish_state())
        alarms_file = self.config.module.state_dir / ALARMS_FILE
        self.alarms = AlarmDesk(alarms_file, self.clock, self.outbox, self.events)
        self.life.listeners.append(self._life_changed)
        self.events.listeners.append(self._publish_event)
        self.records.subscribe(self._record_changed)

    def heater_power_w(self, channel: str, amperes: float) -> float:
        """W of a heater at a current, by its record; one without a record counts as of the highest resistance."""
        record = self.records.active("heater_iv")
        if record is None or f"{channel}_r0_ohm" not in record.value:
            return nominal_power(channel, amperes)
        r0, rho = record.value[f"{channel}_r0_ohm"], record.value[f"{channel}_rho_per_w"]
        try:
            return Resistance(r0, rho, np.zeros((2, 2)), 0.0).power(amperes)
        except FitRefused:
            return math.inf

    # calibration

    def calibration_context(self, module: Module, progress: Callable[[Progress], None]) -> CalibrationContext:
        c = self.config
        settings = Settings(
            mu_signal=c.source.mu_signal,
            decoy_ratio=c.source.decoy_ratio,
            p_x=c.source.p_x,
            p_decoy=c.source.p_decoy,
            laser_frequency_hz=c.source.laser_frequency_hz,
            laser_power_dbm=c.source.laser_power_dbm,
            basis_split=c.receiver.basis_split,
            symbol_period_ps=c.pair.symbol_period_ps,
            half_gate_ps=c.receiver.half_gate_ps,
            gate=(c.receiver.gate_open_ps, c.receiver.gate_period_ps),
            tec_current_limit_a=c.control.tec_current_limit_a,
        )
        return CalibrationContext(
            side=c.module.role,
            heaters=module.heaters,
            biases=module.biases,
            adc=module.adc,
            rail=module.rail,
            submount=module.submount,
            tec=module.tec,
            factory=self.factory,
            clock=self.clock,
            store=self.records,
            settings=settings,
            progress=progress,
            raw=self.raw,
        )

    def progress_event(self, progress: Progress) -> None:
        self.door.telemetry("progress", {"fraction": progress.fraction})
        if progress.fraction == 0.0:
            self.events.record("calibration.begun", {"name": progress.procedure, "message": progress.message})

    # loops

    def add_loop(
        self,
        scheduler: Scheduler,
        name: str,
        period_s: float,
        step: Callable[[float], Awaitable[None]],
        facts: Callable[[], Sequence[Fact]] = tuple,
        outputs: Sequence[str] = (),
    ) -> None:
        """`outputs`: what the loop drives; it rests while one of them is leased."""
        for output in outputs:
            self.leases.own(output, f"loop {name}")

        async def unless_leased(now_s: float) -> None:
            if all(self.leases.free(output) for output in outputs):
                await step(now_s)

        scheduler.add(Loop(name, period_s, unless_leased if outputs else step, facts=facts))

    def add_heartbeat(
        self, scheduler: Scheduler, name: str, period_s: float, step: Callable[[float], Awaitable[None]]
    ) -> None:
        """A loop that must show a sign of life within `safety.check_in_s` (at least three of its periods)."""
        silent_s = max(self.config.safety.check_in_s, 3.0 * period_s)
        scheduler.add(Loop(name, period_s, step, silent_s - period_s))

    def heartbeats(self, module: Module) -> Iterator[tuple[str, float, Callable[[float], Awaitable[None]]]]:
        """A harmless read on each bus: name, period, step."""

        def reading(read: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[float], Awaitable[None]]:
            async def step(now_s: float) -> None:
                if not self.heartbeats_rest:
                    await read()

            return step

        yield "heater rail", self.heartbeat_s, reading(module.rail.read)
        yield "heater source", self.heartbeat_s, SourceBeat(module, resting=lambda: self.heartbeats_rest).step
        yield "bias source", self.heartbeat_s, reading(lambda: module.biases.set_voltage("spare", 0.0))
        yield "submount sensor", 2.0 * self.heartbeat_s, reading(module.submount.read_celsius)
        yield "photodiodes", self.heartbeat_s, reading(lambda: module.adc.read_volts(1))
        if self.config.module.role == "alice":
            yield "laser", 2.0 * self.heartbeat_s, reading(module.laser.read)
            yield "symbol source", 2.0 * self.heartbeat_s, reading(module.source.now)
        else:
            yield "detectors", 2.0 * self.heartbeat_s, reading(module.detectors.read_bias_voltage)
            yield "time tagger", 2.0 * self.heartbeat_s, reading(module.tags.now_ps)

    # keys

    async def key_while_allowed(self, *beside: Coroutine[Any, Any, None]) -> None:
        """Ask for keys whenever they are wanted and report what the engine does; ends only when cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, work in enumerate(beside):
                group.create_task(work, name=f"beside keying {number}")
            while True:
                await self._follow_engine()
                await asyncio.sleep(WATCH_S)

    async def _follow_engine(self) -> None:
        if self.life.activity not in (Activity.READY, Activity.KEYING):
            return
        status, why_not = self.engine.status, self.why_no_keys()
        if why_not is None and not status.wanted:
            await self.engine.start_keying()
        elif why_not is not None and status.wanted:
            await self.stop_keying(why_not)
        if status.phase is Phase.KEYING and why_not is None:
            self.life.set_activity(Activity.KEYING, f"distilling keys; next: {self.notice}" if self.notice else KEYING)
        elif why_not is not None:
            self.life.set_activity(Activity.READY, why_not)
        else:
            self.life.set_activity(Activity.READY, f"{status.phase}: {status.why}")

    def why_no_keys(self) -> str | None:
        """What stands against keys on this module's side, but not in its engine; None: nothing."""
        if not self.keys_wanted:
            return self.why_not_wanted
        return self.keys_blocked or self.rekeying or self.leases.keys_held()

    async def stop_keying(self, why: str) -> None:
        """Bounded: what the engine has to send may be lost, the far side notices by itself."""
        try:
            async with asyncio.timeout(STOP_KEYING_S):
                await self.engine.stop_keying(why)
        except TimeoutError:
            self.events.record("engine.stop_not_sent", {"why": why})

    async def tell_peer(self) -> None:
        """State of this module, for the far one's display."""
        await self.engine.note(self.life.activity, self.life.why("activity"))

    def report_lock(self, report: LockReport) -> None:
        before, self.lock = self.lock, report
        if before is None or before.stage is not report.stage:
            self.events.record("phase.stage", {"stage": str(report.stage), "why": report.why})

    # what the NOC is told

    def _record_changed(self, change: Change) -> None:
        record = change.record
        if record is None:
            return
        fields: dict[str, Any] = {"name": change.name, "version": record.version}
        name = "calibration.stored" if change.kind is Kind.RECORD else f"calibration.{change.kind}"
        if change.why:
            fields["why"] = change.why[:480]
        if change.kind is Kind.RENEWED and (renewal := self.records.renewal(change.name)) is not None:
            fields |= {"by": renewal.by, "read": json.dumps(renewal.read, sort_keys=True)[:480]}
        self.events.record(name, fields)
        self.publish_record(record)

    def publish_record(self, record: Record) -> None:
        renewal, conditions = self.records.renewal(record.name), record.conditions
        body = CalibrationRecord(
            name=record.name,
            version=record.version,
            value=dict(record.value),
            units=record.units,
            sigma={name: record.sigma(name) for name in record.covariance_names},
            residual=record.residual_rms,
            temperatures_c=dict(conditions.temperatures_c),
            operator=conditions.operator,
            raw_sha256=record.raw_sha256 or None,
            firmware_sha256=conditions.firmware_sha256 or None,
            invalid=(self.records.invalid_reason(record.name) or "")[:500],
            parents=dict(record.parents),
            taken=record.created,
            valid_until=self.records.valid_until(record.name),
            renewed=renewal.at if renewal else None,
        )
        self.outbox.put(f"calibration/{record.name}", body.payload(), retain=True, kind="state")

    def publish_selftest(self, report: Report) -> None:
        self.outbox.put("selftest", message(report).payload(), retain=True, kind="state")

    def _life_changed(self, name: str, value: Any) -> None:
        self.events.record(f"state.{name}", {"value": value.value, "why": value.why})
        self.publish_state()

    def publish_state(self) -> None:
        """The three fields with their reasons, what is held off, and who drives each output."""
        told = {**self.life.snapshot(), "owners": self.leases.owners(), "latches": self.latched()}
        told["assembly"] = self.bay.serial
        self.outbox.put("state", State.from_snapshot(told).payload(), retain=True, kind="state")

    def _publish_event(self, entry: dict[str, Any]) -> None:
        self.outbox.put("event", Event.from_entry(entry).payload(), kind="event")


@dataclass
class SourceBeat:
    """The unconnected channel, driven and not driven in turn, has its open-circuit flag or has it not, and no heater
    has one: a dead line reads as all zeros, and answers that are old do not follow."""

    module: Module
    driven: bool = True  # as the start leaves it
    resting: Callable[[], bool] = lambda: False

    async def step(self, now_s: float) -> None:
        """Raises LoopFault, or a drivers.errors.DriverError."""
        if self.resting():
            return
        heaters = self.module.heaters
        flagged = await heaters.open_circuits()
        if opened := sorted(flagged - {SPARE}):
            at = ", ".join(f"{1e3 * heaters.current(c):.1f} mA" for c in opened)
            raise LoopFault(f"heater {', '.join(opened)}: open circuit: its flag is set at {at}; none may be")
        if self.driven is not (SPARE in flagged):
            what = "does not show" if self.driven else "shows"
            raise LoopFault(
                f"the heater source {what} the open-circuit flag of its spare channel at "
                f"{1e3 * heaters.current(SPARE):.1f} mA; it has to be set when driven and at no other time: line or "
                "part dead, or its answers are stale"
            )
        self.driven = not self.driven
        await heaters.set_current(SPARE, SPARE_TEST_A if self.driven else 0.0)


def read_factory(config: Config) -> FactoryRecord:
    """Raises ValueError (pydantic's) when the factory's file does not fit."""
    return FactoryRecord.from_mapping(json.loads(config.module.factory.read_text()))
