"""Arithmetic of GF(2^64) on vectors of elements, as LLVM instructions, and the loops that the transform is made of.

What multiplies is VPCLMULQDQ or PCLMULQDQ on x86-64 and PMULL on aarch64. The loops work on addresses and check no
bounds; `vector` alone calls them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic as _intrinsic

# Untyped in numba; a function keeps its Python signature for the type checker.
intrinsic: Any = _intrinsic
_config: Any = config
_slot: Any = cgutils.alloca_once
_I8, _I32, _I64 = (ir.IntType(n) for n in (8, 32, 64))
_PAIR = ir.VectorType(_I64, 2)


def instructions() -> str | None:
    """Which multiplication this processor has: "vpclmul512", "vpclmul256", "pclmul", "pmull", or None."""
    if _config.CPU_NAME is not None or _config.CPU_FEATURES is not None:
        return None  # numba was told to compile for less than this processor
    has = binding.get_host_cpu_features()
    if has.get("vpclmulqdq") and has.get("avx512bw"):
        return "vpclmul512"
    if has.get("vpclmulqdq") and has.get("avx2"):
        return "vpclmul256"
    if has.get("pclmul") and has.get("ssse3"):
        return "pclmul"
    return "pmull" if binding.get_process_triple().startswith(("aarch64", "arm64")) and has.get("aes") else None


KIND = instructions()
LANES = 8 if KIND == "vpclmul512" else 4


def _i64(value: int) -> Any:
    return ir.Constant(_I64, value)


class Lanes:
    """Writes instructions on vectors of `lanes` elements; addresses are 64-bit integers."""

    def __init__(self, builder: Any, kind: str | None = KIND, lanes: int = LANES) -> None:
        self.b, self.kind, self.lanes = builder, kind, lanes
        self.type = ir.VectorType(_I64, lanes)

    def load(self, address: Any, lanes: int = 0) -> Any:
        kind = ir.VectorType(_I64, lanes or self.lanes)
        value = self.b.load(self.b.inttoptr(address, kind.as_pointer()))
        value.align = 8
        return value

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.b.inttoptr(address, self.type.as_pointer())).align = 8

    def pick(self, x: Any, y: Any, places: list[int]) -> Any:
        """Elements of the two vectors, taken as one of twice the length."""
        return self.b.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(places)), places))

    def spread(self, scalar: Any) -> Any:
        one = self.b.insert_element(ir.Constant(self.type, ir.Undefined), scalar, ir.Constant(_I32, 0))
        return self.pick(one, one, [0] * self.lanes)

    def _call(self, name: str, returns: Any, *values: Any) -> Any:
        module = self.b.module
        kind = ir.FunctionType(returns, [v.type for v in values])
        return self.b.call(module.globals.get(name) or ir.Function(module, kind, name), values)

    def shifted(self, x: Any, left: int) -> Any:
        """x << left, or >> where it is negative."""
        by = ir.Constant(self.type, [ir.Constant(_I64, abs(left))] * self.lanes)
        return self.b.shl(x, by) if left > 0 else self.b.lshr(x, by)

    def products(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Carry-less products of the even and of the odd lanes, 128 bits each, in two vectors."""
        if self.kind == "pmull":
            return self._by_scalars(x, y, 0), self._by_scalars(x, y, 1)
        if self.kind == "pclmul":
            return self._by_pairs(x, y, 0x00), self._by_pairs(x, y, 0x11)
        name = "llvm.x86.pclmulqdq.512" if self.lanes == 8 else "llvm.x86.pclmulqdq.256"
        even, odd = (self._call(name, self.type, x, y, ir.Constant(_I8, which)) for which in (0x00, 0x11))
        return even, odd

    def _joined(self, parts: list[Any]) -> Any:
        while len(parts) > 1:
            size = 2 * parts[0].type.count
            parts = [self.pick(a, b, list(range(size))) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def _by_pairs(self, x: Any, y: Any, which: int) -> Any:
        parts = []
        for i in range(0, self.lanes, 2):
            a, b = (self.pick(v, v, [i, i + 1]) for v in (x, y))
            parts.append(self._call("llvm.x86.pclmulqdq", _PAIR, a, b, ir.Constant(_I8, which)))
        return self._joined(parts)

    def _by_scalars(self, x: Any, y: Any, odd: int) -> Any:
        parts = []
        for i in range(odd, self.lanes, 2):
            a, b = (self.b.extract_element(v, ir.Constant(_I32, i)) for v in (x, y))
            product = self._call("llvm.aarch64.neon.pmull64", ir.VectorType(_I8, 16), a, b)
            parts.append(self.b.bitcast(product, _PAIR))
        return self._joined(parts)

    def reduced(self, even: Any, odd: Any) -> Any:
        """Elements of the field from what `products` gives, or from sums of that.

        high x^64 = high (x^4 + x^3 + x + 1), of which 3 bits overflow once more: high has 63 bits.
        """
        b, n = self.b, self.lanes
        low = self.pick(even, odd, [i // 2 * 2 + n * (i % 2) for i in range(n)])
        high = self.pick(even, odd, [i // 2 * 2 + 1 + n * (i % 2) for i in range(n)])
        over = b.xor(self.shifted(high, -60), self.shifted(high, -61))
        for part in (high, over):
            doubled = b.xor(part, self.shifted(part, 1))
            low = b.xor(low, b.xor(doubled, self.shifted(doubled, 3)))
        return low

    def times(self, x: Any, y: Any) -> Any:
        return self.reduced(*self.products(x, y))

    def butterfly(self, x: Any, y: Any, t: Any, inverse: bool) -> tuple[Any, Any]:
        """x + t y, x + t y + y; or back."""
        if inverse:
            y = self.b.xor(y, x)
            return self.b.xor(x, self.times(y, t)), y
        x = self.b.xor(x, self.times(y, t))
        return x, self.b.xor(y, x)


def _each(b: Any, words: Any, step: int) -> Any:
    """Loop over byte offsets of so many words, `step` of them at a time."""
    return cgutils.for_range_slice(b, _i64(0), b.shl(words, _i64(3)), _i64(8 * step))


@intrinsic
def address(_typing: Any, array: Any) -> Any:
    """Address of an array's first element."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.ptrtoint(context.make_array(signature.args[0])(context, b, arguments[0]).data, _I64)

    return types.int64(array), generate


def _butterflies(inverse: bool) -> Any:
    @intrinsic
    def butterflies(_typing: Any, x: Any, y: Any, count: Any, t: Any) -> Any:
        """`count` words (a multiple of LANES) at the addresses x and y, all with the factor t."""

        def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
            x, y, count, t = arguments
            on = Lanes(b)
            factor = on.spread(t)
            with _each(b, count, LANES) as (i, _):
                a, c = on.butterfly(on.load(b.add(x, i)), on.load(b.add(y, i)), factor, inverse)
                on.store(a, b.add(x, i))
                on.store(c, b.add(y, i))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.uint64), generate

    return butterflies


def _lowest_layers(inverse: bool) -> Any:
    distances = [1 << i for i in range(LANES.bit_length() - 1)]
    if not inverse:
        distances.reverse()

    def factors(on: Lanes, table: Any, i: Any, distance: int) -> Any:
        """Twiddles of the block of 2 LANES words at word i, one for each pair at this distance."""
        at = on.b.lshr(i, _i64(distance.bit_length()))
        t = on.load(on.b.add(table, on.b.shl(at, _i64(3))), LANES // distance)
        return on.pick(t, t, [j // distance for j in range(LANES)])

    @intrinsic
    def lowest_layers(_typing: Any, row: Any, first: Any, count: Any, table: Any) -> Any:
        """All layers of distances below LANES on `count` words from word `first`, in registers."""

        def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
            row, first, count, table = arguments
            on = Lanes(b)
            natural = list(range(2 * LANES))
            with cgutils.for_range_slice(b, first, b.add(first, count), _i64(2 * LANES)) as (i, _):
                at = b.add(row, b.shl(i, _i64(3)))
                x, y, order = on.load(at), on.load(b.add(at, _i64(8 * LANES))), natural
                for d in distances:
                    wanted = [c for c in natural if not c & d] + [c for c in natural if c & d]
                    places = [order.index(c) for c in wanted]
                    x, y, order = on.pick(x, y, places[:LANES]), on.pick(x, y, places[LANES:]), wanted
                    x, y = on.butterfly(x, y, factors(on, table, i, d), inverse)
                places = [order.index(c) for c in natural]
                on.store(on.pick(x, y, places[:LANES]), at)
                on.store(on.pick(x, y, places[LANES:]), b.add(at, _i64(8 * LANES)))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), generate

    return lowest_layers


forward_butterflies, inverse_butterflies = _butterflies(False), _butterflies(True)
forward_lowest, inverse_lowest = _lowest_layers(False), _lowest_layers(True)


@intrinsic
def add(_typing: Any, to: Any, what: Any, count: Any) -> Any:
    """Add `count` words (a multiple of LANES) at one address to those at another, in ascending order."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        to, what, count = arguments
        on = Lanes(b)
        with _each(b, count, LANES) as (i, _):
            on.store(b.xor(on.load(b.add(to, i)), on.load(b.add(what, i))), b.add(to, i))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def sum_of_products(
    _typing: Any, out: Any, left: Any, right: Any, which: Any, columns: Any, stride: Any, count: Any
) -> Any:
    """out[e] = sum over j of left[j, e] right[which[j], e] for `count` words; `stride` bytes from row to row.

    Reduced once, after the sum.
    """

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        out, left, right, which, columns, stride, count = arguments
        on = Lanes(b)
        zero = ir.Constant(on.type, [ir.Constant(_I64, 0)] * LANES)
        even, odd = _slot(b, on.type), _slot(b, on.type)
        with _each(b, count, LANES) as (i, _):
            b.store(zero, even)
            b.store(zero, odd)
            with cgutils.for_range(b, columns) as loop:
                j = loop.index
                row = b.load(b.inttoptr(b.add(which, b.shl(j, _i64(3))), _I64.as_pointer()))
                x = on.load(b.add(b.add(left, b.mul(j, stride)), i))
                y = on.load(b.add(b.add(right, b.mul(row, stride)), i))
                more_even, more_odd = on.products(x, y)
                b.store(b.xor(b.load(even), more_even), even)
                b.store(b.xor(b.load(odd), more_odd), odd)
            on.store(on.reduced(b.load(even), b.load(odd)), b.add(out, i))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


@intrinsic
def transpose_4(_typing: Any, source: Any, source_pitch: Any, target: Any, target_pitch: Any) -> Any:
    """4 by 4 words; pitches in bytes."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        source, source_pitch, target, target_pitch = arguments
        on = Lanes(b, lanes=4)
        rows = [on.load(b.add(source, b.mul(source_pitch, _i64(i)))) for i in range(4)]
        even_a, even_b = (on.pick(x, y, [0, 4, 2, 6]) for x, y in (rows[:2], rows[2:]))
        odd_a, odd_b = (on.pick(x, y, [1, 5, 3, 7]) for x, y in (rows[:2], rows[2:]))
        for i, (x, y) in enumerate(((even_a, even_b), (odd_a, odd_b)) * 2):
            half = 2 * (i // 2)
            on.store(on.pick(x, y, [half, half + 1, half + 4, half + 5]), b.add(target, b.mul(target_pitch, _i64(i))))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


@intrinsic
def copy(_typing: Any, source: Any, target: Any) -> Any:
    """One vector of words from address to address."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        on = Lanes(b)
        on.store(on.load(arguments[0]), arguments[1])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate
