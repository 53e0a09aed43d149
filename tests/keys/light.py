"""A small source of clicks for tests: slots and bins in, tags of three detectors without dead time out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PERIOD, BIN = 8000.0, 800.0
Int64s = npt.NDArray[np.int64]


def tags_of(
    slots: Int64s,
    detector: npt.NDArray[np.uint8],
    bins: npt.NDArray[np.int64],
    *,
    t0: int,
    y: float,
    delays: tuple[float, float, float],
    jitter_ps: float,
    rng: np.random.Generator,
) -> tuple[Int64s, npt.NDArray[np.uint8]]:
    """Tag times (sorted, int64 ps) and channels of clicks in given bins; slot 0's early bin is due at `t0`."""
    x = slots * (PERIOD * (1 + y)) + bins * (BIN * (1 + y)) + np.array(delays)[detector]
    t = t0 + np.rint(x + rng.normal(0, jitter_ps, len(x))).astype(np.int64)
    order = np.argsort(t, kind="stable")
    return t[order], detector[order]


def sync_light(
    bits: npt.NDArray[np.uint8], slots: Int64s, rng: np.random.Generator, share_x: float = 0.25
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Detector and bin of one click in each slot for Z states with the given bits."""
    to_x = rng.random(len(slots)) < share_x
    detector = np.where(to_x, rng.integers(1, 3, len(slots)), 0).astype(np.uint8)
    return detector, bits.astype(np.int64) + np.where(to_x, rng.integers(0, 2, len(slots)), 0)


def clicked_slots(first: int, end: int, probability: float, rng: np.random.Generator) -> Int64s:
    n = rng.binomial(end - first, probability)
    return np.unique(rng.integers(first, end, n)).astype(np.int64)
