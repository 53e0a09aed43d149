"""The acceptance rule as compiled loops: clicks of three detectors in, accepted slots and counters out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qmodd.keys.jit import kernel

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint8]

# Columns of the counter array; four satellite counters from SATELLITE on, the late bin follows the early one.
LIVE, VETO, OUT_OF_GATE, CROSS, DOUBLE, EARLY, LATE, SATELLITE, COUNTERS = 0, 1, 2, 3, 4, 5, 6, 7, 11
# What is still to be drawn for an accepted slot: nothing, its bit, or basis and bit.
PLAIN, TOSS_BIT, TOSS_BOTH = 0, 1, 2
# Residuals up to 300 ps still belong to the bin; clipping at 150 ps keeps darks and tails from pulling the clock.
RESIDUAL_WINDOW_PS, RESIDUAL_CLIP_PS = 300.0, 150.0


@kernel
def place_clicks(
    t: Int64s,
    channel: Bits,
    reference: int,
    frac: float,
    delays: Floats,
    period: float,
    lead: float,
    slots: Int64s,
    residue: Floats,
    order: Int64s,
) -> None:
    """Slot (from the reference slot on) and time within the slot of every click, sorted, with the click's index.

    Insertion sort: detector delays undo the order of arrival only a little, so clicks move past few others.
    """
    for i in range(len(t)):
        x = (t[i] - reference) - frac - delays[channel[i]]
        s = int(np.floor((x + lead) / period))
        r = x - s * period
        if s == -1:  # a clock that moved by some ps between batches; such a click is in no gate and stays so
            s = 0
            r -= period
        k = i
        while k > 0 and (slots[k - 1] > s or (slots[k - 1] == s and residue[k - 1] > r)):
            slots[k] = slots[k - 1]
            residue[k] = residue[k - 1]
            order[k] = order[k - 1]
            k -= 1
        slots[k] = s
        residue[k] = r
        order[k] = i


@kernel
def count_live(a: int, b: int, ranges: Int64s, at: int) -> tuple[int, int]:
    """Slots of [a, b) outside the disjoint sorted ranges from index `at` on; returns (count, next index)."""
    live = b - a
    while at < len(ranges) and ranges[at, 1] <= a:
        at += 1
    k = at
    while k < len(ranges) and ranges[k, 0] < b:
        live -= min(b, ranges[k, 1]) - max(a, ranges[k, 0])
        k += 1
    return live, at


@kernel
def read_slot(
    i: int,
    slots: Int64s,
    residue: Floats,
    detector: Bits,
    bin_ps: float,
    half_gate: float,
    counters: Int64s,
    clicks: Int64s,
    in_gate: Int64s,
    res_sum: Floats,
    res_count: Int64s,
) -> tuple[int, int, int, bool]:
    """Clicks of the slot that begins at index i: (next slot's index, Z bin or -1, 1 DX0 + 2 DX1, any click bad)."""
    s = slots[i]
    zbit = -1
    middle = 0
    bad = False
    while i < len(slots) and slots[i] == s:
        d = int(detector[i])
        b = int(np.floor(residue[i] / bin_ps + 0.5))
        e = residue[i] - b * bin_ps
        in_bin = 0 <= b <= (1 if d == 0 else 2)
        inside = in_bin and abs(e) <= half_gate
        clicks[d] += 1
        if inside:
            in_gate[d] += 1
        if in_bin and abs(e) <= RESIDUAL_WINDOW_PS:
            res_sum[d] += min(max(e, -RESIDUAL_CLIP_PS), RESIDUAL_CLIP_PS)
            res_count[d] += 1
        if not inside:
            bad = True
        elif d == 0:
            if zbit < 0:
                zbit = b
        elif b == 1:
            middle |= d
        else:
            bad = True
            counters[SATELLITE + 2 * (d - 1) + b // 2] += 1
        i += 1
    return i, zbit, middle, bad


@kernel
def accept_slots(
    slots: Int64s,
    residue: Floats,
    detector: Bits,
    end: int,
    mark: int,
    holdoff: int,
    ranges: Int64s,
    bin_ps: float,
    half_gate: float,
    out_slot: Int64s,
    out_basis: Bits,
    out_bit: Bits,
    out_toss: Bits,
    counters: Int64s,
    clicks: Int64s,
    in_gate: Int64s,
    res_sum: Floats,
    res_count: Int64s,
) -> tuple[int, int]:
    """The rule for the sorted slots in [0, end). Slots before `mark` are dead; returns (accepted, new mark).

    Clicks in the ranges that are left out hold off what follows them and count for nothing else.
    """
    i = 0
    k = 0
    at = 0
    drop = 0
    counted = max(0, mark)  # live slots before this one are counted already
    # Clicks of slots that are left out go to counters of their own, which nobody reads.
    unread = np.zeros(COUNTERS, np.int64)
    unread_sum = np.zeros(3)
    while i < len(slots):
        s = int(slots[i])
        while drop < len(ranges) and ranges[drop, 1] <= s:
            drop += 1
        dropped = drop < len(ranges) and ranges[drop, 0] <= s
        if dropped:
            i, zbit, middle, bad = read_slot(
                i, slots, residue, detector, bin_ps, half_gate, unread, unread, unread, unread_sum, unread
            )
        else:
            i, zbit, middle, bad = read_slot(
                i, slots, residue, detector, bin_ps, half_gate, counters, clicks, in_gate, res_sum, res_count
            )
        live = s >= mark
        if s + 1 > counted:
            new, at = count_live(counted, s + 1, ranges, at)
            counters[LIVE] += new
        mark = max(mark, s + 1 + holdoff)
        counted = max(counted, mark)
        if dropped:
            continue
        if not live:
            counters[VETO] += 1
            continue
        if bad:
            counters[OUT_OF_GATE] += 1
            continue
        out_slot[k] = s
        out_toss[k] = PLAIN
        if zbit >= 0 and middle != 0:
            counters[CROSS] += 1
            out_toss[k] = TOSS_BOTH
        elif zbit >= 0:
            out_basis[k] = 0
            out_bit[k] = zbit
            counters[EARLY + zbit] += 1
        else:
            out_basis[k] = 1
            out_bit[k] = 1 if middle == 1 else 0  # DX0 is bit 1, DX1 bit 0
            if middle == 3:
                counters[DOUBLE] += 1
                out_toss[k] = TOSS_BIT
        k += 1
    if end > counted:
        new, at = count_live(counted, end, ranges, at)
        counters[LIVE] += new
    return k, mark
