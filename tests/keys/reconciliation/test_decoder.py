"""The decoder's loops: against the definition, at the edges of 8 bits, and the two of them against one another."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmodd.keys.jit import COMPILED
from qmodd.keys.reconciliation import LADDER, backend, decode, portable, select_code, syndrome, warm_up
from qmodd.keys.reconciliation.codes import COLUMNS, FRAME_BITS, LIFT, BaseMatrix
from qmodd.keys.reconciliation.decoder import Workspace, checks, factors

vector_only = pytest.mark.skipif(not COMPILED, reason="the vector decoder needs numba")


def random_bits(rng, n):
    return rng.integers(0, 2, n).astype(np.uint8)


def noisy(rng, bits, qber):
    return bits ^ (rng.random(len(bits)) < qber).astype(np.uint8)


def small_code(rng, rows=6, columns=24, z=64):
    """A tiny quasi-cyclic code of column degree 3."""
    edges = sorted(
        (int(r), c, int(rng.integers(z))) for c in range(columns) for r in rng.choice(rows, 3, replace=False)
    )
    row, column, shift = np.array(edges, np.int64).T
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int64)
    return BaseMatrix(start, np.ascontiguousarray(column), np.ascontiguousarray(shift))


def run(loop, base, syndrome_bits, channel, ramp, offset, cap, most):
    """(iterations, posterior, messages) of one decoder; `channel` (columns, z)."""
    z = channel.shape[1]
    posterior = np.concatenate([channel, channel[:, :64]], axis=1)
    message = np.full((len(base.column), z), 77, np.int8)
    used = loop(
        base.start,
        base.column,
        base.shift,
        -syndrome_bits.astype(np.int8),
        posterior,
        message,
        np.empty((base.widest, z), np.int8),
        np.array(ramp, np.int64),
        offset,
        cap,
        most,
    )
    return used, posterior[:, :z].copy(), message


def defined(base, syndrome_bits, channel, ramp, offset, cap, most):
    """The arithmetic that `portable` states, check by check in Python's integers."""
    z = channel.shape[1]
    p = channel.astype(int)
    r = np.zeros((len(base.column), z), int)
    for iteration in range(most):
        factor = ramp[min(iteration, len(ramp) - 1)]
        for row in range(base.rows):
            edges = range(base.start[row], base.start[row + 1])
            for i in range(z):
                at = [(base.column[k], (i + base.shift[k]) % z) for k in edges]
                q = [max(-128, min(127, p[a] - r[k, i])) for a, k in zip(at, edges, strict=True)]
                first, second = sorted([abs(x) for x in q] + [127, 127])[:2]
                for a, k, x in zip(at, edges, q, strict=True):
                    size = second if abs(x) == first else first
                    size = min((max(size * factor - offset, 0) + 64) >> 7, cap)
                    odd = (sum(y < 0 for y in q) + (x < 0) + int(syndrome_bits[row, i])) % 2
                    r[k, i] = -size if odd else size
                    p[a] = max(-128, min(127, x + r[k, i]))
        if np.array_equal(sums(base, p < 0), syndrome_bits):
            return iteration + 1, p, r
    return -most, p, r


def sums(base, bits):
    """Syndrome by its definition."""
    z = bits.shape[1]
    out = np.zeros((base.rows, z), np.uint8)
    for row in range(base.rows):
        for k in range(base.start[row], base.start[row + 1]):
            out[row] ^= np.roll(bits[base.column[k]].astype(np.uint8), -base.shift[k])
    return out


@pytest.mark.parametrize(("channel", "cap", "offset"), [(9, 25, 3), (120, 127, 0), (127, 127, 40)])
def test_plain_loops_do_what_is_defined_even_when_they_saturate(channel, cap, offset):
    rng = np.random.default_rng(channel)
    base = small_code(rng)
    start = np.full((24, 64), channel, np.int8)
    start[rng.random(start.shape) < 0.05] = -128
    wanted = random_bits(rng, 6 * 64).reshape(6, 64)
    ours = run(portable.min_sum, base, wanted, start, [60, 128], offset, cap, 3)
    theirs = defined(base, wanted, start, [60, 128], offset, cap, 3)
    assert ours[0] == theirs[0]
    np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_array_equal(ours[2], theirs[2])
    assert abs(ours[1].astype(int)).max() > 100 or channel < 100


@vector_only
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    z=st.sampled_from([64, 128, 256, 320]),
    rows=st.integers(3, 9),
    columns=st.integers(3, 40),
    cap=st.integers(1, 127),
    offset=st.integers(0, 200),
    ramp=st.lists(st.integers(0, 255), min_size=1, max_size=5),
    most=st.integers(1, 12),
)
def test_vector_and_portable_decoder_give_the_same_bits_for_any_input(seed, z, rows, columns, cap, offset, ramp, most):
    rng = np.random.default_rng(seed)
    base = small_code(rng, rows, columns, z)
    wanted = random_bits(rng, rows * z).reshape(rows, z)
    start = rng.integers(-128, 128, (columns, z)).astype(np.int8)
    fast = run(backend.min_sum("vector"), base, wanted, start, ramp, offset, cap, most)
    plain = run(backend.min_sum("portable"), base, wanted, start, ramp, offset, cap, most)
    assert fast[0] == plain[0]
    np.testing.assert_array_equal(fast[1], plain[1])
    np.testing.assert_array_equal(fast[2], plain[2])


@vector_only
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), rung=st.integers(0, len(LADDER) - 1), load=st.floats(0.5, 1.15))
def test_whole_frames_come_out_the_same_of_both_decoders(seed, rung, load):
    rng = np.random.default_rng(seed)
    code = LADDER[rung]
    alice = random_bits(rng, FRAME_BITS)
    bob = noisy(rng, alice, load * code.sure_qber)
    known = rng.random(FRAME_BITS) < 0.1
    bob[known] = alice[known]
    results = [decode(code, bob, syndrome(code, alice), known=known, name=name) for name in backend.NAMES]
    assert results[0].ok == results[1].ok
    assert results[0].iterations == results[1].iterations
    np.testing.assert_array_equal(results[0].bits, results[1].bits)
    if results[0].ok:
        np.testing.assert_array_equal(results[0].bits, alice)


def test_the_decoder_is_chosen_by_machine_environment_and_argument(monkeypatch):
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    monkeypatch.setattr(backend.platform, "machine", lambda: "aarch64")
    assert backend.chosen() == "portable"
    monkeypatch.setattr(backend.platform, "machine", lambda: "x86_64")
    assert backend.chosen() == ("vector" if COMPILED else "portable")
    monkeypatch.setenv(backend.VARIABLE, "portable")
    assert backend.chosen() == "portable"
    assert backend.min_sum() is portable.min_sum
    assert backend.chosen("vector") == "vector"
    with pytest.raises(ValueError, match="no LDPC decoder 'fast'"):
        backend.chosen("fast")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), qber=st.floats(0.0, 0.095))
@example(seed=283, qber=0.046875)
def test_frames_of_any_qber_are_corrected_by_the_code_chosen_for_it_or_told_to_have_failed(seed, qber):
    rng = np.random.default_rng(seed)
    code = select_code(qber, hurry=True)
    alice = random_bits(rng, FRAME_BITS)
    bob = noisy(rng, alice, 0.93 * qber)
    result = decode(code, bob, syndrome(code, alice))
    # One frame in a hundred may need help at the QBER that the code was chosen for; one with clearly fewer errors none.
    assert result.ok or (alice != bob).mean() > 0.9 * qber
    np.testing.assert_array_equal(result.bits, alice if result.ok else bob)


@pytest.mark.parametrize("rung", [0, len(LADDER) // 2, len(LADDER) - 1])
def test_random_syndromes_are_not_decoded_into_nonsense(rung):
    code = LADDER[rung]
    rng = np.random.default_rng(2)
    bits = random_bits(rng, FRAME_BITS)
    result = decode(code, bits, random_bits(rng, code.syndrome_bits))
    assert not result.ok
    np.testing.assert_array_equal(result.bits, bits)


def test_syndrome_equals_the_definition():
    code = LADDER[4]
    rng = np.random.default_rng(1)
    bits = random_bits(rng, FRAME_BITS)
    np.testing.assert_array_equal(syndrome(code, bits), sums(code.base, bits.reshape(COLUMNS, LIFT)).reshape(-1))
    other = random_bits(rng, FRAME_BITS)
    np.testing.assert_array_equal(syndrome(code, bits ^ other), syndrome(code, bits) ^ syndrome(code, other))


def test_a_workspace_is_as_good_as_new_after_a_frame():
    rng = np.random.default_rng(3)
    code = LADDER[len(LADDER) // 2]
    work = Workspace(code.base)
    for qber in (0.5, 0.9 * code.sure_qber):
        alice = random_bits(rng, FRAME_BITS)
        bob = noisy(rng, alice, qber)
        used = decode(code, bob, syndrome(code, alice), workspace=work)
        fresh = decode(code, bob, syndrome(code, alice))
        assert (used.ok, used.iterations) == (fresh.ok, fresh.iterations)
    assert used.ok


def test_factors_and_sizes_fit_the_decoders_arithmetic():
    for code in LADDER:
        assert factors(code.schedule).max() <= 128
        assert factors(code.schedule).min() >= 0
        assert 1 <= code.schedule.channel <= 127
        assert 1 <= code.schedule.cap <= 127
        assert code.schedule.offset >= 0


def test_wrong_lengths_are_told():
    code = LADDER[0]
    with pytest.raises(ValueError, match="frame of 5"):
        checks(code.base, np.zeros(5, np.uint8))
    with pytest.raises(ValueError, match="syndrome of 3"):
        decode(code, np.zeros(FRAME_BITS, np.uint8), np.zeros(3, np.uint8))


def test_warming_up_leaves_nothing_to_compile():
    warm_up()
