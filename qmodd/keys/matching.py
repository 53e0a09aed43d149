"""What both sides keep of Bob's detections, at memory speed: compiled loops with twins in numpy.

The twins serve machines without numba, where a loop would be a hundred times slower; they give the same arrays. A
symbol is a nibble: bit 0 basis (1 X), bit 1 value, bit 2 decoy, bit 3 not valid (never a match).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qmodd.keys.jit import COMPILED, kernel

Int64s = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

INVALID, BASIS_BIT, VALUE_BIT, DECOY_BIT = 8, 1, 2, 4


@kernel
def _look_up_loop(slots: Int64s, basis: Bits, record: Bits, first: int, hit: Flags, kept: Bits) -> int:
    """`hit` for every detection; the symbols of the matches one after the other. Returns how many there are.

    No branch depends on a symbol: what follows a match is written before it is known to be one.
    """
    k = 0
    size = np.uint64(2 * len(record))
    for i in range(len(slots)):
        at = np.uint64(slots[i] - first)
        inside = at < size
        where = at if inside else np.uint64(0)
        nibble = (record[where >> np.uint64(1)] >> ((where & np.uint64(1)) << np.uint64(2))) & 15
        same = inside & (((nibble ^ basis[i]) & 9) == 0)
        hit[i] = same
        kept[k] = nibble
        k += same
    return k


def _look_up_numpy(slots: Int64s, basis: Bits, record: Bits, first: int) -> tuple[Flags, Bits]:
    at = slots - first
    inside = (at >= 0) & (at < 2 * len(record))
    nibbles = np.full(len(slots), INVALID, np.uint8)
    found = at[inside]
    nibbles[inside] = (record[found >> 1] >> ((found & 1) << 2).astype(np.uint8)) & 15
    return match(basis, nibbles)


def match(basis: Bits, nibbles: Bits) -> tuple[Flags, Bits]:
    """(which detections match in basis, their symbols). All uint8 of one length; Bob's basis is 0 or 1.

    In numpy alone: Alice's core calls it, where nothing is compiled. Raises ValueError if the lengths differ.
    """
    if len(basis) != len(nibbles):
        raise ValueError(f"{len(nibbles)} symbols for {len(basis)} detections")
    hit: Flags = ((nibbles ^ basis) & (BASIS_BIT | INVALID)) == 0
    return hit, nibbles[hit]


def look_up(slots: Int64s, basis: Bits, record: Bits, first: int) -> tuple[Flags, Bits]:
    """`match` against a dense record: uint8, the symbol of slot `first` in the low half of the first byte, and so on.

    `slots` int64; those outside the record match nothing. Raises ValueError if there is not one basis for each.
    """
    if len(slots) != len(basis):
        raise ValueError(f"{len(basis)} bases for {len(slots)} slots")
    if not len(record) or not COMPILED:
        return _look_up_numpy(slots, basis, record, first)
    hit, kept = np.empty(len(slots), np.bool_), np.empty(len(slots), np.uint8)
    return hit, kept[: _look_up_loop(slots, basis, record, first, hit, kept)]


@kernel
def _common_loop(a: Int64s, b: Int64s, in_a: Int64s, in_b: Int64s) -> int:
    """Both pointers move by comparisons, not by branches: whether two streams coincide cannot be predicted."""
    i = j = k = 0
    while i < len(a) and j < len(b):
        x, y = a[i], b[j]
        in_a[k] = i
        in_b[k] = j
        k += x == y
        i += x <= y
        j += y <= x
    return k


def _common_numpy(a: Int64s, b: Int64s) -> tuple[Int64s, Int64s]:
    at = np.searchsorted(b, a)
    in_a = np.flatnonzero(b[np.minimum(at, len(b) - 1)] == a) if len(b) else np.empty(0, np.int64)
    return in_a, at[in_a]


def common(a: Int64s, b: Int64s) -> tuple[Int64s, Int64s]:
    """Indices into both of the slots that are in both; a and b int64, strictly ascending."""
    if not COMPILED:
        return _common_numpy(a, b)
    in_a, in_b = (np.empty(min(len(a), len(b)), np.int64) for _ in range(2))
    k = _common_loop(a, b, in_a, in_b)
    return in_a[:k], in_b[:k]


# Rows of a tally: Z; X with Alice's bit 0, wrong ones of those; X with bit 1, wrong ones of those. Columns: intensity.
TALLY_SHAPE = (5, 2)
_NONE = np.zeros(1, np.uint8)


@kernel
def _keep_loop(
    slots: Int64s,
    basis: Bits,
    bit: Bits,
    match: Flags,
    decoy: Bits,
    x_bit: Bits,
    own_slots: Int64s,
    own: Bits,
    tally: Int64s,
) -> None:
    """See `keep`. `own` (3, n): basis, bit, Alice's bit. What follows a match is written before it is known to be one,
    and `decoy` and `x_bit` have an entry more for that, so that no branch depends on a basis or a bit.

    Every match adds to one of 16 cells (basis, Alice's bit, error, decoy), which are summed up at last.
    """
    cells = np.zeros(16, np.int64)
    own_basis, own_bit, peer = own[0], own[1], own[2]
    k = x = 0
    for i in range(len(match)):
        hit, b, mine = int(match[i]), basis[i], bit[i]
        theirs = x_bit[x] & b
        own_slots[k] = slots[i]
        own_basis[k] = b
        own_bit[k] = mine
        peer[k] = theirs
        cells[8 * b + 4 * theirs + 2 * ((mine ^ theirs) & b) + decoy[k]] += hit
        x += b & hit
        k += hit
    for d in range(2):
        tally[0, d] = cells[d]
        for v in range(2):
            tally[1 + 2 * v, d] = cells[8 + 4 * v + d] + cells[8 + 4 * v + 2 + d]
            tally[2 + 2 * v, d] = cells[8 + 4 * v + 2 + d]


Kept = tuple[Int64s, Bits, Bits, Bits, Int64s]


def _keep_numpy(slots: Int64s, basis: Bits, bit: Bits, match: Flags, decoy: Bits, x_bit: Bits) -> Kept:
    own_basis, own_bit = basis[match], bit[match]
    peer = np.zeros(len(own_basis), np.uint8)
    is_x = own_basis == 1
    peer[is_x] = x_bit
    wrong = own_bit != peer
    rows = [~is_x, is_x & (peer == 0), is_x & (peer == 0) & wrong, is_x & (peer == 1), is_x & (peer == 1) & wrong]
    decoys = [int(np.count_nonzero(row & (decoy == 1))) for row in rows]
    tally = np.array([(np.count_nonzero(r) - d, d) for r, d in zip(rows, decoys, strict=True)], np.int64)
    return slots[match], own_basis, own_bit, peer, tally


def keep(slots: Int64s, basis: Bits, bit: Bits, match: Flags, decoy: Bits, x_bit: Bits) -> Kept:
    """Bob: slot, basis and bit of his matches, Alice's bit of those in X (0 in Z), and the tally (int64, TALLY_SHAPE).

    `decoy` has one entry for each match, `x_bit` one for each match in X; all are 0 or 1. Raises ValueError if not.
    """
    n, matches = len(match), int(np.count_nonzero(match))
    if {len(slots), len(basis), len(bit)} != {n}:
        raise ValueError(f"not one slot, basis and bit for each of {n} detections")
    in_x = int(np.count_nonzero(match & (basis == 1)))
    if (len(decoy), len(x_bit)) != (matches, in_x):
        raise ValueError(f"{len(decoy)} intensities and {len(x_bit)} bits for {matches} matches, {in_x} of them in X")
    if any(len(a) and a.max() > 1 for a in (basis, bit, decoy, x_bit)):
        raise ValueError("neither 0 nor 1")
    if not COMPILED:
        return _keep_numpy(slots, basis, bit, match, decoy, x_bit)
    own_slots, own = np.empty(n, np.int64), np.empty((3, n), np.uint8)
    tally = np.empty(TALLY_SHAPE, np.int64)
    _keep_loop(slots, basis, bit, match, np.append(decoy, _NONE), np.append(x_bit, _NONE), own_slots, own, tally)
    return own_slots[:matches], own[0, :matches], own[1, :matches], own[2, :matches], tally
