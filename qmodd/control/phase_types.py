"""What the phase lock is told, says and does: configuration, samples, facts, action, report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from calibration.record import Record
from qmodd.control.phase_estimate import PhaseCounts, PhaseModel, PilotTally


class Stage(StrEnum):
    WARM_UP = "warm-up"
    COARSE = "coarse"
    FINE = "fine"
    LOCKED = "locked"
    HOLD = "hold"
    DEGRADED = "degraded"
    RELOCK = "relock"
    FAULT = "fault"


@dataclass(frozen=True)
class PhaseLockConfig:
    """The receiver's fringe as calibrated, the range of the actuator, and the limits.

    low_rad to high_rad: how far the heater can turn the phase from where the lock begins (0). Times in s, limits in
    rad. `entry_share`: to become locked the error must be below this share of its limit, to stay so below the limit.
    `settle_s`: counts this long after a jump of the output are not used. `counts_min`: X counts that make an estimate
    of their own; fewer are put together, for at most `interval_max_s`.
    """

    xi_rad: float
    visibility: float
    low_rad: float
    high_rad: float
    efficiency_ratio: float = 1.0
    period_s: float = 1.0
    error_limit: float = math.radians(8.0)
    entry_share: float = 0.7
    visibility_min: float = 0.90
    visibility_entry: float = 0.005
    coarse_limit: float = 0.4
    interval_max_s: float = 10.0
    counts_min: int = 1000
    dwell_s: float = 1.0
    fresh_s: float = 1.5
    degraded_max_s: float = 10.0
    settle_s: float = 0.15
    dither_rad: float = 0.08
    xi_min: float = 0.03
    wrap_share: float = 0.04
    recalibrate_after_s: float = 5.0
    attempts_max: int = 6
    exchanged_max_s: float = 1.5
    pilot: bool = False
    pilot_offset_rad: float = 0.0
    pilot_offset_sigma: float = 0.03

    def __post_init__(self) -> None:
        if not self.low_rad <= 0.0 <= self.high_rad:
            raise ValueError(f"the lock begins at 0, outside {self.low_rad:g} to {self.high_rad:g} rad")
        if min(self.period_s, self.dwell_s, self.fresh_s, self.interval_max_s) <= 0.0:
            raise ValueError("period, dwell, freshness and longest interval must be positive")

    @classmethod
    def of(cls, arm_phase: Record, low_rad: float, high_rad: float, **limits: float | bool) -> PhaseLockConfig:
        """From the active record of the arm's phase. A pilot reads -xi where X0 and X1 together are at their best:
        its phases are a quarter turn about X0's, which is xi away from the middle of both."""
        v = arm_phase.value
        return cls(
            v["xi_rad"],
            v["visibility"],
            low_rad,
            high_rad,
            v["efficiency_ratio"],
            pilot_offset_rad=-v["xi_rad"],
            **limits,  # type: ignore[arg-type]
        )

    @property
    def dithering(self) -> bool:
        """Neither a pilot nor enough slope between the X states."""
        return abs(self.xi_rad) < self.xi_min and not self.pilot

    @property
    def model(self) -> PhaseModel:
        return PhaseModel(self.visibility, self.xi_rad, self.efficiency_ratio)


@dataclass(frozen=True)
class Sample:
    """Counts of an interval that began and ended then (monotonic s); they arrive later, at different times."""

    begin_s: float
    end_s: float
    counts: PhaseCounts | None = None
    pilot: PilotTally | None = None

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s

    @property
    def middle_s(self) -> float:
        return 0.5 * (self.begin_s + self.end_s)


@dataclass(frozen=True)
class Facts:
    """What is known besides counts, each a reason why not; "" where nothing is wrong.

    temperature: not stable. actuator: the heater does not do what it was told. leased: somebody else has the output.
    blind: a detector is known not to see (bias facts).
    """

    temperature: str = ""
    actuator: str = ""
    leased: str = ""
    blind: str = ""


@dataclass(frozen=True)
class Action:
    """What to do now: where the heater should turn the phase (rad), by how many turns that hops at the range's end,
    and what else is asked for."""

    phase_rad: float
    hop: int = 0
    request: str | None = None
    stage: Stage = Stage.WARM_UP


@dataclass(frozen=True)
class LockReport:
    """The truth as of the time it was asked for. `error_rad` is what was last measured (smoothed), `sigma_rad` how well
    the phase is known now, `age_s` how old the newest usable counts are; `why` says what keeps it from being locked,
    or what made it so; `residual_rms_rad` is over the time locked, counting noise taken off."""

    stage: Stage
    locked: bool
    why: str
    error_rad: float
    sigma_rad: float
    visibility: float
    power_w: float
    saturated: bool
    dithering: bool
    wraps: int
    relocks: int
    attempts: int
    age_s: float = math.inf
    drift_rad_per_s: float = 0.0
    residual_rms_rad: float = 0.0
    phase_rad: float = 0.0
    latched: str = ""


def wrap(angle: float) -> float:
    """To -pi ... pi."""
    return math.remainder(angle, 2.0 * math.pi)
