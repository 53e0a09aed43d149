"""Clicks of the reference pair at 10 dB, from the emulator's sampler."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import acos, sqrt

import numpy as np
import numpy.typing as npt

from sim.physics.clicks import CELLS, CLASSES, KIND_KEY, NEVER, PILOTS, cell_offsets, detect, photodetections
from sim.physics.detectors import jitter_table
from sim.physics.optics import PILOT_PLUS, AliceOptics, BobOptics, table
from sim.physics.random64 import state_from
from sim.physics.symbols import key_symbols

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]

PERIOD_PS, BIN_PS = 8000.0, 800.0
SLOTS_PER_S = 125_000_000
DELAYS_PS = (0.0, 1350.0, -420.0)
KEY = (np.uint64(0x5EED), np.uint64(0xF00D))
T_X, T_DECOY = 16384, 32768  # P(X) 0.25, P(decoy) 0.50, in 1/65536
LOSS_DB, DARKS_HZ = 10.0, 100.0
ALICE = AliceOptics(mu_ref=0.54, theta_d=2.0 * acos(sqrt(1 / 3)), d_s=0.05, phi=0.12, d_split=0.03)
BOB = BobOptics(kappa=0.26, d_split=0.03)


def means(pilot_gain: float = 0.0) -> Floats:
    """Mean photo-detections of a slot per class and cell, summed along the cells, shape (1, 10, 11); the last two
    classes are the pilots, `pilot_gain` times as bright as a signal."""
    lam = table(replace(ALICE, pilot_gain=pilot_gain), BOB, LOSS_DB)
    out = np.zeros((1, CLASSES, CELLS))
    out[0, :PILOTS, :8], out[0, PILOTS:, :8] = lam[:PILOTS], lam[PILOT_PLUS:]
    out[0, :, 8:] = DARKS_HZ * PERIOD_PS * 1e-12
    return out.cumsum(axis=2)


@dataclass
class Sampler:
    """Buffers and state for drawing blocks of slots. pilot_every: 0 for none; pilot_gain: against a signal slot."""

    seed: int = 1
    capacity: int = 3_000_000
    pilot_every: int = 0
    pilot_gain: float = 10.0

    def __post_init__(self) -> None:
        self.cumulative = means(self.pilot_gain)
        self.offsets = cell_offsets(BIN_PS, np.array(DELAYS_PS))
        self.jitter = np.array([jitter_table(f) for f in (40.0, 45.0, 50.0)])
        self.parameters = np.outer([15e3, 4e3, 0.0, 1e5], np.ones(3))
        self.times, self.detectors = np.empty(self.capacity), np.empty(self.capacity, np.uint8)
        self.tags, self.channels = np.empty(self.capacity, np.int64), np.empty(self.capacity, np.uint8)

    def block(self, slots: int) -> tuple[Int64s, Bits]:
        """Sorted tags (ps) and channels of `slots` slots from slot 0 on, detectors rested; views into the buffers."""
        rng = state_from(np.random.Generator(np.random.Philox(self.seed)))
        segments = np.array([[0, slots, KIND_KEY, 0, 0, T_X, T_DECOY, self.pilot_every]])
        n = photodetections(
            *(0, segments, *KEY, self.cumulative, self.offsets, PERIOD_PS, rng, self.times, self.detectors),
            np.zeros((2, 2)),
        )
        return self.clicks(int(n), slots, rng)

    def clicks(self, n: int, slots: int, rng: npt.NDArray[np.uint64]) -> tuple[Int64s, Bits]:
        """Clicks of the first n photo-detections in the buffers."""
        memory = np.array([[-1e15] * 3, [NEVER] * 3])
        k = int(
            detect(
                n,
                self.times,
                self.detectors,
                slots * PERIOD_PS,
                self.parameters,
                self.jitter,
                0,
                0.0,
                1.0,
                memory,
                rng,
                self.tags,
                self.channels,
            )
        )
        return self.tags[:k], self.channels[:k]


def symbols(slots: Int64s) -> Bits:
    """What Alice sent in the slots: bit 0 basis (1 X), bit 1 value, bit 2 decoy."""
    out: Bits = key_symbols(slots, *KEY, np.uint64(T_X), np.uint64(T_DECOY))
    return out
