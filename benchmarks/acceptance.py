"""The acceptance rule: clicks of 0.5 s at 10 dB into accepted detections."""

from __future__ import annotations

import numpy as np

from benchmarks.light import BIN_PS, DELAYS_PS, PERIOD_PS, SLOTS_PER_S, Bits, Int64s, Sampler
from benchmarks.measure import Result, best_of, must_agree, same_arrays
from qmodd.keys.frames import FrameBatch, FrameBuilder, FrameClock, Gates

SLOTS = SLOTS_PER_S // 2
HOLDOFF = 6
HALF_GATE_PS = 200.0


def accept(tags: Int64s, channels: Bits, slots: int) -> FrameBatch:
    """The daemon's way. Zeros for random bits, so that the reference can say the same."""
    builder = FrameBuilder(Gates(BIN_PS, HALF_GATE_PS, BIN_PS), HOLDOFF, DELAYS_PS, 0)
    return builder.push(tags, channels, round(slots * PERIOD_PS), FrameClock(0, 0, 0.0, PERIOD_PS), bytes)


def numpy_accept(tags: Int64s, channels: Bits) -> tuple[Int64s, Bits, Bits]:
    """The rule of reference pair A1, vectorised: slots, bases, bits; random bits are 0."""
    x = tags - np.array(DELAYS_PS)[channels] + BIN_PS
    slot = np.floor(x / PERIOD_PS).astype(np.int64)
    residue = x - slot * PERIOD_PS - BIN_PS
    order = np.lexsort((residue, slot))
    slot, residue, detector = slot[order], residue[order], channels[order]
    bins = np.floor(residue / BIN_PS + 0.5).astype(np.int64)
    good = (np.abs(residue - bins * BIN_PS) <= HALF_GATE_PS) & np.where(
        detector == 0, (bins == 0) | (bins == 1), bins == 1
    )
    starts = np.flatnonzero(np.append(True, slot[1:] != slot[:-1]))
    first = slot[starts]
    clean = np.logical_and.reduceat(good, starts)
    in_z, in_0, in_1 = (np.logical_or.reduceat(good & (detector == d), starts) for d in range(3))
    is_z = np.flatnonzero(good & (detector == 0))
    z_bit = np.zeros(len(starts), np.uint8)
    owner = np.searchsorted(starts, is_z, side="right") - 1
    z_bit[owner[::-1]] = bins[is_z[::-1]]  # the first DZ click of a slot is written last
    live = np.diff(first, prepend=np.int64(-1)) > HOLDOFF
    basis = (~in_z).astype(np.uint8)
    bit = np.where(in_z, z_bit, in_0 & ~in_1).astype(np.uint8)
    cross = in_z & (in_0 | in_1)
    basis[cross], bit[cross] = 0, 0
    kept = live & clean
    return first[kept], basis[kept], bit[kept]


def run(slots: int = SLOTS, times: int = 5) -> list[Result]:
    """Clicks a second through `FrameBuilder`, and through the same rule in numpy."""
    tags, channels = Sampler().block(slots)
    batch = accept(tags, channels, slots)
    theirs = numpy_accept(tags, channels)
    n = min(len(batch.slots), len(theirs[0]))  # the last, incomplete slot is decided by one side only
    ours = [a[:n] for a in (batch.slots, batch.basis, batch.bit)]
    same = abs(len(batch.slots) - len(theirs[0])) <= 1
    must_agree("acceptance", same and same_arrays(ours, [b[:n] for b in theirs]))
    compiled = best_of(lambda: accept(tags, channels, slots), times)
    plain = best_of(lambda: numpy_accept(tags, channels), times)
    detail = {
        "accepted_share": len(batch.slots) / len(tags),
        "cross_share": batch.counters.cross / max(1, len(batch.slots)),
        "core_share_at_125_mhz": compiled / (slots / SLOTS_PER_S),
    }
    return [
        Result("acceptance", len(tags) / compiled / 1e6, "Mclick/s", len(tags) / plain / 1e6, "numpy", detail=detail)
    ]
