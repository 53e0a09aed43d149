"""Bias of the Mach-Zehnder modulators: volts -> phase error, with its slow creep (reference pair A7)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sim.individuals import Modulator
from sim.physics.heaters import CALIBRATION_C

Floats = npt.NDArray[np.float64]

CREEP_RAD = math.radians(2.0)
CREEP_S = 30.0
KELVIN_RAD = math.radians(-0.5)
_LOG_STEP = 1.0
_TIMES = np.exp(np.arange(math.log(4.0), math.log(2e6), _LOG_STEP))
# ln(1 + t/30 s) as a sum of exponentials (Frullani): a linear creep that superposes for any history of bias steps.
_WEIGHTS = np.exp(-CREEP_S / _TIMES) * _LOG_STEP


class BiasCreep:
    """Phases of several modulators: 2 deg * ln(1 + t/30 s) after a bias step of one v_pi, in proportion to the step."""

    def __init__(self, modulators: tuple[Modulator, ...], scale: float) -> None:
        self._v_pi = np.array([m.v_pi for m in modulators])
        self._offset = np.array([m.offset for m in modulators])
        self._scale = scale
        self._volts = np.zeros(len(modulators))
        self._creep = np.zeros((len(modulators), len(_TIMES)))

    def set_volts(self, index: int, volts: float) -> None:
        self._volts[index] = volts

    @property
    def volts(self) -> Floats:
        """As last set, V."""
        return self._volts.copy()

    def step(self, dt: float) -> None:
        """dt: s during which the voltages were as they are."""
        toward = (self._volts / self._v_pi)[:, None] * _WEIGHTS
        self._creep += (toward - self._creep) * -np.expm1(-dt / _TIMES)

    def phases(self, die_c: float, wander: Floats) -> Floats:
        """Phase from each modulator's set point, rad. wander: its random part, rad."""
        still = math.pi * (self._volts - self._offset) / self._v_pi
        creep = self._scale * CREEP_RAD * self._creep.sum(axis=1)
        out: Floats = still + creep + KELVIN_RAD * (die_c - CALIBRATION_C) + wander
        return out
