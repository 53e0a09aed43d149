"""The receiver's interferometer phase in service: the loop, its records, its latch, its ledger, composed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from calibration.context import CalibrationContext
from drivers.errors import DriverError
from qmodd.app.wiring import Wiring
from qmodd.control.ledger import LockLedger
from qmodd.control.phase_estimate import PhaseCounts, PilotTally
from qmodd.control.phase_heater import PhaseHeater
from qmodd.control.phase_loop import PhaseLoop, Surroundings
from qmodd.control.phase_types import LockReport, PhaseLockConfig
from qmodd.durable import write_whole

OUTPUT = "heater.phase"
OWNER = "loop interferometer phase"
LEDGER_FILE, FAULT_FILE = "phase_ledger.jsonl", "phase_fault.json"
# Batches without any pilot for this long: the transmitter sends none.
NO_PILOT_S = 5.0
# Counts are put together for so long, and an error is borne, at the least.
LEAST_SLOW_S = 10.0
# A batch with less than this of the usual share of live slots was partly kept out; how fast the usual one is learnt.
WHOLE, LIVE_GAIN = 0.7, 0.05


def times(period_s: float, batch_s: float) -> tuple[float, float]:
    """(dwell, age of the counts beyond which they are stale), s: what is no longer true is noticed within a period and
    the dwell, and batches that come as they should are never stale."""
    dwell_s = max(period_s, 5.0 * batch_s)
    return dwell_s, min(1.25 * period_s + 4.0 * batch_s, period_s + dwell_s)


def lock_config(wiring: Wiring, context: CalibrationContext, heater: PhaseHeater, pilot: bool) -> PhaseLockConfig:
    """Limits from the configuration, the fringe from the record, the range from the heater."""
    control, batch_s = wiring.config.control, wiring.config.keys.batch_s
    period_s = control.pilot_period_s if pilot else control.phase_period_s
    dwell_s, fresh_s = times(period_s, batch_s)
    slow_s = max(LEAST_SLOW_S, 10.0 * control.phase_period_s)
    return PhaseLockConfig.of(
        context.record("arm_phase"),
        heater.low_rad,
        heater.high_rad,
        period_s=period_s,
        pilot=pilot,
        error_limit=math.radians(control.phase_limit_deg),
        visibility_min=control.visibility_min,
        interval_max_s=slow_s,
        dwell_s=dwell_s,
        fresh_s=fresh_s,
        degraded_max_s=slow_s,
        recalibrate_after_s=0.5 * slow_s,
    )


@dataclass
class PhaseFault:
    """A latched fault on disk, with its snapshot: a restart does not clear it."""

    path: Path

    def read(self) -> str:
        """Why; "" when nothing is latched."""
        try:
            return str(json.loads(self.path.read_text(encoding="utf-8"))["why"])
        except FileNotFoundError:
            return ""
        except (ValueError, KeyError, TypeError):
            return f"latched before a restart; {self.path.name} cannot be read"

    def write(self, snapshot: dict[str, Any]) -> None:
        """All of it or nothing, on disk when this returns."""
        write_whole(self.path, json.dumps(snapshot, indent=1, default=str))

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass
class PhaseService:
    """One session's phase loop. `temperature` and `blind` answer with a reason or ""."""

    wiring: Wiring
    context: CalibrationContext
    around: Surroundings
    loop: PhaseLoop = field(init=False)
    pilot: bool = False
    _pilot_s: float = -math.inf
    _batches_s: float = 0.0
    _record: int = 0
    _live: float = 0.0

    def __post_init__(self) -> None:
        directory, clock = self.wiring.config.module.state_dir, self.wiring.clock
        self.fault = PhaseFault(directory / FAULT_FILE)
        ledger = LockLedger(
            directory / LEDGER_FILE,
            lambda: clock.utc().isoformat(timespec="milliseconds"),
            lambda name, fields: self.wiring.events.record(name, dict(fields)),
        )
        config, heater = self._fringe()
        self.loop = PhaseLoop(
            config,
            heater,
            ledger,
            clock.monotonic,
            flags=self.wiring.engine,
            around=self.around,
            latched=self.fault.read(),
        )

    def _fringe(self) -> tuple[PhaseLockConfig, PhaseHeater]:
        record = self.context.record("arm_phase")
        self._record = record.version
        heater = PhaseHeater.of(self.context, record.value["p_pi_w"])
        return lock_config(self.wiring, self.context, heater, self.pilot), heater

    def on_batch(self, counts: PhaseCounts, end_s: float, live_share: float) -> None:
        """live_share: of the slots, those that could be counted. A batch of which much was kept out is left aside: it
        would look as if light had gone."""
        whole, self._live = live_share > WHOLE * self._live, self._live + LIVE_GAIN * (live_share - self._live)
        if whole:
            self.loop.take_batch(counts, end_s)
        self._batches_s += counts.seconds
        if self.pilot and self._batches_s > NO_PILOT_S and end_s - self._pilot_s > NO_PILOT_S:
            self._use_pilot(False)

    def on_pilot(self, tally: PilotTally, end_s: float) -> bool:
        """True: keep the batch out of the key."""
        self._pilot_s, self._batches_s = end_s, 0.0
        if not self.pilot and tally.total:
            self._use_pilot(True)
        return self.loop.take_pilot(tally, end_s)

    def _use_pilot(self, pilot: bool) -> None:
        """The transmitter has one, or has none any more: another reference, another period."""
        self.pilot = pilot
        self.loop.reconfigured(lock_config(self.wiring, self.context, self.loop.heater, pilot))
        self.wiring.events.record("phase.reference", {"pilot": pilot})

    def limited(self) -> None:
        """Limits of the configuration have changed."""
        control = self.wiring.config.control
        limit_rad = math.radians(control.phase_limit_deg)
        self.loop.limited(replace(self.loop.config, error_limit=limit_rad, visibility_min=control.visibility_min))

    async def step(self, now_s: float) -> str | None:
        """One period; what the lock asks for, and its reason on record when it has just given up."""
        given_up = bool(self.loop.lock.latched)
        await self.loop.step(now_s)
        self.wiring.report_lock(self.loop.report())
        if self.loop.lock.latched and not given_up:
            snapshot = self.loop.snapshot()
            try:
                snapshot["temperatures_c"] = await self.context.temperatures()
            except DriverError as e:
                snapshot["temperatures_c"] = str(e)
            self.fault.write(snapshot)
        return self.loop.take_request()

    async def resume(self) -> None:
        """After a calibration: a new fringe begins anew, an old one goes on from where the lock had it."""
        if self.context.record("arm_phase").version != self._record:
            await self.loop.recalibrated(*self._fringe())
        else:
            await self.loop.back()

    def clear(self, by: str) -> None:
        self.fault.clear()
        self.loop.lock.clear_latch()
        self.wiring.events.record("phase.latch_cleared", {"by": by})

    def report(self) -> LockReport:
        return self.loop.report()

    def numbers(self) -> dict[str, int | float | bool]:
        return self.loop.ledger.numbers(self.loop.report())
