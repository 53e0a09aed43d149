"""The two transforms against the definition, against each other, and on the instructions of other processors."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys.toeplitz import field, portable
from qmodd.keys.toeplitz.rows import scratch_row

numba = pytest.importorskip("numba")
from llvmlite import binding, ir  # noqa: E402

from qmodd.keys.toeplitz import lanes, vector  # noqa: E402

HERE = [portable, vector] if vector.KIND else [portable]
by_both = pytest.mark.parametrize("transform", HERE, ids=lambda m: m.__name__.rsplit(".", 1)[-1])
needs_vector = pytest.mark.skipif(vector.KIND is None, reason="no carry-less multiplication here")
elements = st.integers(0, 2**64 - 1)


def row_of(rng, k):
    row = scratch_row(k)[: 1 << k]
    row[:] = rng.integers(0, 1 << 64, 1 << k, np.uint64)
    return row


def value_at(coefficients, x):
    """Horner."""
    total = 0
    for c in coefficients[::-1]:
        total = field.multiply(total, x) ^ int(c)
    return total


@by_both
def test_values_are_the_polynomials(transform):
    k = 8
    row = row_of(np.random.default_rng(1), k)
    coefficients = row.copy()
    transform.forward(row, scratch_row(k), field.twiddles(k), k)
    basis = field.cantor_basis(16)
    for e in (0, 1, 2, 5, 128, 200, 255):
        point = 0
        for i in range(k):
            point ^= basis[i] if e >> i & 1 else 0
        assert int(row[e]) == value_at(coefficients, point)


@by_both
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 4))
def test_products_add_up(transform, seed, rows, columns):
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, 1 << 64, (2, columns, 16), np.uint64)
    which = rng.integers(0, columns, (rows, columns))
    out = np.empty((rows, 16), np.uint64)
    transform.multiply(out, left, right, which)
    for i in range(rows):
        for e in (0, 7, 15):
            total = 0
            for j in range(columns):
                total ^= field.multiply(int(left[j, e]), int(right[which[i, j], e]))
            assert int(out[i, e]) == total


@needs_vector
@pytest.mark.parametrize("k", [8, 16])
def test_both_give_the_same_values_and_come_back(k):
    row = row_of(np.random.default_rng(k), k)
    other, before, scratch, table = row.copy(), row.copy(), scratch_row(k), field.twiddles(k)
    vector.forward(row, scratch, table, k)
    portable.forward(other, scratch, table, k)
    np.testing.assert_array_equal(row, other)
    vector.inverse(row, scratch, table, k)
    portable.inverse(other, scratch, table, k)
    np.testing.assert_array_equal(row, before)
    np.testing.assert_array_equal(other, before)


def test_loops_and_their_uncompiled_selves_agree(monkeypatch):
    k, table = 4, field.twiddles(4)
    row = np.random.default_rng(3).integers(0, 1 << 62, 16, np.uint64)
    compiled = row.copy()
    portable.forward(compiled, row, table, k)
    with np.errstate(over="ignore"):
        for name in ("add_product", "taylor", "convert"):
            python = getattr(getattr(portable, name), "py_func")  # noqa: B009
            monkeypatch.setattr(portable, name, python)
        plain = row.copy()
        portable.forward.py_func(plain, row, table, k)
        np.testing.assert_array_equal(plain, compiled)
        portable.inverse.py_func(plain, row, table, k)
    np.testing.assert_array_equal(plain, row)


def multiplier(kind, width):
    """A compiled product of `width` elements by the instructions `kind`."""

    @lanes.intrinsic
    def times(_typing, x, y, out):
        def generate(context, b, _signature, arguments):
            on = lanes.Lanes(b, kind, width)
            on.store(on.times(on.load(arguments[0]), on.load(arguments[1])), arguments[2])
            return context.get_dummy_value()

        i64 = numba.types.int64
        return numba.types.void(i64, i64, i64), generate

    @numba.njit
    def product(x, y, out):
        times(lanes.address(x), lanes.address(y), lanes.address(out))

    return product


def kinds_here():
    order = ["pclmul", "vpclmul256", "vpclmul512"]
    return order[: order.index(vector.KIND) + 1] if vector.KIND in order else [k for k in [vector.KIND] if k]


@pytest.mark.parametrize("kind", kinds_here())
def test_every_instruction_of_this_processor_multiplies(kind):
    width = 8 if kind == "vpclmul512" else 4
    product, rng = multiplier(kind, width), np.random.default_rng(5)
    special = np.array([0, 1, 1 << 63, (1 << 64) - 1], np.uint64)
    for _ in range(20):
        x, y = np.concatenate([rng.integers(0, 1 << 64, (2, width - 2), np.uint64), rng.choice(special, (2, 2))], 1)
        out = np.empty(width, np.uint64)
        product(x, y, out)
        assert out.tolist() == [field.multiply(int(a), int(b)) for a, b in zip(x, y, strict=True)]


def test_aarch64_gets_its_own_multiplication():
    """Compiled only: there is no such processor here."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = "aarch64-unknown-linux-gnu"
    i64 = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64] * 3), "times")
    b = ir.IRBuilder(function.append_basic_block())
    on = lanes.Lanes(b, "pmull", 4)
    on.store(on.times(on.load(function.args[0]), on.load(function.args[1])), function.args[2])
    b.ret_void()
    machine = binding.Target.from_triple(module.triple).create_target_machine(features="+neon,+aes")
    code = machine.emit_assembly(binding.parse_assembly(str(module)))
    assert code.count("pmull") == 4


OLDER = """
import numba
import numpy as np
from llvmlite import binding
numba.njit(lambda: 1)()  # numba has asked what the processor can do; from here on the package is told of less
binding.get_host_cpu_features = lambda: {"pclmul": True, "ssse3": True}
from qmodd.keys import amplification
from qmodd.keys.toeplitz import backend, vector
assert vector.KIND == "pclmul", vector.KIND
assert backend._fitting() == "vector"
rng = np.random.default_rng(0)
for n, m in ((3000, 1000), (300_000, 100_001)):
    bits, seed = rng.integers(0, 2, n).astype(np.uint8), rng.bytes(amplification.seed_bytes(n, m))
    same = amplification.amplify(bits, seed, m) == amplification.amplify(bits, seed, m, by="floating")
    assert same.all()
"""


@pytest.mark.skipif("pclmul" not in kinds_here(), reason="not an x86-64 with PCLMULQDQ")
def test_the_whole_transform_on_an_older_processor(tmp_path):
    """Half as many lanes. In a process of its own with a cache of its own, because compiled code is kept."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", OLDER], env=environment, check=True, timeout=120)


def test_numba_told_to_compile_for_less_is_obeyed(monkeypatch):
    monkeypatch.setattr(lanes._config, "CPU_NAME", "generic")
    assert lanes.instructions() is None
