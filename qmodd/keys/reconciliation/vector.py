"""Layered min-sum on 8-bit integers, 64 lanes at a time: the arithmetic of `portable`, bit for bit.

A compiler does not find these vectors in plain loops (saturating sums and the two running minima hide them), so the
update of a row is written in LLVM's own vector type `<64 x i8>`, which every target lowers to what it has: one AVX-512
register, two of AVX2, four of SSE2. The lift axis is contiguous, and a column has 64 pads behind its lift that mirror
its first 64 values; a cyclic shift is then a plain unaligned load and no lane ever needs a branch.

Importing this module imports numba; only the decoder does, at its first call. Nothing here checks bounds: shapes are
the caller's business (`decoder.Workspace`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit as _njit
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

Int8s = npt.NDArray[np.int8]
Int64s = npt.NDArray[np.int64]

LANES = 64
# Untyped in numba; a function keeps its Python signature for the type checker.
intrinsic: Any = _intrinsic
compiled: Any = _njit(nogil=True, cache=True)
_slot: Any = cgutils.alloca_once
_I1, _I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
_BYTES = ir.VectorType(_I8, LANES)
_WORDS = ir.VectorType(_I16, LANES)
_ROW_ARGUMENTS = 11
_CHECK_ARGUMENTS = 6


def _i64(value: int) -> Any:
    return ir.Constant(_I64, value)


def _all(value: int, kind: Any = _BYTES) -> Any:
    """The same constant in every lane."""
    return ir.Constant(kind, [ir.Constant(kind.element, value)] * LANES)


class _Lanes:
    """Writes instructions on 64 lanes; addresses are 64-bit integers."""

    def __init__(self, builder: Any, z: Any) -> None:
        self.b = builder
        self.z = z

    def load(self, address: Any) -> Any:
        value = self.b.load(self.b.inttoptr(address, _BYTES.as_pointer()))
        value.align = 1
        return value

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.b.inttoptr(address, _BYTES.as_pointer())).align = 1

    def entry(self, table: Any, k: Any) -> Any:
        """table[k] of an int64 array."""
        return self.b.load(self.b.inttoptr(self.b.add(table, self.b.shl(k, _i64(3))), _I64.as_pointer()))

    def call(self, name: str, *values: Any) -> Any:
        """One of LLVM's own functions of vectors, for example `llvm.umin`."""
        kind = values[0].type
        full = f"{name}.v{LANES}i{kind.element.width}"
        module = self.b.module
        function = module.globals.get(full) or ir.Function(
            module, ir.FunctionType(kind, [v.type for v in values]), full
        )
        return self.b.call(function, values)

    def size(self, q: Any) -> Any:
        """|q|, unsigned: 128 for -128."""
        return self.call("llvm.abs", q, ir.Constant(_I1, 0))

    def spread(self, scalar: Any, kind: Any) -> Any:
        """A scalar in every lane."""
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
        return self.b.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))

    def variable(self, value: Any) -> Any:
        slot = _slot(self.b, _BYTES)
        self.b.store(value, slot)
        return slot

    def shifted(self, lane: Any, shifts: Any, k: Any) -> Any:
        """(lane + shifts[k]) mod Z."""
        position = self.b.add(lane, self.entry(shifts, k))
        return self.b.select(self.b.icmp_signed(">=", position, self.z), self.b.sub(position, self.z), position)

    def any_negative(self, value: Any) -> Any:
        """int64: 1 if a lane is negative, else 0."""
        bits = ir.IntType(LANES)
        signs = self.b.bitcast(self.b.icmp_signed("<", value, _all(0)), bits)
        return self.b.zext(self.b.icmp_unsigned("!=", signs, ir.Constant(bits, 0)), _I64)

    def scaler(self, factor: Any, offset: Any, cap: Any) -> Any:
        """A function that scales sizes as `portable` does, in 16 bits (128 x 255 fits)."""
        f, o, c = (self.spread(self.b.trunc(v, _I16), _WORDS) for v in (factor, offset, cap))

        def scaled(size: Any) -> Any:
            raw = self.b.sub(self.b.mul(self.b.zext(size, _WORDS), f), o)
            rounded = self.b.add(self.call("llvm.smax", raw, _all(0, _WORDS)), _all(64, _WORDS))
            return self.b.trunc(self.call("llvm.smin", self.b.ashr(rounded, _all(7, _WORDS)), c), _BYTES)

        return scaled


@intrinsic
def _address(_typing: Any, array: Any) -> Any:
    """Address of an array's first element."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.ptrtoint(context.make_array(signature.args[0])(context, b, arguments[0]).data, _I64)

    return types.int64(array), generate


@intrinsic
def _update_row(
    _typing: Any,
    posterior: Any,
    message: Any,
    extrinsic: Any,
    syndrome: Any,
    offsets: Any,
    shifts: Any,
    degree: Any,
    z: Any,
    factor: Any,
    offset: Any,
    cap: Any,
) -> Any:
    """One layer; 1 if a check was violated before the update, else 0. All int64: addresses (of the layer's messages,
    syndrome, byte offsets of its columns and shifts; the rest of the whole array), then numbers."""

    def generate(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        posterior, message, extrinsic, syndrome, offsets, shifts, degree, z, factor, offset, cap = arguments
        on = _Lanes(b, z)
        scaled = on.scaler(factor, offset, cap)
        least, second, sign, parity = (on.variable(_all(0)) for _ in range(4))
        violated = on.variable(_all(0))
        with cgutils.for_range_slice(b, _i64(0), z, _i64(LANES)) as (lane, _):
            wanted = on.load(b.add(syndrome, lane))
            for slot, value in ((sign, wanted), (parity, wanted), (least, _all(127)), (second, _all(127))):
                b.store(value, slot)
            with cgutils.for_range(b, degree) as loop:
                k = loop.index
                p = on.load(b.add(posterior, b.add(on.entry(offsets, k), on.shifted(lane, shifts, k))))
                r = on.load(b.add(message, b.add(b.mul(k, z), lane)))
                q = on.call("llvm.ssub.sat", p, r)
                on.store(q, b.add(extrinsic, b.mul(k, _i64(LANES))))
                size, first = on.size(q), b.load(least)
                b.store(on.call("llvm.umin", b.load(second), on.call("llvm.umax", first, size)), second)
                b.store(on.call("llvm.umin", first, size), least)
                b.store(b.xor(b.load(sign), q), sign)
                b.store(b.xor(b.load(parity), p), parity)
            b.store(b.or_(b.load(violated), b.load(parity)), violated)
            first, signs = b.load(least), b.load(sign)
            common = scaled(first)
            change = b.xor(common, scaled(b.load(second)))
            with cgutils.for_range(b, degree) as loop:
                k = loop.index
                q = on.load(b.add(extrinsic, b.mul(k, _i64(LANES))))
                own = b.sext(b.icmp_signed("==", on.size(q), first), _BYTES)  # all ones: this edge is the least one
                size = b.xor(common, b.and_(change, own))
                negative = b.ashr(b.xor(signs, q), _all(7))
                r = b.sub(b.xor(size, negative), negative)
                on.store(r, b.add(message, b.add(b.mul(k, z), lane)))
                to = b.add(posterior, b.add(on.entry(offsets, k), on.shifted(lane, shifts, k)))
                on.store(on.call("llvm.sadd.sat", q, r), to)
        _mirror(on, posterior, offsets, shifts, degree)
        return on.any_negative(b.load(violated))

    return types.int64(*[types.int64] * _ROW_ARGUMENTS), generate


def _mirror(on: _Lanes, posterior: Any, offsets: Any, shifts: Any, degree: Any) -> None:
    """Make a column's first values and its pads equal again: the block that crossed the end wrote its last lanes to the
    pads, the block that starts there wrote the others to the front."""
    b = on.b
    number = ir.Constant(_BYTES, [ir.Constant(_I8, i) for i in range(LANES)])
    with cgutils.for_range(b, degree) as loop:
        crossed = b.trunc(b.and_(on.entry(shifts, loop.index), _i64(LANES - 1)), _I8)
        front = b.add(posterior, on.entry(offsets, loop.index))
        pads = b.add(front, on.z)
        in_pads = b.icmp_unsigned("<", number, on.spread(crossed, _BYTES))
        value = b.select(in_pads, on.load(pads), on.load(front))
        on.store(value, front)
        on.store(value, pads)


@intrinsic
def _check_row(_typing: Any, posterior: Any, syndrome: Any, offsets: Any, shifts: Any, degree: Any, z: Any) -> Any:
    """1 if a check of the layer is violated, else 0. Arguments as for `_update_row`."""

    def generate(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        posterior, syndrome, offsets, shifts, degree, z = arguments
        on = _Lanes(b, z)
        parity, violated = on.variable(_all(0)), on.variable(_all(0))
        with cgutils.for_range_slice(b, _i64(0), z, _i64(LANES)) as (lane, _):
            b.store(on.load(b.add(syndrome, lane)), parity)
            with cgutils.for_range(b, degree) as loop:
                k = loop.index
                p = on.load(b.add(posterior, b.add(on.entry(offsets, k), on.shifted(lane, shifts, k))))
                b.store(b.xor(b.load(parity), p), parity)
            b.store(b.or_(b.load(violated), b.load(parity)), violated)
        return on.any_negative(b.load(violated))

    return types.int64(*[types.int64] * _CHECK_ARGUMENTS), generate


@compiled
def _satisfied(start: Int64s, offsets: Int64s, shift: Int64s, syndrome: Int8s, posterior: Int8s) -> bool:
    z = syndrome.shape[1]
    p, s, o, h = _address(posterior), _address(syndrome), _address(offsets), _address(shift)
    for layer in range(len(start) - 1):
        a = start[layer]
        if _check_row(p, s + layer * z, o + 8 * a, h + 8 * a, start[layer + 1] - a, z):
            return False
    return True


@compiled
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
    """As `portable.min_sum`, for a lift that is a multiple of 64; posterior must have 64 or more pads behind the lift,
    which hold the column's first values."""
    z = syndrome.shape[1]
    offsets = column * posterior.shape[1]
    message[:] = 0
    p, r, q, s = _address(posterior), _address(message), _address(extrinsic), _address(syndrome)
    o, h = _address(offsets), _address(shift)
    for iteration in range(most):
        factor = factors[min(iteration, len(factors) - 1)]
        violated = 0
        for layer in range(len(start) - 1):
            a = start[layer]
            degree = start[layer + 1] - a
            violated |= _update_row(
                p, r + a * z, q, s + layer * z, o + 8 * a, h + 8 * a, degree, z, factor, offset, cap
            )
        if violated == 0 and _satisfied(start, offsets, shift, syndrome, posterior):
            return iteration + 1
    return most if _satisfied(start, offsets, shift, syndrome, posterior) else -most
