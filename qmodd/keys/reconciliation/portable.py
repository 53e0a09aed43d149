"""Layered min-sum on 8-bit integers in plain loops: the decoder of every machine, and the definition of its arithmetic.

`vector` computes the same numbers, bit for bit, with explicit vector instructions. One update of a check, for the bits
`p` that it joins (int8, negative where a one is more likely) and its last messages `r` to them:

    q = saturated(p - r)                             what the rest of the code says about each bit
    size = |q|                                       0 .. 128
    first, second = the two least sizes, at most 127
    scaled(x) = min((max(x factor - offset, 0) + 64) >> 7, cap)
    r = scaled(least size of the others), signed by the parity of the others and the syndrome
    p = saturated(q + r)

Saturated sums of columns of high degree are what fails first in 8 bits; the cap keeps them rare.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qmodd.keys.jit import kernel

Int8s = npt.NDArray[np.int8]
Int16s = npt.NDArray[np.int16]
Int64s = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
int8, int16 = np.int8, np.int16


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
def _rotated(column: Int8s, shift: int, out: Int8s) -> None:
    """out[i] = column[(i + shift) mod Z]."""
    left = len(out) - shift
    head, tail = out[:left], out[left:]
    for i in range(left):
        head[i] = column[shift:][i]
    for i in range(shift):
        tail[i] = column[i]


@kernel
def _collect(
    posterior: Int8s, message: Int8s, extrinsic: Int8s, least: Int16s, second: Int16s, sign: Int8s, parity: Int8s
) -> None:
    """Posterior minus old message of one edge, and the running two least sizes, sign and parity of the check.

    Every sum is cast back to 16 bits at once: left to itself the compiler goes on in 64, at an eighth of the speed.
    """
    for i in range(len(posterior)):
        q = int16(posterior[i] - message[i])
        q = q if q < 127 else int16(127)
        q = q if q > -128 else int16(-128)
        extrinsic[i] = q
        size = int16(abs(q))
        a, b = least[i], second[i]
        larger = size if size > a else a
        second[i] = larger if larger < b else b
        least[i] = size if size < a else a
        sign[i] ^= int8(q)
        parity[i] ^= posterior[i]


@kernel
def _scale(size: Int16s, scaled: Int16s, factor: int, offset: int, cap: int) -> None:
    for i in range(len(size)):
        scaled[i] = min((max(size[i] * factor - offset, 0) + 64) >> 7, cap)


@kernel
def _distribute(
    extrinsic: Int8s,
    message: Int8s,
    posterior: Int8s,
    least: Int16s,
    scaled_least: Int16s,
    scaled_second: Int16s,
    sign: Int8s,
) -> None:
    """New message of one edge (least size of the others, product of their signs) and the new posterior."""
    for i in range(len(extrinsic)):
        q = int16(extrinsic[i])
        own = int16(-int16(int16(abs(q)) == least[i]))  # all ones where this edge is the least one
        size = int16(scaled_least[i] ^ (own & (scaled_least[i] ^ scaled_second[i])))
        negative = int16(int16(sign[i] ^ extrinsic[i]) >> 15)
        r = int16((size ^ negative) - negative)
        message[i] = r
        p = int16(q + r)
        p = p if p < 127 else int16(127)
        posterior[i] = p if p > -128 else int16(-128)


@kernel
def _update_row(
    posterior: Int8s,
    message: Int8s,
    extrinsic: Int8s,
    syndrome: Int8s,
    sizes: Int16s,
    lanes: Int8s,
    column: Int64s,
    shift: Int64s,
    factor: int,
    offset: int,
    cap: int,
) -> bool:
    """One layer; returns whether a check was violated before the update."""
    z = len(syndrome)
    least, second, scaled, other = sizes[0], sizes[1], sizes[2], sizes[3]
    sign, parity, turned = lanes[0], lanes[1], lanes[2]
    least[:] = 127
    second[:] = 127
    sign[:] = syndrome
    parity[:] = syndrome
    for k in range(len(column)):
        _rotated(posterior[column[k], :z], shift[k], turned)
        _collect(turned, message[k], extrinsic[k, :z], least, second, sign, parity)
    _scale(least, scaled, factor, offset, cap)
    _scale(second, other, factor, offset, cap)
    for k in range(len(column)):
        _distribute(extrinsic[k, :z], message[k], turned, least, scaled, other, sign)
        _rotated(turned, (z - shift[k]) % z, posterior[column[k], :z])
    violated: bool = _any_negative(parity)
    return violated


@kernel
def _any_negative(values: Int8s) -> bool:
    seen = int8(0)
    for i in range(len(values)):
        seen |= values[i]
    return bool(seen < 0)


@kernel
def _satisfied(start: Int64s, column: Int64s, shift: Int64s, posterior: Int8s, syndrome: Int8s, lanes: Int8s) -> bool:
    z = syndrome.shape[1]
    parity, turned = lanes[0], lanes[1]
    for layer in range(len(start) - 1):
        parity[:] = syndrome[layer]
        for k in range(start[layer], start[layer + 1]):
            _rotated(posterior[column[k], :z], shift[k], turned)
            for i in range(z):
                parity[i] ^= turned[i]
        if _any_negative(parity):
            return False
    return True


@kernel
def min_sum(
    start: Int64s,
    column: Int64s,
    shift: Int64s,
    syndrome: Int8s,
    posterior: Int8s,
    message: Int8s,
    extrinsic: Int8s,
    factors: Int64s,
    offset: int,
    cap: int,
    most: int,
) -> int:
    """Decode in place; returns the iterations used, negative if the syndrome was not met after `most` of them.

    All int8 and contiguous: syndrome (m, Z) of 0 and -1; posterior (n, Z + 64 or more), negative values are ones, what
    lies beyond Z is not used here; message (edges, Z) is set to zero; extrinsic (largest row degree, Z or more).
    `factors` (0 .. 255) and `offset` are in units of 2^-7; the last factor stays.
    """
    z = syndrome.shape[1]
    sizes = np.empty((4, z), np.int16)
    lanes = np.empty((3, z), np.int8)
    message[:] = 0
    for iteration in range(most):
        factor = factors[min(iteration, len(factors) - 1)]
        violated = False
        for layer in range(len(start) - 1):
            a, b = start[layer], start[layer + 1]
            violated |= _update_row(
                posterior,
                message[a:b],
                extrinsic,
                syndrome[layer],
                sizes,
                lanes,
                column[a:b],
                shift[a:b],
                factor,
                offset,
                cap,
            )
        if not violated and _satisfied(start, column, shift, posterior, syndrome, lanes):
            return iteration + 1
    satisfied: bool = _satisfied(start, column, shift, posterior, syndrome, lanes)
    return most if satisfied else -most
