"""Patterning: which intensity went before the slots that Bob detected, counted by Alice for herself, in service.

The slot before an accepted detection never is one itself (hold-off), so no key rests on its symbol; still it is read
once, inside Alice, and nothing but sums leaves this module.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qmodd.keys.counts import BatchReport
from qmodd.keys.pilot import is_pilot
from qmodd.keys.sifting import DECOY_BIT, INVALID, Detect

Int64s = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]

# One batch in so many is looked at, and so many detections of it at most.
EVERY = 8
MOST = 20_000


@dataclass(frozen=True)
class PatternTally:
    """counts[k][j]: detections of intensity k after a slot of intensity j, shape (2, 2), index 0 signal, 1 decoy.

    `clicked`: slots of each intensity in which something clicked, `live`: slots in which it could, both of the batches
    that the counts are from; p: probability of each intensity.
    """

    counts: Int64s
    clicked: Int64s
    live: int
    p: tuple[float, float]

    def __add__(self, other: PatternTally) -> PatternTally:
        """Raises ValueError for tallies of different probabilities."""
        if self.p != other.p:
            raise ValueError(f"tallies at probabilities {self.p} and {other.p} do not add up")
        return PatternTally(self.counts + other.counts, self.clicked + other.clicked, self.live + other.live, self.p)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def before(self) -> tuple[float, float]:
        """Probability of each intensity in the slot before an accepted detection.

        That slot was quiet, else the hold-off had refused the detection, and a signal is quiet less often than a decoy:
        at 10 dB of fibre this is a percent, as much as patterning itself.
        """
        p = np.array(self.p)
        quiet = p - self.clicked / self.live
        signal, decoy = (quiet / quiet.sum()).tolist()
        return signal, decoy


@dataclass(frozen=True)
class Neighbours:
    """What one batch has to say, before its report: see `PatternTally`."""

    counts: Int64s
    clicked: Int64s

    def tally(self, report: BatchReport, p: tuple[float, float]) -> PatternTally:
        return PatternTally(self.counts, self.clicked, report.live_slots, p)


def slots_before(detect: Detect, every: int) -> Int64s:
    """Indices of at most MOST detections, evenly over the batch, whose slot before may be asked for.

    Not one that is a pilot (`every` as in `is_pilot`), one that Bob says he detected, or one of the batch before:
    a source answers each slot once, and key comes first.
    """
    before = detect.slots - 1
    free = (before >= detect.first_slot) & ~is_pilot(before, every)
    free[1:] &= detect.slots[:-1] != before[1:]
    found = np.flatnonzero(free)
    return found[:: max(1, -(-len(found) // MOST))]


def neighbours(detect: Detect, symbols: Bits, chosen: Int64s, before: Bits) -> Neighbours:
    """Sums over one batch. symbols: nibbles of all its detections, all valid; before: those of the slots before the
    chosen ones, left out where not valid."""
    decoy, valid = (symbols & DECOY_BIT) >> 2, (before & INVALID) == 0
    pair = 2 * decoy[chosen].astype(np.int64) + ((before & DECOY_BIT) >> 2)
    # The receiver's interferometer sends as much of its light beside the middle bin as into it.
    weight = 1 + detect.basis.astype(np.int64)
    clicked = np.array([weight[decoy == 0].sum(), weight[decoy == 1].sum()], np.int64)
    return Neighbours(np.bincount(pair[valid], minlength=4).reshape(2, 2).astype(np.int64), clicked)
