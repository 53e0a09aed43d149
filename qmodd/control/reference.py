"""A drifting error that is seen only against an unknown constant: the Kalman filter of both.

The receiver's counts of two states differ by the efficiencies of its detectors as well as by the transmitter's error.
Right after a calibration the error is known to be small, and what the counts say then is the constant; later it is the
error. How far each may be believed follows from the counts, the drift and the time: no reference has to be taken.
"""

from __future__ import annotations

import math

import numpy as np


class DriftFilter:
    """State: error (rad) and reference (the constant, in the unit of the reading = reference + error).

    drift_rad_per_root_s: random walk of the error; start_rad: its standard deviation at the start; reference: that of
    the constant before anything is read.
    """

    def __init__(self, drift_rad_per_root_s: float, start_rad: float, reference: float = 0.3) -> None:
        self._q = drift_rad_per_root_s**2
        self._x = np.zeros(2)
        self._p = np.diag([start_rad**2, reference**2])

    @property
    def error_rad(self) -> float:
        return float(self._x[0])

    @property
    def sigma_rad(self) -> float:
        return math.sqrt(float(self._p[0, 0]))

    def read(self, value: float, variance: float, seconds: float) -> None:
        """A reading over the last `seconds`. Raises ValueError for a variance that is not positive."""
        if not variance > 0.0 or seconds < 0.0 or not math.isfinite(value):
            raise ValueError(f"reading {value}, variance {variance}, {seconds} s")
        self._p[0, 0] += self._q * seconds
        # Both parts of the state add up to the reading.
        column = self._p.sum(axis=1)
        gain = column / (float(column.sum()) + variance)
        self._x += gain * (value - float(self._x.sum()))
        self._p -= np.outer(gain, column)

    def moved(self, by_rad: float) -> None:
        """The error was changed on purpose."""
        self._x[0] += by_rad


def log_ratio(a: int, b: int) -> tuple[float, float]:
    """(ln(a/b), its variance) of two counts. Raises ValueError when one is zero."""
    if a <= 0 or b <= 0:
        raise ValueError(f"counts {a} and {b} have no ratio")
    return math.log(a / b), 1.0 / a + 1.0 / b
