"""Syndrome of a frame, and a frame corrected towards a syndrome.

In a million bits there are places where a few neighbours in the chain of degree-2 columns are wrong together, and
messages that are scaled down and capped never become large enough to turn the middle ones. Hence a long frame in which
next to no check is violated is taken as it stands, and decoded anew from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp

import numpy as np
import numpy.typing as npt

from qmodd.keys.reconciliation import backend
from qmodd.keys.reconciliation.codes import BaseMatrix, Code, Schedule
from qmodd.keys.reconciliation.portable import syndrome_of

Bits = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Int8s = npt.NDArray[np.int8]
Int64s = npt.NDArray[np.int64]

# Of the checks that may be violated in a frame that is all but right.
_NEARLY = 1e-3
_KNOWN = 127  # posterior of a bit that is known for certain
# Behind each column: 64 values for the vector decoder's mirror, and 64 more so that columns do not all begin at the
# same few places of a cache of 4096-byte ways.
_PADS = 128
_NO_RAMP = np.array([128], np.int64)


@dataclass(frozen=True)
class DecodeResult:
    """`bits` (a frame) meet Alice's syndrome if `ok`; otherwise they are Bob's own, unchanged."""

    ok: bool
    bits: Bits
    iterations: int


class Workspace:
    """The decoder's arrays for one base matrix (half a megabyte, of a long frame seven), used frame after frame."""

    def __init__(self, base: BaseMatrix) -> None:
        self.base = base
        self.posterior: Int8s = np.empty((base.columns, base.lift + _PADS), np.int8)
        self.message: Int8s = np.empty((len(base.column), base.lift), np.int8)
        self.extrinsic: Int8s = np.empty((base.widest, base.lift), np.int8)

    def fill(self, channel: int, known: Mask | None) -> None:
        """Start values, and the mirror of the first of them in the pads."""
        self.posterior[:] = channel
        if known is not None:
            lift = self.base.lift
            self.posterior[:, :lift][known.reshape(-1, lift)] = _KNOWN
            self.posterior[:, lift:] = self.posterior[:, :_PADS]


@lru_cache(maxsize=256)
def factors(schedule: Schedule) -> Int64s:
    """Scaling factors of the iterations, in units of 2^-7, at most 255; the last one stays."""
    ramp = [schedule.last - (schedule.last - schedule.first) * exp(-t / schedule.tau) for t in range(schedule.ramp)]
    rising = [round(r * 128) for r in ramp]
    return np.array(rising, np.int64)


def syndrome(code: Code, bits: Bits) -> Bits:
    """Syndrome (code.syndrome_bits,) of a frame of code.frame_bits. Raises ValueError on another length."""
    return checks(code.base, bits)


def checks(base: BaseMatrix, bits: Bits) -> Bits:
    """Sums of the checks of any base matrix, `lift` a row. Raises ValueError if the frame has another length."""
    if len(bits) != base.frame_bits:
        raise ValueError(f"frame of {len(bits)} bits, expected {base.frame_bits}")
    out = np.empty((base.rows, base.lift), np.uint8)
    syndrome_of(base.start, base.column, base.shift, np.ascontiguousarray(bits).reshape(-1, base.lift), out)
    return out.reshape(-1)


def decode(
    code: Code,
    bits_bob: Bits,
    syndrome_alice: Bits,
    *,
    known: Mask | None = None,
    workspace: Workspace | None = None,
    name: str | None = None,
) -> DecodeResult:
    """Correct a frame. `known` marks bits that are Alice's already (shortened).

    `workspace` brings the base matrix (default: the code's own) and is overwritten; `name` forces a decoder of
    `backend`. Raises ValueError on wrong lengths.
    """
    work = Workspace(code.base) if workspace is None else workspace
    base, schedule = work.base, code.schedule
    if len(syndrome_alice) != base.rows * base.lift:
        raise ValueError(f"syndrome of {len(syndrome_alice)} bits for {base.rows * base.lift}")
    difference = checks(base, bits_bob) ^ syndrome_alice
    if not difference.any():
        return DecodeResult(True, bits_bob, 0)
    bits, used = bits_bob, 0
    for most, scale in ((schedule.most, factors(schedule)), (schedule.again, factors(schedule)[-1:])):
        work.fill(schedule.channel, known)
        spent = _min_sum(work, schedule, difference, scale, most, name)
        bits, used = bits ^ (work.posterior[:, : base.lift] < 0).view(np.uint8).reshape(-1), used + abs(spent)
        if spent > 0:
            return DecodeResult(True, bits, used)
        if not schedule.again:
            break
        difference = checks(base, bits) ^ syndrome_alice
        if int(difference.sum()) > len(difference) * _NEARLY:
            break
    return DecodeResult(False, bits_bob, used)


def _min_sum(work: Workspace, schedule: Schedule, difference: Bits, scale: Int64s, most: int, name: str | None) -> int:
    base = work.base
    return int(
        backend.min_sum(name)(
            base.start,
            base.column,
            base.shift,
            np.negative(difference.reshape(-1, base.lift).view(np.int8)),
            work.posterior,
            work.message,
            work.extrinsic,
            scale,
            schedule.offset,
            schedule.cap,
            most,
        )
    )


def warm_up() -> None:
    """Compile the decoder, or load it from the cache: a few seconds or a few tenths of one."""
    base = BaseMatrix(np.array([0, 2], np.int64), np.array([0, 1], np.int64), np.array([0, 1], np.int64))
    work = Workspace(base)
    work.fill(1, None)
    checks(base, np.zeros(base.frame_bits, np.uint8))
    target = np.zeros((1, base.lift), np.int8)
    loop = backend.min_sum()
    loop(base.start, base.column, base.shift, target, work.posterior, work.message, work.extrinsic, _NO_RAMP, 0, 1, 1)
