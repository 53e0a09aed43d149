import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys.reconciliation import (
    FRAME_BITS,
    LADDER,
    LAST_ROUND,
    Corrector,
    Plan,
    decode,
    decoder,
    disclose,
    disclosed_bits,
    kernels,
    select_code,
    syndrome,
    syndromes,
    total_disclosed,
)
from qmodd.keys.reconciliation.codes import COLUMNS, LIFT, build


def random_bits(rng, n):
    return rng.integers(0, 2, n).astype(np.uint8)


def noisy(rng, bits, qber):
    return bits ^ (rng.random(len(bits)) < qber).astype(np.uint8)


def reconcile(plan, alice, bob):
    """The whole exchange; returns (corrector, rounds of help given)."""
    corrector = Corrector(plan, bob)
    needs = corrector.correct(syndromes(plan, alice))
    helped = []
    while needs:
        for frame, round_ in needs:
            corrector.assist(frame, round_, disclose(plan, alice, frame, round_))
            helped.append((frame, round_))
        needs = corrector.needs()
    return corrector, helped


@pytest.mark.parametrize("rung", range(0, len(LADDER), 6))
def test_every_sixth_code_corrects_below_its_design_qber_and_is_well_built(rung):
    code = LADDER[rung]
    base = code.base
    assert len(base.column) == code.edges == base.start[-1]
    assert np.bincount(base.column, minlength=COLUMNS).min() >= 2
    for layer in range(code.rows):
        columns = base.column[base.start[layer] : base.start[layer + 1]]
        assert len(set(columns)) == len(columns)
    rng = np.random.default_rng(rung)
    alice = random_bits(rng, FRAME_BITS)
    qber = 0.9 * code.design_qber
    for _ in range(2):
        result = decode(code, noisy(rng, alice, qber), syndrome(code, alice), qber)
        assert result.ok
        np.testing.assert_array_equal(result.bits, alice)
        assert 0 < result.iterations < 60


@pytest.mark.parametrize(("rung", "most"), [(3, 0.05), (12, 0.0), (20, 0.0), (37, 0.0)])
def test_codes_have_few_or_no_four_cycles(rung, most):
    base = LADDER[rung].base
    layers = np.searchsorted(base.start, np.arange(len(base.column)), side="right") - 1
    seen, repeated, pairs = set(), 0, 0
    for c in range(COLUMNS):
        edges = np.flatnonzero(base.column == c)
        for i in edges:
            for j in edges:
                if layers[i] < layers[j]:
                    key = (layers[i], layers[j], (base.shift[i] - base.shift[j]) % LIFT)
                    pairs += 1
                    repeated += key in seen
                    seen.add(key)
    assert repeated <= most * pairs


def test_sums_of_messages_fit_16_bits():
    for code in LADDER:
        largest = decoder._KNOWN + max(d for d, _ in code.degrees) * code.schedule.cap * decoder._CHANNEL
        assert largest < kernels._FAR < 2**15
        assert sum(n for _, n in code.degrees) == COLUMNS


def test_the_construction_never_changes():
    # Both modules must build the same code from the same table, whatever their libraries' versions.
    base = LADDER[10].base
    text = ",".join(str(v) for v in (*base.start, *base.column, *base.shift))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "5500cb9208f424df"
    with pytest.raises(ValueError, match="do not fit"):
        build(8, ((3, 255),), 1)


def test_efficiency_of_the_ladder():
    worst = {0.005: 1.55, 0.01: 1.42, 0.015: 1.33, 0.02: 1.30, 0.03: 1.27, 0.05: 1.24}
    for upto, f in worst.items():
        for qber in np.linspace(upto - 0.0015, upto, 7):
            assert select_code(float(qber)).efficiency(float(qber)) < f, qber
    assert [c.design_qber for c in LADDER] == sorted(c.design_qber for c in LADDER)
    assert select_code(0.2) is LADDER[-1]
    with pytest.raises(ValueError, match="QBER"):
        select_code(0.5)


def test_syndrome_equals_the_definition():
    code = LADDER[4]
    rng = np.random.default_rng(1)
    bits = random_bits(rng, FRAME_BITS)
    s = syndrome(code, bits).reshape(code.rows, LIFT)
    base, shaped = code.base, bits.reshape(COLUMNS, LIFT)
    for layer in (0, 5, code.rows - 1):
        edges = range(base.start[layer], base.start[layer + 1])
        for i in (0, 100, 255):
            assert s[layer, i] == sum(int(shaped[base.column[k], (i + base.shift[k]) % LIFT]) for k in edges) % 2
    other = random_bits(rng, FRAME_BITS)
    np.testing.assert_array_equal(syndrome(code, bits ^ other), syndrome(code, bits) ^ syndrome(code, other))


def test_random_syndromes_are_not_decoded_into_nonsense():
    code = LADDER[16]
    rng = np.random.default_rng(2)
    bits = random_bits(rng, FRAME_BITS)
    result = decode(code, bits, random_bits(rng, code.syndrome_bits), 0.009)
    assert not result.ok
    np.testing.assert_array_equal(result.bits, bits)


def test_wrong_lengths_are_told():
    code = LADDER[0]
    with pytest.raises(ValueError, match="frame of 5"):
        syndrome(code, np.zeros(5, np.uint8))
    with pytest.raises(ValueError, match="syndrome of 3"):
        decode(code, np.zeros(FRAME_BITS, np.uint8), np.zeros(3, np.uint8), 0.01)


@pytest.mark.parametrize("n", [1, 777, FRAME_BITS, 2 * FRAME_BITS + 9001])
def test_blocks_of_any_length(n):
    rng = np.random.default_rng(n)
    alice = random_bits(rng, n)
    bob = noisy(rng, alice, 0.007)
    plan = Plan.make(n, 0.0085)
    corrector, helped = reconcile(plan, alice, bob)
    np.testing.assert_array_equal(corrector.bits, alice)
    assert plan.frames == -(-n // FRAME_BITS)
    assert total_disclosed(plan, helped) == plan.frames * plan.code.syndrome_bits + sum(
        disclosed_bits(plan, *h) for h in helped
    )
    assert corrector.failed_first <= len(helped)


def test_frames_that_fail_are_helped_to_the_end_and_every_bit_is_counted():
    rng = np.random.default_rng(7)
    n = FRAME_BITS + 5000
    plan = Plan.make(n, 0.005)
    alice = random_bits(rng, n)
    bob = alice.copy()
    bob[:FRAME_BITS] = noisy(rng, alice[:FRAME_BITS], 0.05)  # hopeless until the frame is public
    bob[FRAME_BITS:] = noisy(rng, alice[FRAME_BITS:], 0.004)
    corrector, helped = reconcile(plan, alice, bob)
    assert helped == [(0, 1), (0, 2), (0, 3)]
    np.testing.assert_array_equal(corrector.bits, alice)
    assert corrector.failed_first == 1
    assert total_disclosed(plan, helped) == plan.syndrome_bits + FRAME_BITS
    assert [disclosed_bits(plan, 0, r) for r in (1, 2, 3)] == [4096, 12288, 49152]


def test_a_slightly_too_noisy_frame_needs_only_the_first_rounds():
    rng = np.random.default_rng(8)
    plan = Plan.make(FRAME_BITS, 0.005)
    alice = random_bits(rng, FRAME_BITS)
    _, helped = reconcile(plan, alice, noisy(rng, alice, 1.25 * plan.code.design_qber))
    assert 1 <= len(helped) < LAST_ROUND


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2 * FRAME_BITS))
def test_rounds_disclose_every_bit_of_a_frame_once(n):
    plan = Plan.make(n, 0.01)
    for frame in range(plan.frames):
        assert sum(disclosed_bits(plan, frame, r) for r in (1, 2, 3)) == plan.frame_length(frame)


def test_help_out_of_turn_or_contradicting_is_refused():
    rng = np.random.default_rng(9)
    plan = Plan.make_for_rung(FRAME_BITS, 3)
    alice = random_bits(rng, FRAME_BITS)
    corrector = Corrector(plan, noisy(rng, alice, 0.2))
    with pytest.raises(ValueError, match="not corrected"):
        _ = corrector.bits
    with pytest.raises(ValueError, match="bytes for"):
        corrector.correct(b"12")
    assert corrector.correct(syndromes(plan, alice)) == ((0, 1),)
    with pytest.raises(ValueError, match="not asked"):
        corrector.assist(0, 2, disclose(plan, alice, 0, 2))
    for round_ in (1, 2):
        assert not corrector.assist(0, round_, disclose(plan, alice, 0, round_))
    lie = alice ^ (np.arange(FRAME_BITS) == 1).astype(np.uint8)
    with pytest.raises(ValueError, match="contradicts"):
        corrector.assist(0, 3, disclose(plan, lie, 0, 3))


def test_plans_are_checked():
    with pytest.raises(ValueError, match="block of 0"):
        Plan.make(0, 0.01)
    with pytest.raises(ValueError, match="no rung 99"):
        Plan.make_for_rung(10, 99)
    plan = Plan.make(10, 0.01)
    with pytest.raises(ValueError, match="planned 10"):
        syndromes(plan, np.zeros(11, np.uint8))
    with pytest.raises(ValueError, match="no frame 1"):
        disclosed_bits(plan, 1, 1)
    with pytest.raises(ValueError, match="no round 4"):
        disclosed_bits(plan, 0, 4)


def small_code(rng, rows=6, columns=24, z=16):
    """A tiny quasi-cyclic code of column degree 3 for kernels that run uncompiled."""
    edges = sorted(
        (int(r), c, int(rng.integers(z))) for c in range(columns) for r in rng.choice(rows, 3, replace=False)
    )
    row, column, shift = np.array(edges, np.int64).T
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int64)
    return start, np.ascontiguousarray(column), np.ascontiguousarray(shift), (rows, columns, z)


def test_compiled_and_uncompiled_decoders_agree(monkeypatch):
    rng = np.random.default_rng(4)
    start, column, shift, (rows, columns, z) = small_code(rng)
    compiled = {
        name: getattr(kernels, name)
        for name in (
            "syndrome_of",
            "_collect",
            "_scale",
            "_distribute",
            "_copy",
            "_any_negative",
            "_update_row",
            "_satisfied",
            "min_sum",
        )
    }

    def solve(errors, most):
        s = np.empty((rows, z), np.uint8)
        kernels.syndrome_of(start, column, shift, errors, s)
        posterior = np.full((columns, 2 * z), 128, np.int16)
        used = kernels.min_sum(
            start,
            column,
            shift,
            posterior,
            -s.astype(np.int16),
            np.zeros((len(column), z), np.int16),
            np.empty((20, z), np.int16),
            np.empty((5, z), np.int16),
            np.array([400, 600, 800]),
            400,
            most,
        )
        return used, posterior.copy()

    for weight, most in ((3, 20), (12, 3)):
        errors = np.zeros((columns, z), np.uint8)
        errors.reshape(-1)[rng.choice(columns * z, weight, replace=False)] = 1
        for name, function in compiled.items():
            monkeypatch.setattr(kernels, name, function)
        fast = solve(errors, most)
        for name, function in compiled.items():
            monkeypatch.setattr(kernels, name, function.py_func)
        slow = solve(errors, most)
        assert fast[0] == slow[0]
        np.testing.assert_array_equal(fast[1], slow[1])
        if weight == 3:
            assert fast[0] > 0
            np.testing.assert_array_equal((slow[1][:, :z] < 0).astype(np.uint8), errors)
