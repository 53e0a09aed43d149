"""Drift of a part at work: y = y0 (1 + a ln(1 + t / tau)), the law of heaters and biases that settle.

The slope per unit of ln(1 + t / tau) is what predicts the years ahead: a part that drifts too fast in its first day is
not shipped (reference control C; pair.md A7: 0.1 % with tau 100 h for a heater's resistance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.fit import FitRefused, linear

Floats = npt.NDArray[np.float64]
LEAST_READINGS = 4


@dataclass(frozen=True)
class LogDrift:
    """start: value at t = 0; slope: relative change per unit of ln(1 + t / tau) with its standard uncertainty; rms:
    relative scatter of the readings about the law."""

    start: float
    slope: float
    slope_sigma: float
    rms: float

    def after(self, hours: float, tau_h: float) -> float:
        """Relative change after so many hours at work, if the law goes on."""
        return self.slope * math.log1p(hours / tau_h)


def fit_log_drift(hours: Floats, values: Floats, tau_h: float) -> LogDrift:
    """hours, values: shape (n,), n >= 4. Raises FitRefused for fewer readings, or when they do not span a drift."""
    if len(hours) < LEAST_READINGS:
        raise FitRefused(f"{len(hours)} readings; a drift needs at least {LEAST_READINGS}")
    if np.ptp(hours) <= 0.0 or np.min(hours) < 0.0:
        raise FitRefused("all readings are of one moment, or before the start")
    design = np.stack([np.ones(len(hours)), np.log1p(hours / tau_h)], 1)
    fit = linear(design, values)
    start, change = (float(x) for x in fit.parameters)
    if start == 0.0:
        raise FitRefused("the value at the start is 0: a relative drift has no meaning")
    sigma = math.sqrt(float(fit.covariance[1, 1])) / abs(start)
    return LogDrift(start, change / start, sigma, fit.residual_rms / abs(start))


def log_times(hours: float, count: int, first_h: float) -> Floats:
    """Moments to read at, h: shape (count,), evenly in ln(t) from first_h to the end, after one at 0.

    Raises ValueError when there are fewer than four, or the first is not before the end.
    """
    if count < LEAST_READINGS or not 0.0 < first_h < hours:
        raise ValueError(f"{count} readings from {first_h:g} h to {hours:g} h: at least {LEAST_READINGS} in order")
    return np.concatenate([[0.0], np.geomspace(first_h, hours, count - 1)])
