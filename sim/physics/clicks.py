"""Clicks by thinning: exact for phase-randomised coherent states, a cost per click, not per pulse (reference pair C).

Photo-detections of such a state at several outputs are independent Poisson variables, so along the slots they form a
Poisson process whose rate depends on the slot's class. Candidates are drawn at the largest rate of any class, the class
of a candidate's slot is computed from the slot's index, and one uniform number keeps it and chooses its cell.
Detectors then act on the sorted photo-detections: dead time, recovery, afterpulses, jitter, and the receiver's clock.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sim.jit import njit
from sim.physics.random64 import State, U, uniform
from sim.physics.symbols import class_of, key_symbol, sync_symbol

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

PULSED_CELLS = 8
CELLS = 11  # DZ bins 0, 1; DX0 bins 0, 1, 2; DX1 bins 0, 1, 2; then light and darks spread over the slot: DZ, DX0, DX1
DETECTOR_OF_CELL = np.array([0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2], np.int64)
BIN_OF_CELL = np.array([0, 1, 0, 1, 2, 0, 1, 2], np.int64)
LEAD = 0.1  # a slot's window begins this share of the period before its early pulse
KIND_KEY, KIND_SYNC, KIND_FIXED = 0, 1, 2
# Classes of a table: eight of symbols, then the two pilots.
CLASSES, PILOTS = 10, 8
# Columns of a segment: slots of one mode. first slot, count, kind, table, class (KIND_FIXED), X and decoy in 1/65536,
# and the pilot: every slot whose index is a multiple of it (0: none).
SEGMENT_COLUMNS = 8
NEVER = 1e30


@njit(inline="always")
def _segment_class(kind: int, fixed: int, slot: int, k0: np.uint64, k1: np.uint64, t_x: int, t_decoy: int) -> int:
    if kind == KIND_KEY:
        return int(class_of(key_symbol(slot, k0, k1, U(t_x), U(t_decoy))))
    if kind == KIND_SYNC:
        return int(class_of(sync_symbol(slot)))
    return fixed


@njit(nogil=True, cache=True)
def _patterning(
    c: int, slot: int, every: int, k0: np.uint64, k1: np.uint64, t_x: int, t_decoy: int, pattern: Floats
) -> float:
    """Mean of a KEY slot of class c over that of its class: by the intensity of the slot before.

    A pilot before counts as a signal, and so does the time before slot 0.
    """
    before = 0
    if slot > 0 and (every == 0 or (slot - 1) % every != 0):
        before = int(class_of(key_symbol(slot - 1, k0, k1, U(t_x), U(t_decoy)))) % 2
    return 1.0 + float(pattern[c % 2, before])


@njit(nogil=True, cache=True)
def photodetections(
    slot0: int,
    segments: Ints,
    k0: np.uint64,
    k1: np.uint64,
    cumulative: Floats,
    offset: Floats,
    period: float,
    rng: State,
    times: Floats,
    detectors: Bytes,
    pattern: Floats,
) -> int:
    """Photo-detections of all segments, sorted, into times (ps from slot0) and detectors; their number, -1 if too many.

    cumulative: shape (tables, 8 or 10, 11), means per slot and cell, summed along the cells. offset: ps in the slot,
    (8,). Pilot slots, much brighter than others, are a second stream of candidates: others cost what they did.
    pattern: shape (2, 2), by how much the pulses of a KEY slot of intensity k differ after one of intensity j, relative
    (reference pair A7); all 0 draws what would be drawn without. SYNC, FIX and pilots are taken at their class's mean.
    """
    n = 0
    largest = 0.0
    for a in range(2):
        for b in range(2):
            largest = max(largest, abs(pattern[a, b]))
    for g in range(segments.shape[0]):
        first, count, kind, table = segments[g, 0], segments[g, 1], segments[g, 2], segments[g, 3]
        fixed, t_x, t_decoy, every = segments[g, 4], segments[g, 5], segments[g, 6], segments[g, 7]
        top = 0.0
        for c in range(8):
            if kind != KIND_FIXED or c == fixed:
                top = max(top, cumulative[table, c, CELLS - 1])
        patterned = kind == KIND_KEY and largest > 0.0
        if patterned:
            top *= 1.0 + largest
        bright, pilot0, pilots = 0.0, 0, 0
        if every > 0:
            bright = max(cumulative[table, PILOTS, CELLS - 1], cumulative[table, PILOTS + 1, CELLS - 1])
            pilot0 = first + (-first) % every
            pilots = (first + count - pilot0 + every - 1) // every
        x, y = (0.0 if top > 0.0 else NEVER), (0.0 if bright > 0.0 else NEVER)
        draw_x, draw_y = top > 0.0, bright > 0.0
        while True:
            if draw_x:
                x -= math.log(uniform(rng)) / top
            if draw_y:
                y -= math.log(uniform(rng)) / bright
            if x >= count and y >= pilots:
                break
            slot = int(first + int(x)) if x < count else -1
            at = int(pilot0 + int(y) * every) if y < pilots else -1
            draw_y = bool(slot < 0 or 0 <= at <= slot)
            draw_x = not draw_y
            if draw_y:
                slot = at
                c = PILOTS + int((slot // every) % 2)
                r = uniform(rng) * bright
            else:
                c = _segment_class(kind, fixed, slot, k0, k1, t_x, t_decoy)
                r = uniform(rng) * top
                if every > 0 and slot % every == 0:
                    continue
                if patterned:
                    factor = _patterning(c, slot, every, k0, k1, t_x, t_decoy, pattern)
                    pulses = cumulative[table, c, PULSED_CELLS - 1]
                    # Back to where the table's cells lie; darks, behind the pulses, are not changed.
                    r = r / factor if r < pulses * factor else r + pulses * (1.0 - factor)
            if r >= cumulative[table, c, CELLS - 1]:
                continue
            cell = 0
            while r >= cumulative[table, c, cell]:
                cell += 1
            if n >= len(times):
                return -1
            t = (slot - slot0) * period
            t += offset[cell] if cell < PULSED_CELLS else (uniform(rng) - LEAD) * period
            m = n
            while m > 0 and times[m - 1] > t:
                times[m] = times[m - 1]
                detectors[m] = detectors[m - 1]
                m -= 1
            times[m] = t
            detectors[m] = DETECTOR_OF_CELL[cell]
            n += 1
    return n


@njit(nogil=True, cache=True)
def detect(
    n: int,
    times: Floats,
    detectors: Bytes,
    span: float,
    parameters: Floats,
    jitter: Floats,
    base: int,
    fraction: float,
    scale: float,
    memory: Floats,
    rng: State,
    out_times: Ints,
    out_channels: Bytes,
) -> int:
    """Clicks from n sorted photo-detections of a block `span` ps long; their number, or -1 if too many.

    parameters: shape (4, 3): dead time ps, recovery ps, afterpulse probability, afterpulse decay ps.
    jitter: shape (3, points + 1), inverse distribution, ps. memory: shape (2, 3), last click and pending afterpulse of
    each detector in ps from the block's start; moved on to its end. Tag = base + fraction + scale*t + jitter, sorted.
    """
    points = jitter.shape[1] - 1
    k = 0
    i = 0
    while True:
        a = 0
        for q in range(1, 3):
            if memory[1, q] < memory[1, a]:
                a = q
        t = times[i] if i < n else NEVER
        if memory[1, a] < min(t, span):
            t = memory[1, a]
            d = a
            memory[1, a] = NEVER
        elif i < n:
            d = int(detectors[i])
            i += 1
        else:
            break
        z = (t - memory[0, d] - parameters[0, d]) / parameters[1, d]
        if z < 0.0 or (z < 12.0 and uniform(rng) < math.exp(-z)):
            continue
        memory[0, d] = t
        if parameters[2, d] > 0.0 and uniform(rng) < parameters[2, d]:
            after = t + parameters[0, d] - parameters[3, d] * math.log(uniform(rng))
            memory[1, d] = min(memory[1, d], after)
        u = uniform(rng) * points
        j = min(int(u), points - 1)
        late = jitter[d, j] + (u - j) * (jitter[d, j + 1] - jitter[d, j])
        v = base + np.int64(math.floor(fraction + scale * t + late + 0.5))
        if k >= len(out_times):
            return -1
        m = k
        while m > 0 and out_times[m - 1] > v:
            out_times[m] = out_times[m - 1]
            out_channels[m] = out_channels[m - 1]
            m -= 1
        out_times[m] = v
        out_channels[m] = d
        k += 1
    for q in range(3):
        memory[0, q] -= span
        if memory[1, q] < NEVER:
            memory[1, q] -= span
    return k


def cell_offsets(bin_ps: float, delay_ps: Floats) -> Floats:
    """ps from a slot's origin to each pulsed cell at its detector, shape (8,)."""
    out: Floats = BIN_OF_CELL * bin_ps + delay_ps[DETECTOR_OF_CELL[:PULSED_CELLS]]
    return out
