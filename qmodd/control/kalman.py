"""Scalar Kalman filter of a phase error that wanders as a random walk (reference control B6, pair A5)."""

from __future__ import annotations

import math
from dataclasses import dataclass


def steady_gain(q: float, r: float) -> float:
    """Steady-state gain of a random walk with variance q a step, measured with variance r a step (both > 0)."""
    p = 0.5 * (q + math.sqrt(q * q + 4.0 * q * r))
    return p / (p + r)


@dataclass
class ScalarKalman:
    """Variance (rad^2) of an error that is corrected by what is estimated of it; drift in rad^2/s.

    The correction makes the expected error zero each time, so that only the variance is kept.
    """

    variance: float
    drift: float

    def predict(self, seconds: float) -> None:
        self.variance += self.drift * max(0.0, seconds)

    def update(self, measured: float, measured_variance: float) -> float:
        """The part of a measured error to correct, rad. Raises ValueError for a variance that is not positive."""
        if not measured_variance > 0.0:
            raise ValueError(f"measurement variance {measured_variance}")
        gain = self.variance / (self.variance + measured_variance)
        self.variance *= 1.0 - gain
        return gain * measured

    def open_up(self, measured: float, measured_variance: float, gate: float = 25.0) -> bool:
        """A measured error far outside what the model allows is a jump, not noise: trust the measurement from here."""
        if measured**2 <= gate * (self.variance + measured_variance):
            return False
        self.variance = max(self.variance, measured**2)
        return True

    @property
    def sigma(self) -> float:
        return math.sqrt(self.variance)
