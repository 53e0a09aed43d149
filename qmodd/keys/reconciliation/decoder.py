"""Syndrome of a frame, and a frame corrected towards a syndrome."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import numpy as np
import numpy.typing as npt

from qmodd.keys.reconciliation.codes import COLUMNS, FRAME_BITS, LIFT, Code, Schedule
from qmodd.keys.reconciliation.kernels import SCALE_BITS, min_sum, syndrome_of

Bits = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MOST_ITERATIONS = 60
# A bit that may be wrong, and one that is known: 16-bit integers of any common scale would do.
_CHANNEL, _KNOWN = 128, 12000
_RAMP = 16  # iterations after which the scaling factor has settled


@dataclass(frozen=True)
class DecodeResult:
    """`bits` (65 536) meet Alice's syndrome if `ok`; otherwise they are Bob's own, unchanged."""

    ok: bool
    bits: Bits
    iterations: int


def factors(schedule: Schedule) -> npt.NDArray[np.int64]:
    """Scaling factors of the first iterations, in units of 2^-10."""
    ramp = [schedule.last - (schedule.last - schedule.first) * exp(-t / schedule.tau) for t in range(_RAMP)]
    return np.array([round(r * (1 << SCALE_BITS)) for r in ramp], np.int64)


def syndrome(code: Code, bits: Bits) -> Bits:
    """Syndrome (code.syndrome_bits,) of a frame of 65 536 bits. Raises ValueError on another length."""
    if len(bits) != FRAME_BITS:
        raise ValueError(f"frame of {len(bits)} bits, expected {FRAME_BITS}")
    base = code.base
    out = np.empty((code.rows, LIFT), np.uint8)
    syndrome_of(base.start, base.column, base.shift, np.ascontiguousarray(bits).reshape(COLUMNS, LIFT), out)
    return out.reshape(-1)


def decode(code: Code, bits_bob: Bits, syndrome_alice: Bits, qber: float, *, known: Mask | None = None) -> DecodeResult:
    """Correct a frame. `known` marks bits that are Alice's already (shortened or disclosed).

    `qber` must be below 1/2; min-sum does not depend on its value otherwise. Raises ValueError on wrong lengths.
    """
    if len(syndrome_alice) != code.syndrome_bits or not 0.0 <= qber < 0.5:
        raise ValueError(
            f"syndrome of {len(syndrome_alice)} bits for {code.syndrome_bits}, or QBER {qber} not below 1/2"
        )
    base = code.base
    difference = syndrome(code, bits_bob) ^ syndrome_alice
    if not difference.any():
        return DecodeResult(True, bits_bob, 0)
    channel = np.full(FRAME_BITS, _CHANNEL, np.int16)
    if known is not None:
        channel[known] = _KNOWN
    posterior = np.tile(channel.reshape(COLUMNS, LIFT), (1, 2))
    edges = len(base.column)
    used = int(
        min_sum(
            base.start,
            base.column,
            base.shift,
            posterior,
            -difference.reshape(-1, LIFT).astype(np.int16),
            np.zeros((edges, LIFT), np.int16),
            np.empty((int(np.diff(base.start).max()), LIFT), np.int16),
            np.empty((5, LIFT), np.int16),
            factors(code.schedule),
            round(code.schedule.cap * _CHANNEL),
            MOST_ITERATIONS,
        )
    )
    if used < 0:
        return DecodeResult(False, bits_bob, -used)
    errors = (posterior[:, :LIFT] < 0).astype(np.uint8).reshape(-1)
    return DecodeResult(True, bits_bob ^ errors, used)
