"""From the control state of both modules to what detectors see: the table of means, rates, the tables of the tagger."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.physics.clicks import CELLS, CLASSES, PULSED_CELLS
from sim.physics.optics import (
    PILOT_PLUS,
    ROWS,
    UNDRIVEN,
    AliceOptics,
    BobOptics,
    continuous_split,
    fill_table,
    from_db,
)
from sim.physics.source import TABLE_CONTINUOUS, TABLE_NULL, TABLE_PULSES, Stretch

Floats = npt.NDArray[np.float64]

# Any detector that sees more than this from one cell latches: drawing still more clicks would only cost time.
MOST_PER_CELL = 0.5
MOST_HZ_PER_CELL = 60e6
# A pilot is bright and rare: this much all but saturates a detector in its slot, and latches none.
MOST_PER_PILOT_CELL = 4.0
_OF_DETECTOR = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1]], float)


@dataclass(frozen=True)
class Light:
    """Optics of one moment.

    lam: (11, 8), means a slot. photons: (11,), a slot at Alice's output. continuous: (3,), means of unmodulated light
    a slot at each detector. darks: (3,), a second. diode: (3,), photo-detections a second of the receiver's own
    self-test light; None while there is none.
    """

    alice: AliceOptics
    bob: BobOptics
    loss_db: float
    lam: Floats
    photons: Floats
    continuous: Floats
    darks: Floats
    period_s: float
    diode: Floats | None = None

    @property
    def steady(self) -> Floats:
        """Photo-detections a second that no slot decides about, (3,): darks and self-test light."""
        return self.darks if self.diode is None else self.darks + self.diode

    def cumulative(self) -> Floats:
        """For the tagger, shape (3, 10, 11): means summed along the cells, for each table of the source."""
        means = np.zeros((3, CLASSES, CELLS))
        most = max(MOST_PER_CELL, MOST_HZ_PER_CELL * self.period_s)
        lam = np.minimum(self.lam, most)
        means[TABLE_PULSES, :UNDRIVEN, :PULSED_CELLS] = lam[:UNDRIVEN]
        pilots = np.minimum(self.lam[PILOT_PLUS:], max(most, MOST_PER_PILOT_CELL))
        means[TABLE_PULSES, UNDRIVEN:, :PULSED_CELLS] = pilots
        means[TABLE_NULL, :, :PULSED_CELLS] = lam[UNDRIVEN]
        means[TABLE_CONTINUOUS, :, PULSED_CELLS:] = np.minimum(self.continuous, most)
        means[:, :, PULSED_CELLS:] += self.darks * self.period_s
        if self.diode is not None:
            means[:, :, PULSED_CELLS:] += np.minimum(self.diode * self.period_s, most)
        return means.cumsum(axis=2)

    def rates(self, stretch: Stretch) -> Floats:
        """Photo-detections a second in a mode of the source, darks included, dead time not, shape (3,)."""
        weights = stretch.weights()
        means = _OF_DETECTOR @ (weights @ self.lam) if weights.any() else self.continuous
        out: Floats = means / self.period_s + self.steady
        return out


def light_of(
    alice: AliceOptics,
    bob: BobOptics,
    loss_db: float,
    continuous_photons: float,
    continuous_turn: float,
    darks: Floats,
    period_s: float,
    diode: Floats | None = None,
) -> Light:
    """continuous_turn: phase, rad, of the receiver's AMZI for unmodulated light."""
    lam, photons = np.empty((ROWS, PULSED_CELLS)), np.empty(ROWS)
    fill_table(alice.vector(), bob.vector(), loss_db, lam, photons)
    continuous = continuous_photons * from_db(loss_db) * continuous_split(bob, continuous_turn)
    return Light(alice, bob, loss_db, lam, photons, continuous, darks, period_s, diode)


def qber(lam: Floats, p_decoy: float = 0.5) -> tuple[float, float]:
    """(QBER Z, QBER X) of a table without darks, small means; lam: (9 or more, 8). nan where nothing arrives."""
    w = np.array([1.0 - p_decoy, p_decoy])
    z0, z1, x0, x1 = (w @ lam[2 * s : 2 * s + 2] for s in range(4))
    wrong_z, all_z = z0[1] + z1[0], z0[:2].sum() + z1[:2].sum()
    wrong_x, all_x = x0[3] + x1[6], x0[[3, 6]].sum() + x1[[3, 6]].sum()
    return (wrong_z / all_z if all_z > 0 else math.nan), (wrong_x / all_x if all_x > 0 else math.nan)
