"""Where a drifting phase is and how fast it goes: Kalman filters for level, slope and a reference's own offset.

How much the phase wanders is not known beforehand: a bank of filters, one for each pair of a walk of the level and a
walk of the slope, follows the same measurements, and each counts by how well it has foretold them lately (reference
control B6, D). With the drifts of a laboratory the calm filters win, with those of a swaying fibre the nervous ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Walks of the level (rad^2/s) and of the slope (rad^2/s^3) that are reckoned with.
LEVEL_WALKS = (1e-6, 1e-5, 1e-4, 1e-3)
SLOPE_WALKS = (1e-12, 1e-8, 1e-6)
# A model that has been wrong comes back soon: its log weight never falls further behind.
FAR_BEHIND = 8.0
LEAST_REMEMBERED = 200


@dataclass
class Cusum:
    """Two-sided cumulative sum of normalised innovations: a shift too small for a gate shows in their sum (reference
    control D). With half a standard deviation let pass and a limit of 10, white noise alarms once in 70 000."""

    limit: float = 10.0
    let_pass: float = 0.5
    _up: float = 0.0
    _down: float = 0.0
    _count: int = 0

    def see(self, z: float) -> float | None:
        """One more; the size of the shift in standard deviations of one when it alarms, and it begins anew."""
        self._up = max(0.0, self._up + z - self.let_pass)
        self._down = max(0.0, self._down - z - self.let_pass)
        high = max(self._up, self._down)
        self._count = self._count + 1 if high > 0.0 else 0
        if high <= self.limit:
            return None
        shift = high / self._count + self.let_pass
        self.reset()
        return shift

    def reset(self) -> None:
        self._up = self._down = 0.0
        self._count = 0


@dataclass(frozen=True)
class Drift:
    """What is known of the phase at a moment: level (rad), slope (rad/s), standard uncertainty of the level (rad)."""

    level: float
    slope: float
    sigma: float


class DriftFilter:
    """`offset`: how far a reference (pilot) reads above the level, with its prior uncertainty, rad; `offset_walk` is
    its own wander, rad^2/s. `memory_s`: how long a model's successes count. Time is monotonic seconds."""

    def __init__(
        self,
        offset: float = 0.0,
        offset_sigma: float = 0.0,
        *,
        offset_walk: float = 1e-9,
        slope_sigma: float = 3e-3,
        memory_s: float = 300.0,
    ) -> None:
        grid = [(q, s) for q in LEVEL_WALKS for s in SLOPE_WALKS]
        self._q, self._q_slope = np.array([g[0] for g in grid]), np.array([g[1] for g in grid])
        self._offset_walk, self._memory_s, self._slope_sigma = offset_walk, memory_s, slope_sigma
        self._logs = np.zeros(len(grid))
        self._x = np.zeros((len(grid), 3))
        self._x[:, 2] = offset
        self._p = np.zeros((len(grid), 3, 3))
        self._p[:] = np.diag([math.pi**2, slope_sigma**2, offset_sigma**2])
        self._t: float | None = None

    @property
    def known(self) -> bool:
        """A level has been measured."""
        return self._t is not None

    @property
    def offset(self) -> float:
        """What the reference reads above the level, rad."""
        return float(self._weights() @ self._x[:, 2])

    @property
    def offset_sigma(self) -> float:
        return float(math.sqrt(self._weights() @ self._p[:, 2, 2]))

    def start(self, level: float, variance: float, t: float) -> None:
        """A level from elsewhere, such as after a jump; what is known of drift and offset stays."""
        if self._t is not None and t > self._t:
            self._x, self._p = self._at(t)
        self._x[:, 0] = level
        self._p[:, 0, :] = self._p[:, :, 0] = 0.0
        self._p[:, 0, 0] = variance
        self._t = t

    def open_up(self, variance: float) -> None:
        """The level has moved in a way that no model foretold: that much less is known of it, rad^2."""
        self._p[:, 0, 0] += variance

    def forget_offset(self, sigma: float) -> None:
        """The reference is not where it was: learn its offset anew, from an uncertainty of sigma, rad."""
        self._p[:, 2, :] = self._p[:, :, 2] = 0.0
        self._p[:, 2, 2] = sigma**2

    def at(self, t: float, reference: bool = False) -> Drift:
        """Expected at time t, nothing changed; `reference`: as the reference reads it.

        Raises ValueError before anything is known.
        """
        if self._t is None:
            raise ValueError("nothing has been measured yet")
        x, p = self._at(max(t, self._t))
        w = self._weights()
        level = x[:, 0] + (x[:, 2] if reference else 0.0)
        variance = p[:, 0, 0] + ((2.0 * p[:, 0, 2] + p[:, 2, 2]) if reference else 0.0)
        mean = float(w @ level)
        return Drift(mean, float(w @ x[:, 1]), math.sqrt(max(0.0, float(w @ (variance + (level - mean) ** 2)))))

    def update(self, measured: float, variance: float, t: float, reference: bool = False) -> None:
        """A level measured at time t, or the reference's reading. One from before the last is taken as of the last.

        Raises ValueError for a variance that is not positive, or before `start`.
        """
        if not variance > 0.0:
            raise ValueError(f"measurement variance {variance}")
        if self._t is None:
            raise ValueError("nothing has been measured yet")
        dt = max(0.0, t - self._t)
        self._x, self._p = self._at(self._t + dt)
        self._t += dt
        seen = self._p[:, :, 0] + (self._p[:, :, 2] if reference else 0.0)
        s = seen[:, 0] + (seen[:, 2] if reference else 0.0) + variance
        off = measured - self._x[:, 0] - (self._x[:, 2] if reference else 0.0)
        gain = seen / s[:, None]
        self._x += gain * off[:, None]
        self._p -= gain[:, :, None] * seen[:, None, :]
        # A memory of at least this many measurements: fewer do not tell one model from another.
        forget = math.exp(-min(dt / self._memory_s, 1.0 / LEAST_REMEMBERED))
        self._logs = forget * self._logs - 0.5 * (np.log(s) + off * off / s)
        self._logs = np.maximum(self._logs - self._logs.max(), -FAR_BEHIND)

    def _at(self, t: float) -> tuple[Array, Array]:
        assert self._t is not None
        dt = t - self._t
        x, p = self._x.copy(), self._p.copy()
        if dt <= 0.0:
            return x, p
        x[:, 0] += dt * x[:, 1]
        p[:, 0, :] += dt * p[:, 1, :]
        p[:, :, 0] += dt * p[:, :, 1]
        p[:, 0, 0] += self._q * dt + self._q_slope * dt**3 / 3.0
        p[:, 0, 1] += self._q_slope * dt * dt / 2.0
        p[:, 1, 0] = p[:, 0, 1]
        p[:, 1, 1] += self._q_slope * dt
        p[:, 2, 2] += self._offset_walk * dt
        return x, p

    def _weights(self) -> Array:
        w: Array = np.exp(self._logs)
        w /= w.sum()
        return w
