"""The loop about the phase lock: counts in, heaters moved, key guarded, ledger kept. The same in the daemon and on the
bench (reference control B6, B7; the law itself is `PhaseLock`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from drivers.errors import DriverError
from qmodd.control import key_guard
from qmodd.control.key_guard import KeyGuard
from qmodd.control.ledger import LockLedger
from qmodd.control.phase_estimate import PhaseCounts, PilotTally
from qmodd.control.phase_heater import PHASE, PhaseHeater, RailWatch
from qmodd.control.phase_lock import JUMP, PhaseLock
from qmodd.control.phase_types import Action, Facts, LockReport, PhaseLockConfig, Sample, Stage

# A hop with a ballast is over when the heaters' own lag is; without, when the TEC has taken the change of heat.
HOP_BALANCED_S = 0.02
# What is kept out is not counted either, so it must not last longer than the lock can do without counts.
HOP_UNBALANCED_S = 1.0
# A far move within the range settles with the die.
MOVE_S = 0.15
# The pilot keeps out of the key what is this much of the limit of "locked": the calibrated offset is not exact.
GUARD_SHARE = 1.5
REMEMBERED = 120
UNCONFIRMED = "the heaters' current has not been confirmed yet"


class KeyFlags(Protocol):
    """The key engine's side of it: out of the key from `since_s` seconds ago until cleared."""

    def flag_interval(self, reason: str, since_s: float = 0.0) -> None: ...
    def clear_flag(self, reason: str) -> None: ...


async def _no_tec(_delta_w: float) -> None:
    return None


def _nothing() -> str:
    return ""


@dataclass
class Surroundings:
    """What the loop asks before each step, each answering with a reason or "": temperature not stable, output leased,
    detector blind by its bias. `feed_forward`: tells the TEC that the heat is about to change by so many W."""

    temperature: Callable[[], str] = _nothing
    leased: Callable[[], str] = _nothing
    blind: Callable[[], str] = _nothing
    feed_forward: Callable[[float], Awaitable[None]] = _no_tec


class NoFlags:
    """Where there is no key."""

    def flag_interval(self, reason: str, since_s: float = 0.0) -> None:
        return None

    def clear_flag(self, reason: str) -> None:
        return None


@dataclass
class PhaseLoop:
    """`config.low_rad`, `high_rad` come from the heater. `now`: monotonic seconds, those of samples and steps.

    `step` is the scheduler's; it raises nothing that a bus could cause: a write that fails is a fact of the lock.
    """

    config: PhaseLockConfig
    heater: PhaseHeater
    ledger: LockLedger
    now: Callable[[], float]
    flags: KeyFlags = field(default_factory=NoFlags)
    around: Surroundings = field(default_factory=Surroundings)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    latched: str = ""
    request: str | None = None

    def __post_init__(self) -> None:
        self.lock = PhaseLock(self.config)
        self.lock.latch(self.latched)
        self.rail = RailWatch(self.heater.context)
        self.guard = self._guard()
        self._samples: list[Sample] = []
        self._recent: deque[Sample] = deque(maxlen=REMEMBERED)
        self._flagged: set[str] = set()
        self._write_failed = ""
        self._confirmed = UNCONFIRMED
        self._faulted = bool(self.latched)

    def _guard(self) -> KeyGuard:
        c = self.config
        return KeyGuard(c.model, c.pilot_offset_rad, GUARD_SHARE * c.error_limit)

    # ------------------------------------------------------------ what comes in

    def take_batch(self, counts: PhaseCounts, end_s: float) -> None:
        """Public X counts of a batch that ended then."""
        self._samples.append(Sample(end_s - counts.seconds, end_s, counts=counts))

    def take_pilot(self, tally: PilotTally, end_s: float) -> bool:
        """Pilot counts of a batch, before anything about it has been said. True: keep the batch out of the key."""
        self._samples.append(Sample(end_s - tally.seconds, end_s, pilot=tally))
        return self.guard.pilot_far(tally)

    def rest(self) -> None:
        """Out of service: nothing that was counted meanwhile is used, nothing is held against the ledger."""
        self._samples.clear()
        self.ledger.pause()
        self.clear_flags()

    def clear_flags(self) -> None:
        for reason in self._flagged:
            self.flags.clear_flag(reason)
        self._flagged.clear()

    # ------------------------------------------------------------ a period

    async def begin(self) -> None:
        """Bring ballast and heaters to where the lock begins; before keys. Raises drivers.errors.DriverError."""
        await self.heater.go(0.0)
        self.rail.note(self.now())

    async def step(self, now_s: float) -> None:
        """One period."""
        facts = await self._facts(now_s)
        samples, self._samples = self._samples, []
        self._recent.extend(samples)
        before = self.lock.report(now_s).phase_rad
        action = self.lock.update(now_s, samples, facts)
        self.request = action.request or self.request
        if not facts.leased and not facts.temperature:
            await self._move(action, abs(action.phase_rad - before) > JUMP)
        self._tell_flags(self.now())
        report = self.report()
        self.ledger.see(self.now(), report)
        if self.lock.latched and not self._faulted:
            self.ledger.fault(self.lock.latched)
        self._faulted = bool(self.lock.latched)

    def report(self) -> LockReport:
        """The truth at this moment, power included."""
        report = self.lock.report(self.now())
        return replace(report, power_w=self.heater.powers(report.phase_rad)[PHASE])

    def take_request(self) -> str | None:
        """What the lock asked for since the last call."""
        request, self.request = self.request, None
        return request

    async def recalibrated(self, config: PhaseLockConfig, heater: PhaseHeater) -> None:
        """A new fringe, or heaters moved by a calibration: begin again there."""
        self.config, self.heater = config, heater
        self.lock.recalibrated(config)
        self.guard = self._guard()
        self.rail = RailWatch(heater.context)
        self._samples.clear()
        await self.begin()

    def reconfigured(self, config: PhaseLockConfig) -> None:
        """Another reference or period; the heaters stay, and so does what is latched."""
        here = self.lock.report(self.now()).phase_rad
        self.config = config
        self.lock.recalibrated(config, here)
        self.guard = self._guard()

    def limited(self, config: PhaseLockConfig) -> None:
        """Other limits only: the lock goes on as it is and is judged by them from here on."""
        self.config = config
        self.lock.limited(config)
        self.guard = self._guard()

    async def back(self) -> None:
        """The heaters were moved and brought back near: to where the lock had them."""
        self._samples.clear()
        self.heater.written.clear()
        await self._move(Action(self.lock.report(self.now()).phase_rad), far=True)

    def snapshot(self) -> dict[str, Any]:
        """What a person needs who is to find out why the lock gave up: readings before, stages, powers."""
        report = self.report()
        return {
            "why": self.lock.latched,
            "report": {k: str(v) if isinstance(v, Stage) else v for k, v in asdict(report).items()},
            "history": [{"t_s": t, "stage": s, "why": w} for t, s, w in self.lock.history],
            "counts": [_plain(s) for s in self._recent],
            "heater_w": self.heater.powers(report.phase_rad),
            "ledger": self.ledger.sums.dump(),
        }

    # ------------------------------------------------------------ inside

    async def _facts(self, now_s: float) -> Facts:
        around, guard = self.around, self.guard
        temperature, blind = around.temperature(), around.blind()
        actuator = await self._actuator(now_s)
        guard.fact(key_guard.TEMPERATURE, bool(temperature), temperature)
        guard.fact(key_guard.ACTUATOR, bool(actuator), actuator)
        guard.fact(key_guard.BIAS, bool(blind), blind)
        return Facts(temperature, actuator, around.leased(), blind)

    async def _actuator(self, now_s: float) -> str:
        """Why the heater is not under control. Until the supply monitor tells, what it said last holds on."""
        if self._write_failed:
            return self._write_failed
        try:
            found = await self.rail.check(now_s)
        except DriverError as e:
            return f"the heaters' current cannot be read: {e}"
        if found is not None:
            self._confirmed = found
        return self._confirmed

    async def _move(self, action: Action, far: bool) -> None:
        begun = self.now()
        if action.hop:
            self.guard.moving(key_guard.HOP, begun + (HOP_BALANCED_S if self.heater.balanced else HOP_UNBALANCED_S))
        elif far:
            self.guard.moving(key_guard.MOVE, begun + MOVE_S)
        self._tell_flags(begun)
        try:
            change_w = await self.heater.go(action.phase_rad)
            self._write_failed = ""
        except DriverError as e:
            self._write_failed = f"the heater's last write failed: {e}"
            return
        done = self.now()
        self.rail.note(done)
        self.lock.applied(0.5 * (begun + done), action.phase_rad)
        if action.hop:
            await self._hopped(action.hop, change_w)

    async def _hopped(self, direction: int, change_w: float) -> None:
        if self.heater.balanced:
            await self.sleep(HOP_BALANCED_S)
            outage_s = HOP_BALANCED_S
        else:
            await self.around.feed_forward(change_w)
            outage_s = HOP_UNBALANCED_S
        self.ledger.wrapped(direction, outage_s, self.heater.balanced)

    def _tell_flags(self, now_s: float) -> None:
        reasons = self.guard.reasons(now_s)
        for reason in self._flagged - reasons:
            self.flags.clear_flag(reason)
        for reason in reasons - self._flagged:
            self.flags.flag_interval(reason)
        self._flagged = set(reasons)


def _plain(sample: Sample) -> Mapping[str, Any]:
    return {k: v for k, v in asdict(sample).items() if v is not None}
