"""All slow random drifts of a world in one vector, stepped together: Ornstein-Uhlenbeck processes and random walks."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Drifts:
    """Named drifts. Register before the first step; each name is a scalar or a row of `count` values. A module that is
    put in later has those of the one before it."""

    def __init__(self, generator: np.random.Generator, dt: float) -> None:
        self._generator = generator
        self._dt = dt
        self._keep: list[float] = []
        self._kick: list[float] = []
        self._slices: dict[str, slice] = {}
        self._x = np.zeros(0)
        self.running = False
        self._decay = np.zeros(0)
        self._sigma = np.zeros(0)

    @property
    def dt(self) -> float:
        """Length of a step, s."""
        return self._dt

    def ou(self, name: str, sigma: float, tau_s: float, count: int = 1) -> None:
        """Stationary with standard deviation sigma and correlation time tau_s; starts at 0, as last calibrated."""
        keep = math.exp(-self._dt / tau_s)
        self._register(name, keep, sigma * math.sqrt(1.0 - keep * keep), count)

    def walk(self, name: str, per_root_s: float, count: int = 1) -> None:
        """Random walk from 0."""
        self._register(name, 1.0, per_root_s * math.sqrt(self._dt), count)

    def _register(self, name: str, keep: float, kick: float, count: int) -> None:
        if name in self._slices and self.running:
            return  # another module in the place of one: what moves there goes on
        if self.running:
            raise ValueError(f"drift {name!r} is registered after the first step")
        if name in self._slices:
            raise ValueError(f"drift {name!r} is registered already")
        self._slices[name] = slice(len(self._keep), len(self._keep) + count)
        self._keep += [keep] * count
        self._kick += [kick] * count
        self._decay, self._sigma = np.array(self._keep), np.array(self._kick)
        self._x = np.zeros(len(self._keep))

    def rescale(self, name: str, per_root_s: float) -> None:
        """Another pace for a walk, from now on."""
        self._sigma[self._slices[name]] = per_root_s * math.sqrt(self._dt)

    def step(self) -> None:
        """One step of dt."""
        self.running = True
        self._x *= self._decay
        self._x += self._sigma * self._generator.standard_normal(len(self._x))

    def __getitem__(self, name: str) -> float:
        """The value of a scalar drift."""
        return float(self._x[self._slices[name].start])

    def row(self, name: str) -> Floats:
        """A view of a row; valid until the next step."""
        return self._x[self._slices[name]]
