"""Rice code of the gaps between ascending slots, as compiled loops: unary quotient, a zero, k bits of remainder.

Most significant bit first. Neither side touches a bit at a time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qmodd.keys.jit import kernel

Int64s = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]

MAX_K = 30
# What `decode` may look at behind the code.
PAD = 8
# Ones that a byte begins with.
_ONES = np.array([8 - (0xFF ^ byte).bit_length() for byte in range(256)], np.uint8)


@kernel
def ascending(slots: Int64s, first: int, end: int) -> bool:
    """Strictly, and all in [first, end)."""
    good = True
    for i in range(1, len(slots)):
        good &= slots[i] > slots[i - 1]
    return good and (len(slots) == 0 or (slots[0] >= first and slots[-1] < end))


@kernel
def length(slots: Int64s, first: int, k: int) -> int:
    """Bits that the gaps of ascending slots from `first` on take."""
    total = len(slots) * (1 + k)
    for i in range(1, len(slots)):
        total += (slots[i] - slots[i - 1] - 1) >> k
    return total + ((slots[0] - first) >> k if len(slots) else 0)


@kernel
def encode(slots: Int64s, first: int, k: int, out: Bits) -> None:
    """Into exactly the bytes that `length` asks for; what is left of the last one is zero. k at most MAX_K."""
    held, count, at = 0, 0, 0  # the lowest `count` bits of `held` are still to be written
    before = first - 1
    for i in range(len(slots)):
        gap = slots[i] - before - 1
        before = slots[i]
        q = gap >> k
        while q > 24:
            held, count, q = (held << 24) | 0xFFFFFF, count + 24, q - 24
            while count >= 8:
                count -= 8
                out[at] = (held >> count) & 0xFF
                at += 1
            held &= 0xFF
        code = (((1 << q) - 1) << (k + 1)) | (gap & ((1 << k) - 1))
        held, count = (held << (q + 1 + k)) | code, count + q + 1 + k  # at most 7 + 55 bits
        while count >= 8:
            count -= 8
            out[at] = (held >> count) & 0xFF
            at += 1
        held &= 0xFF
    if count:
        out[at] = (held << (8 - count)) & 0xFF


@kernel
def _window(data: Bits, position: int) -> np.uint64:
    """64 bits of the data from a byte on, moved up to begin at the position: at least 57 of them are data."""
    at = np.uint64(position >> 3)  # an unsigned index is not looked at for being negative
    held = np.uint64(0)
    for i in range(8):
        held = (held << np.uint64(8)) | np.uint64(data[at + np.uint64(i)])
    return held << np.uint64(position & 7)


@kernel
def decode(data: Bits, k: int, span: int, slots: Int64s) -> int:
    """Fills `slots`, counted from the first slot of the span; returns the bits read, or -1 if the data end early or a
    slot leaves the span. The last PAD bytes of `data` do not belong to the code; they are never read as such.

    Eight bits of a quotient are counted at a time by a table: its length cannot be predicted, and slots are no secret.
    """
    end = 8 * (len(data) - PAD)
    pos = 0
    slot = -1
    below = np.uint64(63 - k)
    for i in range(len(slots)):
        q = 0
        ones = 8
        window = np.uint64(0)
        while ones == 8:
            if pos >= end:
                return -1
            window = _window(data, pos)
            ones = int(_ONES[window >> np.uint64(56)])
            q += ones
            pos += ones
        pos += 1 + k
        if pos > end:
            return -1
        rest = window << np.uint64(ones + 1)
        slot += (q << k) + int((rest >> np.uint64(1)) >> below) + 1
        if slot >= span:
            return -1
        slots[i] = slot
    return pos
