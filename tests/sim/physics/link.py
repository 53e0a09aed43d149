"""A bench for the click kernels: block by block, and the analytic probabilities of the acceptance rule beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sim.physics.clicks import NEVER, SEGMENT_COLUMNS, cell_offsets, detect, photodetections
from sim.physics.detectors import jitter_table
from sim.physics.random64 import state_from

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
T, TAU, HALF_GATE = 8000.0, 800.0, 200.0
JITTER = np.array([jitter_table(f) for f in (40.0, 45.0, 50.0)])
KEY = (np.uint64(1234567), np.uint64(7654321))


@dataclass
class Bench:
    """cumulative: (tables, 8, 11). delay: ps of each detector."""

    cumulative: Floats
    seed: int = 1
    dead: float = 15e3
    recovery: float = 4e3
    afterpulse: float = 0.0
    afterpulse_tau: float = 1e5
    jitter: Floats = field(default_factory=lambda: JITTER)
    delay: Floats = field(default_factory=lambda: np.array([0.0, 1350.0, 1510.0]))
    scale: float = 1.0
    size: int = 2_000_000
    pattern: Floats = field(default_factory=lambda: np.zeros((2, 2)))

    def __post_init__(self) -> None:
        self.rng = state_from(np.random.Generator(np.random.Philox(self.seed)))
        self.parameters = np.outer([self.dead, self.recovery, self.afterpulse, self.afterpulse_tau], np.ones(3))
        self.memory = np.array([[-1e15] * 3, [NEVER] * 3])
        self.slot = 0
        self.photon_times, self.photon_detectors = np.empty(self.size), np.empty(self.size, np.uint8)
        self.times, self.channels = np.empty(self.size, np.int64), np.empty(self.size, np.uint8)

    def block(self, segments: Ints, slots: int, photons=photodetections, clicks=detect):  # type: ignore[no-untyped-def]
        """(times, channels, photo-detections) of the next `slots` slots; segments relative to the present slot.

        Those of seven columns are without pilot.
        """
        moved = np.pad(segments, ((0, 0), (0, SEGMENT_COLUMNS - segments.shape[1])))
        moved[:, 0] += self.slot
        offset = cell_offsets(TAU, self.delay)
        n = photons(
            *(self.slot, moved, *KEY, self.cumulative, offset, T, self.rng, self.photon_times, self.photon_detectors),
            self.pattern,
        )
        k = clicks(
            n,
            self.photon_times,
            self.photon_detectors,
            slots * T,
            self.parameters,
            self.jitter,
            int(self.slot * T),
            0.0,
            self.scale,
            self.memory,
            self.rng,
            self.times,
            self.channels,
        )
        self.slot += slots
        return self.times[:k].copy(), self.channels[:k].copy(), n


def accept(times: Ints, channels: npt.NDArray[np.uint8], delay: Floats, hold: int) -> tuple[Ints, Ints, int]:
    """The receiver's rule, in numpy: (slots, outcomes 0 Z0, 1 Z1, 2 X0, 3 X1, 4 cross; live slots)."""
    x = times - delay[channels] + 0.1 * T
    slot = np.floor(x / T).astype(np.int64)
    order = np.lexsort((times, slot))
    slot, channels, x = slot[order], channels[order].astype(int), x[order]
    r = x - slot * T - 0.1 * T
    bins = np.floor(r / TAU + 0.5).astype(int)
    good = (np.abs(r - bins * TAU) <= HALF_GATE) & np.where(channels == 0, (bins == 0) | (bins == 1), bins == 1)
    starts = np.flatnonzero(np.append(True, slot[1:] != slot[:-1]))
    unique = slot[starts]
    bad = np.add.reduceat((~good).astype(int), starts) > 0
    has = [np.add.reduceat((good & (channels == q)).astype(int), starts) > 0 for q in range(3)]
    z_bit = _first_z(channels, bins, starts, len(slot))
    gap = np.diff(unique, prepend=-(10**9))
    live_slots = int(unique[-1] - unique[0] - np.minimum(gap[1:], hold).sum())
    ok = (gap > hold) & ~bad
    outcome = np.where(has[0], z_bit, np.where(has[2], 2, 3))
    double = has[1] & has[2] & ~has[0]
    outcome = np.where(double, 2 + (unique % 2), outcome)
    outcome = np.where(has[0] & (has[1] | has[2]), 4, outcome)
    return unique[ok], outcome[ok], live_slots


def _first_z(channels: npt.NDArray[np.integer], bins: npt.NDArray[np.int64], starts: Ints, n: int) -> Ints:
    out = np.zeros(len(starts), np.int64)
    ends = np.append(starts[1:], n)
    length = ends - starts
    single = length == 1
    out[single] = bins[starts[single]]
    for i in np.flatnonzero(~single):
        piece = slice(starts[i], ends[i])
        z = bins[piece][channels[piece] == 0]
        out[i] = z[0] if len(z) else 0
    return out


def probabilities(lam: Floats, darks: Floats) -> Floats:
    """P[class, outcome] of a live slot, from the table alone (analytic; independent of the sampler)."""
    width = 2 * HALF_GATE * 1e-12
    u = np.linspace(0, 1, JITTER.shape[1])
    gate = [
        {j: float(np.diff(np.interp([j * TAU - HALF_GATE, j * TAU + HALF_GATE], q, u))[0]) for j in (-1, 0, 1)}
        for q in JITTER
    ]
    out = np.zeros((8, 5))
    outside = darks * T * 1e-12 - np.array([2, 3, 3]) * darks * width
    for c in range(8):
        early, late = lam[c, 0] + darks[0] * width, lam[c, 1] + darks[0] * width
        p_early, p_late = 1 - np.exp(-early), np.exp(-early) * (1 - np.exp(-late))
        z0 = (p_early * gate[0][0] + p_late * gate[0][-1]) * np.exp(-outside[0] / 2)
        z1 = (p_late * gate[0][0] + p_early * gate[0][1]) * np.exp(-outside[0] / 2)
        none_z = np.exp(-early - late - outside[0])
        none, mid = np.zeros(2), np.zeros(2)
        for q in (0, 1):
            a = lam[c, 2 + 3 * q : 5 + 3 * q] + darks[1 + q] * width
            p = -np.expm1(-a) * np.exp(-np.append(0.0, np.cumsum(a)[:2]))
            none[q] = np.exp(-a.sum() - outside[1 + q])
            mid[q] = (p[1] * gate[1 + q][0] + p[0] * gate[1 + q][1] + p[2] * gate[1 + q][-1]) * np.exp(
                -outside[1 + q] / 2
            )
        out[c, 0], out[c, 1] = z0 * none[0] * none[1], z1 * none[0] * none[1]
        both = mid[0] * mid[1]
        out[c, 2] = none_z * (none[0] * mid[1] + both / 2)
        out[c, 3] = none_z * (none[1] * mid[0] + both / 2)
        out[c, 4] = (z0 + z1) * ((none[0] + mid[0]) * (none[1] + mid[1]) - none[0] * none[1])
    return out
