"""Compiled loops of the decoder: layered min-sum on 16-bit integers.

Written so that the compiler turns every inner loop into vector code: the lift axis is contiguous, columns are stored
twice in a row so that a cyclic shift is a plain offset, and there is no branch on data. 16 bits leave room for the sum
of a column of high degree without saturation; only the messages are capped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qmodd.keys.jit import kernel

Int16s = npt.NDArray[np.int16]
Int64s = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
int16 = np.int16

# Larger than any message, well inside 16 bits.
_FAR = 30000
# Fraction bits of the scaling factors.
SCALE_BITS = 10


@kernel
def syndrome_of(start: Int64s, column: Int64s, shift: Int64s, bits: Bits, out: Bits) -> None:
    """out[l, i] = sum over the edges of row l of bits[column, (i + shift) mod Z]; uint8, shapes (m, Z), (n, Z)."""
    z = bits.shape[1]
    out[:] = 0
    for layer in range(len(start) - 1):
        for k in range(start[layer], start[layer + 1]):
            column_bits = bits[column[k]]
            s = shift[k]
            head = out[layer, : z - s]
            for i in range(z - s):
                head[i] ^= column_bits[s:][i]
            rest = out[layer, z - s :]
            for i in range(s):
                rest[i] ^= column_bits[i]


@kernel
def _collect(
    posterior: Int16s, message: Int16s, extrinsic: Int16s, least: Int16s, second: Int16s, sign: Int16s, parity: Int16s
) -> None:
    """Posterior minus old message of one edge, and the running two least magnitudes, sign and parity of the check."""
    for i in range(len(posterior)):
        q = int16(posterior[i] - message[i])
        extrinsic[i] = q
        size = int16(abs(q))
        a = least[i]
        b = second[i]
        larger = size if size > a else a
        second[i] = larger if larger < b else b
        least[i] = size if size < a else a
        sign[i] ^= q
        parity[i] ^= posterior[i]


@kernel
def _scale(size: Int16s, factor: int, cap: int) -> None:
    for i in range(len(size)):
        size[i] = min((size[i] * factor + 512) >> 10, cap)


@kernel
def _distribute(
    extrinsic: Int16s,
    message: Int16s,
    posterior: Int16s,
    least: Int16s,
    scaled_least: Int16s,
    scaled_second: Int16s,
    sign: Int16s,
) -> None:
    """New message of one edge (least magnitude of the others, product of their signs) and the new posterior."""
    for i in range(len(extrinsic)):
        q = extrinsic[i]
        own = int16(-int16(int16(abs(q)) == least[i]))  # all ones where this edge is the least one
        size = int16(scaled_least[i] ^ (own & (scaled_least[i] ^ scaled_second[i])))
        negative = int16(int16(sign[i] ^ q) >> 15)
        r = int16((size ^ negative) - negative)
        message[i] = r
        posterior[i] = q + r


@kernel
def _copy(target: Int16s, source: Int16s) -> None:
    for i in range(len(target)):
        target[i] = source[i]


@kernel
def _any_negative(values: Int16s) -> bool:
    seen = int16(0)
    for i in range(len(values)):
        seen |= values[i]
    return bool(seen < 0)


@kernel
def _update_row(
    posterior: Int16s,
    message: Int16s,
    extrinsic: Int16s,
    syndrome: Int16s,
    work: Int16s,
    column: Int64s,
    shift: Int64s,
    factor: int,
    cap: int,
) -> bool:
    """One layer. `posterior` is (n, 2Z), both halves equal; returns whether a check was violated before the update."""
    z = len(syndrome)
    least, second, scaled, sign, parity = work[0], work[1], work[2], work[3], work[4]
    least[:] = _FAR
    second[:] = _FAR
    sign[:] = syndrome
    parity[:] = syndrome
    for k in range(len(column)):
        s = shift[k]
        _collect(posterior[column[k], s : s + z], message[k], extrinsic[k], least, second, sign, parity)
    violated: bool = _any_negative(parity)
    _copy(scaled, least)
    _scale(scaled, factor, cap)
    _scale(second, factor, cap)
    for k in range(len(column)):
        s = shift[k]
        p = posterior[column[k]]
        _distribute(extrinsic[k], message[k], p[s : s + z], least, scaled, second, sign)
        _copy(p[:s], p[z : z + s])
        _copy(p[z + s :], p[s:z])
    return violated


@kernel
def _satisfied(
    start: Int64s, column: Int64s, shift: Int64s, posterior: Int16s, syndrome: Int16s, parity: Int16s
) -> bool:
    z = syndrome.shape[1]
    for layer in range(len(start) - 1):
        _copy(parity, syndrome[layer])
        for k in range(start[layer], start[layer + 1]):
            p = posterior[column[k], shift[k] : shift[k] + z]
            for i in range(z):
                parity[i] ^= p[i]
        if _any_negative(parity):
            return False
    return True


@kernel
def min_sum(
    start: Int64s,
    column: Int64s,
    shift: Int64s,
    posterior: Int16s,
    syndrome: Int16s,
    message: Int16s,
    extrinsic: Int16s,
    work: Int16s,
    factors: Int64s,
    cap: int,
    most: int,
) -> int:
    """Decode in place; returns the iterations used, negative if the syndrome was not met after `most` of them.

    All int16: posterior (n, 2Z), its negative values are ones; syndrome (m, Z) of 0 and -1; message (edges, Z) zeroed;
    extrinsic (largest row degree, Z); work (5, Z). `factors` int64 in units of 2^-10, the last one stays.
    """
    for iteration in range(most):
        factor = factors[min(iteration, len(factors) - 1)]
        violated = False
        for layer in range(len(start) - 1):
            a, b = start[layer], start[layer + 1]
            violated |= _update_row(
                posterior, message[a:b], extrinsic, syndrome[layer], work, column[a:b], shift[a:b], factor, cap
            )
        if not violated and _satisfied(start, column, shift, posterior, syndrome, work[0]):
            return iteration + 1
    satisfied: bool = _satisfied(start, column, shift, posterior, syndrome, work[0])
    return most if satisfied else -most
