"""What is wrong with a module's waveguides, photodiodes and cables, as scripted (`sim.faults`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.faults import FaultSchedule
from sim.physics.optics import from_db

Floats = npt.NDArray[np.float64]

# In the order of the light. alice: laser, PA6, filter, PA0, amzi_input, AMZI with its long arm (amzi), state, PA3,
# shutter, PA4, output, PA7. bob: PB0, input, then z with PB1, or x, AMZI with its long arm (amzi), PB2 and PB3.
PATHS: dict[str, tuple[str, ...]] = {
    "alice": ("laser", "filter", "amzi_input", "amzi", "state", "shutter", "output"),
    "bob": ("input", "z", "x", "amzi"),
}
LOST_DB = 3.0
SATURATED_A = 1e-3
STUCK_A = 1e-8
LEAK_A = 2e-8
NOISE = 0.1
INSENSITIVE = 0.5


class Paths:
    """Extra losses of one module's paths."""

    def __init__(self, side: str) -> None:
        self._side = side
        self._db = dict.fromkeys(PATHS[side], 0.0)
        self._through = dict.fromkeys(PATHS[side], 1.0)

    def apply_faults(self, faults: FaultSchedule, t: float) -> None:
        for name in self._db:
            lost = faults.active("loss", f"{self._side}.path.{name}", t)
            self._db[name] = lost.number(LOST_DB) if lost else 0.0
            self._through[name] = from_db(self._db[name])

    def db(self, name: str) -> float:
        """Extra loss of a path, dB."""
        return self._db[name]

    def through(self, name: str) -> float:
        """Transmission of a path beside its usual one; 1 where nothing is wrong."""
        return self._through[name]


class Photodiodes:
    """From the light's currents and the dark ones to what comes out at each channel of the ADC, shape (8,)."""

    def __init__(self, side: str, generator: np.random.Generator) -> None:
        """generator: for noise, drawn from only while there is some."""
        self._names = [f"{side}.photodiode.{i}" for i in range(8)]
        self._random = generator
        self._whole = True
        self._given = np.full(8, np.nan)
        self._factor = np.ones(8)
        self._leak = np.zeros(8)
        self._noise = np.zeros(8)
        self._cable = np.arange(8)

    def apply_faults(self, faults: FaultSchedule, t: float) -> None:
        self._given = values(faults, "stuck", self._names, t, STUCK_A, np.nan)
        shorted = values(faults, "short", self._names, t, SATURATED_A, np.nan)
        self._given = np.where(np.isnan(shorted), self._given, shorted)
        self._given[[bool(faults.active("dead", n, t)) for n in self._names]] = 0.0
        self._factor = values(faults, "insensitive", self._names, t, INSENSITIVE, 1.0)
        self._leak = values(faults, "leaky", self._names, t, LEAK_A, 0.0)
        self._noise = values(faults, "noisy", self._names, t, NOISE, 0.0)
        self._cable = exchanged(faults, self._names, t)
        self._whole = bool(
            np.isnan(self._given).all()
            and (self._factor == 1.0).all()
            and not (self._leak.any() or self._noise.any())
            and (self._cable == np.arange(8)).all()
        )

    def seen(self, light: Floats, dark: Floats) -> Floats:
        """A at each channel for currents from light and without it, A."""
        if self._whole:
            return light + dark
        out = self._factor * light + dark + self._leak
        if self._noise.any():
            out *= np.maximum(0.0, 1.0 + self._noise * self._random.standard_normal(8))
        out = np.where(np.isnan(self._given), out, self._given)
        seen: Floats = out[self._cable]
        return seen


def exchanged(faults: FaultSchedule, names: Sequence[str], t: float) -> npt.NDArray[np.intp]:
    """Which element each channel leads to: its own, or where cables are swapped the other's."""
    cable = np.arange(len(names))
    for i, name in enumerate(names):
        fault = faults.active("swapped", name, t)
        if fault:
            other = int(fault.number(i + 1.0)) % len(names)
            cable[[i, other]] = other, i
    return cable


def values(
    faults: FaultSchedule, kind: str, names: Sequence[str], t: float, default: float, otherwise: float
) -> Floats:
    """What the script gives for each name; `otherwise` where it has nothing."""
    found = (faults.active(kind, name, t) for name in names)
    return np.array([f.number(default) if f else otherwise for f in found])
