"""What service does to a healthy individual, within the ranges of the reference pair A7.

Ageing goes with the logarithm of time, and each part ages as much as it happens to: a share, drawn for it, of the way
to the worse end of its range. What the factory's record states (responsivities, taps, pad, attenuator, the loss behind
PA3) stays, as its uncertainty says; the heaters' resistance follows its own law (`sim.physics.heaters`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sim.individuals import AliceIndividual, BobIndividual, Diode, Monitors, stream
from sim.physics.heaters import AGEING_S

Floats = npt.NDArray[np.float64]

FULL_AGE_H = 200_000.0
MOST = 0.5  # of the way to the worse end, at full age
MOST_SINK = 0.15  # growth of the sink's thermal resistance: dust, and a slower fan
_WORST_DARK_A = 4e-10
_WORST_DARKS_HZ = 100.0 * math.exp(1.5)


def aged_share(hours: float) -> float:
    """0 new, 1 at full age: logarithmic, as the heaters' drift is."""
    return math.log1p(hours * 3600.0 / AGEING_S) / math.log1p(FULL_AGE_H * 3600.0 / AGEING_S)


def aged_alice(individual: AliceIndividual, hours: float, seed: int) -> AliceIndividual:
    """After `hours` in service; the same individual at 0."""
    if hours == 0.0:
        return individual
    w = _Wear(seed, "alice", hours)
    return replace(
        individual,
        monitors=_monitors(individual.monitors, w),
        long_db=w.toward(individual.long_db, 1.6),
        before_amzi_db=w.toward(individual.before_amzi_db, 7.3 + 3 * 0.3),
        state_db=w.toward(individual.state_db, 3.2 + 3 * 0.2),
        decoy_db=w.toward(individual.decoy_db, 3.0 + 3 * 0.2),
        laser_offset_db=w.toward(individual.laser_offset_db, -0.1),
    )


def aged_bob(individual: BobIndividual, hours: float, seed: int) -> BobIndividual:
    """After `hours` in service; the same individual at 0."""
    if hours == 0.0:
        return individual
    w = _Wear(seed, "bob", hours)
    return replace(
        individual,
        monitors=_monitors(individual.monitors, w),
        common_db=w.toward(individual.common_db, 3.2),
        z_db=w.toward(individual.z_db, 0.5),
        x_db=w.toward(individual.x_db, 0.9),
        long_db=w.toward(individual.long_db, 1.6),
        efficiency=w.all_toward(individual.efficiency, 0.75),
        darks=w.all_toward(individual.darks, _WORST_DARKS_HZ),
        diode=_diode(individual.diode, w),
    )


def aged_sink(hours: float, seed: int, side: str) -> float:
    """Factor on the thermal resistance of a module's sink; 1 at 0 hours."""
    return 1.0 + MOST_SINK * aged_share(hours) * float(stream(seed, f"{side} fan ageing").uniform())


class _Wear:
    """Draws of one module, in the order in which they are asked for."""

    def __init__(self, seed: int, side: str, hours: float) -> None:
        self._g = stream(seed, f"{side} ageing")
        self._most = MOST * aged_share(hours)

    def toward(self, value: float, worst: float) -> float:
        return float(value + (worst - value) * self._most * self._g.uniform())

    def all_toward(self, values: Floats, worst: float) -> Floats:
        out: Floats = values + (worst - values) * self._most * self._g.uniform(size=values.shape)
        return out


def _monitors(m: Monitors, w: _Wear) -> Monitors:
    dark = w.all_toward(m.dark, _WORST_DARK_A)
    return replace(m, dark=np.where(m.dark > 0.0, dark, 0.0))


def _diode(d: Diode, w: _Wear) -> Diode:
    return replace(
        d,
        threshold_v=w.toward(d.threshold_v, 1.0 + 3 * 0.05),
        slope_w_per_v=w.toward(d.slope_w_per_v, (0.25 - 3 * 0.02) * 1e-3),
    )
