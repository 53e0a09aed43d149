"""What the phase lock is told, says and does: configuration, stages, actions, report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from calibration.record import Record
from qmodd.control.phase_estimate import PhaseModel


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
    """From the arm_phase record: p_pi_w, xi_rad, visibility, efficiency_ratio; the heater's range low_w to high_w.

    `drift` is the walk that the Kalman gain is made for (rad^2/s): both dice 1 mK rms in 30 s (pair A5). Limits in rad,
    times in s. `settle_s`: counts this long after a jump of the output are not used.
    """

    p_pi_w: float
    xi_rad: float
    visibility: float
    low_w: float = 0.0
    high_w: float = 0.110
    efficiency_ratio: float = 1.0
    drift: float = 1e-5
    error_limit: float = math.radians(8.0)
    visibility_min: float = 0.90
    coarse_limit: float = 0.4
    informative: float = 0.08
    interval_max_s: float = 10.0
    counts_min: int = 200
    dwell: int = 3
    fresh_s: float = 5.0
    hold_max_s: float = 60.0
    degraded_max_s: float = 10.0
    settle_s: float = 0.6
    dither_rad: float = 0.08
    xi_min: float = 0.03
    wrap_share: float = 0.04
    recalibrate_after_s: float = 5.0
    attempts_max: int = 6

    @classmethod
    def of(cls, arm_phase: Record, high_w: float, **limits: float) -> PhaseLockConfig:
        """From the active record of the arm's phase and the largest power of its heater."""
        v = arm_phase.value
        return cls(
            v["p_pi_w"],
            v["xi_rad"],
            v["visibility"],
            0.0,
            high_w,
            v["efficiency_ratio"],
            **limits,  # type: ignore[arg-type]
        )

    @property
    def dithering(self) -> bool:
        return abs(self.xi_rad) < self.xi_min

    @property
    def model(self) -> PhaseModel:
        return PhaseModel(self.visibility, self.xi_rad, self.efficiency_ratio)


@dataclass(frozen=True)
class Action:
    """What to do now: heater power (W); why this interval must stay out of key, if it must; what else is asked for."""

    power_w: float
    flag: str | None = None
    request: str | None = None
    stage: Stage = Stage.WARM_UP


@dataclass(frozen=True)
class LockReport:
    """The truth as of the last update. `error_rad` is the last measured error (smoothed), `sigma_rad` its uncertainty;
    `visibility` is 1 - 2 QBER_X of the last interval; `why` says what keeps it from being locked, or made it so."""

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
