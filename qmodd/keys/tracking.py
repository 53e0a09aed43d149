"""Clock tracking while keys are made: costs no light, only the residuals of clicks in their gates (reference pair B3).

A second-order loop on the mean residual of a batch, with natural frequency w_n and damping zeta. Below w_n = 2 rad/s it
loses a clock that walks by 1e-10 in frequency per root second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qmodd.keys.counts import BatchReport
from qmodd.keys.frames import FrameClock, FrameCounters, Residuals

# The discrete loop is well damped up to here; longer batches slow the loop down instead of destabilising it.
_MOST_TURN = 0.4
# A mean of fewer residuals is noise (some 60 ps each): they are gathered over batches first.
_LEAST_COUNT = 16
_LEAST_CLICKS = 30
_LEAST_SHARE = 0.4
_MOST_ERROR = 0.25
_PS = 1e-12


@dataclass
class ClockTracker:
    """Keeps `clock` on the slots. `w_n` in rad/s."""

    clock: FrameClock
    w_n: float = 3.0
    zeta: float = 1.0
    last_residual_ps: float = 0.0
    _gathered: Residuals = field(default_factory=Residuals)

    def update(self, residuals: Residuals, end_slot: int) -> FrameClock:
        """Take in the residuals of the slots up to `end_slot`; returns the clock to use from there on.

        DZ alone drives the loop: its bins define the clock, and its delay is the reference of the others.
        """
        self._gathered = self._gathered + residuals
        slots = end_slot - self.clock.slot
        count = self._gathered.count[0]
        if slots <= 0 or count < _LEAST_COUNT:
            return self.clock
        mean = self._gathered.sum_ps[0] / count
        self._gathered = Residuals()
        turn = min(_MOST_TURN, self.w_n * slots * self.clock.period_ps * _PS)
        moved = self.clock.moved_to(end_slot)
        self.clock = FrameClock(
            moved.slot,
            moved.tag_ps,
            moved.frac_ps + 2 * self.zeta * turn * mean,
            moved.period_ps + turn * turn * mean / slots,
        ).moved_to(end_slot)
        self.last_residual_ps = mean
        return self.clock


def frame_lost(counters: FrameCounters) -> str | None:
    """Why the frame must be considered lost after a batch, or None: clicks of DZ that fall into no gate."""
    clicks, inside = counters.clicks[0], counters.in_gate[0]
    if clicks >= _LEAST_CLICKS and inside < _LEAST_SHARE * clicks:
        return f"only {inside} of {clicks} clicks at DZ fall into the gates"
    return None


def slots_shifted(report: BatchReport, mu: Sequence[tuple[float, float]], p_mu: Sequence[float]) -> str | None:
    """Why the slots must be numbered wrongly, or None: errors like chance, and intensities that do not show in the
    detections. Errors alone may be the interferometer's, which its lock finds again within the run.

    Of right slots a share mu_d p_d / (sum of mu p) are decoys, of wrong ones p_d.
    """
    bits, errors, detections = sum(report.n_x), sum(report.m_x), sum(report.n_z)
    if bits < _LEAST_CLICKS or detections < _LEAST_CLICKS or errors <= _MOST_ERROR * bits:
        return None
    weights = [0.5 * (low + high) * p for (low, high), p in zip(mu, p_mu, strict=True)]
    right, wrong, seen = weights[1] / sum(weights), p_mu[1], report.n_z[1] / detections
    if abs(seen - wrong) > abs(seen - right):
        return None
    return f"{errors} errors in {bits} bits and {seen:.0%} decoys among the detections: slots are numbered wrongly"
