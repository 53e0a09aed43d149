"""The Mach-Zehnder modulators: volts -> phase error, with slow creep of the bias (reference pair A7), and defects."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sim.faults import FaultSchedule
from sim.individuals import Modulator
from sim.physics.defects import exchanged, values
from sim.physics.heaters import CALIBRATION_C

Floats = npt.NDArray[np.float64]

CREEP_RAD = math.radians(2.0)
CREEP_S = 30.0
KELVIN_RAD = math.radians(-0.5)
WEAK, LOST_ER_DB = 1.5, 10.0
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

    def set_v_pi(self, v_pi: Floats) -> None:
        """V for pi of each bias electrode."""
        self._v_pi = v_pi.copy()

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


class Modulators:
    """Carver, state and decoy modulator (0, 1, 2) with their bias lines and RF drives, and what is wrong with them."""

    def __init__(self, modulators: tuple[Modulator, ...], scale: float) -> None:
        """scale: of the creep."""
        self._sound = modulators
        self._now = modulators
        self._creep = BiasCreep(modulators, scale)
        self._wanted = np.zeros(len(modulators))
        self._stuck = np.full(len(modulators), np.nan)
        self._cable = np.arange(len(modulators))
        self._rf_open = np.zeros(len(modulators), np.bool_)

    def __getitem__(self, index: int) -> Modulator:
        """As it is now."""
        return self._now[index]

    def set_volts(self, index: int, volts: float) -> None:
        """Output `index` of the bias supply, V."""
        self._wanted[index] = volts
        self._drive()

    def apply_faults(self, faults: FaultSchedule, t: float) -> None:
        count = len(self._sound)
        lines = [f"alice.bias.{i}" for i in range(count)]
        stuck = [faults.active("stuck", line, t) for line in lines]
        held = zip(stuck, self._creep.volts.tolist(), strict=True)
        self._stuck = np.array([f.number(v) if f else np.nan for f, v in held])
        self._cable = exchanged(faults, lines, t)
        self._rf_open = np.array([bool(faults.active("open", f"alice.rf.{i}", t)) for i in range(count)])
        names = [f"alice.modulator.{i}" for i in range(count)]
        weak = values(faults, "weak", names, t, WEAK, 1.0)
        ratio = values(faults, "extinction", names, t, LOST_ER_DB, np.nan)
        self._now = tuple(_worse(*w) for w in zip(self._sound, weak.tolist(), ratio.tolist(), strict=True))
        self._creep.set_v_pi(np.array([m.v_pi for m in self._now]))
        self._drive()

    def step(self, dt: float) -> None:
        self._creep.step(dt)

    @property
    def volts(self) -> Floats:
        """At the bias electrodes, V."""
        return self._creep.volts

    def phases(self, die_c: float, wander: Floats) -> Floats:
        """As `BiasCreep.phases`."""
        return self._creep.phases(die_c, wander)

    def drive(self, index: int, volts: float) -> float:
        """Phase, rad, of an RF drive of so many volts."""
        return 0.0 if self._rf_open[index] else math.pi * volts / self._now[index].v_rf

    def _drive(self) -> None:
        reached = np.where(np.isnan(self._stuck), self._wanted[self._cable], self._stuck)
        for i, volts in enumerate(reached.tolist()):
            self._creep.set_volts(i, volts)


def _worse(m: Modulator, weak: float, ratio_db: float) -> Modulator:
    if weak == 1.0 and math.isnan(ratio_db):
        return m
    xi = m.xi if math.isnan(ratio_db) else math.copysign(10.0 ** (-ratio_db / 20.0), m.xi)
    return replace(m, v_pi=m.v_pi * weak, v_rf=m.v_rf * weak, xi=xi)
