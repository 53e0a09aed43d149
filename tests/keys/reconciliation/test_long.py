"""Codes of a million bits: how they are cut, chosen and helped; their reach is measured by the benchmark."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys.jit import COMPILED
from qmodd.keys.reconciliation import Mode, Plan, backend, decode, select_code, syndrome
from qmodd.keys.reconciliation import long as long_codes
from qmodd.keys.reconciliation.codes import binary_entropy
from qmodd.keys.reconciliation.decoder import factors
from qmodd.keys.reconciliation.long import (
    LEAST_BITS,
    LEAST_QBER,
    LIFT,
    MOST_QBER,
    USUAL_BITS,
    long_code,
    make_long_code,
)
from qmodd.keys.reconciliation.reach import FAMILIES, FOUND_AT, REACH
from tests.keys.reconciliation.test_blocks import reconcile
from tests.keys.reconciliation.test_decoder import noisy, random_bits

QBERS = st.floats(LEAST_QBER, MOST_QBER)


@settings(deadline=None)
@given(n=st.integers(LEAST_BITS, 20_000_000), qber=QBERS)
def test_frames_hold_the_block_and_hardly_more_and_are_as_long_as_usual(n, qber):
    plan = Plan.make(n, qber, Mode.EFFICIENCY)
    assert plan.mode is Mode.EFFICIENCY
    lengths = [plan.frame_length(f) for f in range(plan.frames)]
    assert sum(lengths) == n
    assert max(lengths) <= plan.code.frame_bits < max(lengths) + LIFT
    assert plan.frames == 1 or min(lengths) >= USUAL_BITS
    assert sum(c for _, c in plan.code.degrees) == plan.code.columns


@settings(deadline=None)
@given(n=st.integers(1, 3_000_000), qber=st.floats(0.0, 0.2))
def test_what_long_codes_are_not_made_for_is_left_to_the_ladder(n, qber):
    plan = Plan.make(n, qber, Mode.EFFICIENCY)
    covered = n >= LEAST_BITS and LEAST_QBER <= qber <= MOST_QBER
    assert (plan.mode is Mode.EFFICIENCY) == covered
    if not covered:
        assert plan == Plan.make(n, qber)
        with pytest.raises(ValueError, match="no long code"):
            long_code(n, qber)


@settings(deadline=None)
@given(low=QBERS, high=QBERS)
def test_more_errors_ask_for_more_rows_and_always_for_fewer_than_short_frames(low, high):
    low, high = sorted((low, high))
    # Behind a change of family a code may get by with a few rows less.
    assert long_code(USUAL_BITS, low).rows <= 1.03 * long_code(USUAL_BITS, high).rows
    for qber in (low, high):
        long = long_code(USUAL_BITS, qber)
        assert 1.03 < long.efficiency(qber) < 1.45
        assert long.rows / long.columns < select_code(qber).rows / 256 + 0.004


def test_tables_are_in_order_and_fit_the_decoders_arithmetic():
    assert [q for q, _, _ in REACH] == sorted({q for q, _, _ in REACH})
    assert {family for _, _, family in REACH} <= set(range(len(FAMILIES)))
    assert len(FOUND_AT) == len(FAMILIES)
    for q, f, family in REACH:
        assert long_codes.needed(q) == (f, family)
        schedule = long_code(USUAL_BITS, q).schedule
        ramp = factors(schedule)
        assert 0 <= ramp.min() <= ramp.max() <= 144
        assert 1 <= schedule.channel <= 127
        assert 1 <= schedule.cap <= 127


def test_digests_tell_lengths_and_rates_apart():
    plans = [Plan.make(n, q, Mode.EFFICIENCY) for n in (USUAL_BITS, USUAL_BITS + LIFT) for q in (0.02, 0.03)]
    assert len({p.code.digest for p in plans}) == 4
    assert Plan.make(USUAL_BITS, 0.02, Mode.EFFICIENCY).code.digest == plans[0].code.digest


@pytest.mark.skipif(not COMPILED, reason="too slow without numba")
@pytest.mark.parametrize(("qber", "load"), [(0.02, 0.97), (0.05, 1.05)])
def test_a_block_of_one_long_frame_is_corrected_and_every_bit_is_counted(qber, load):
    rng = np.random.default_rng(4)
    n = USUAL_BITS - 1234
    alice = random_bits(rng, n)
    plan = Plan.make(n, qber, Mode.EFFICIENCY)
    assert plan.frames == 1
    corrector, helped, sent = reconcile(plan, alice, noisy(rng, alice, load * qber))
    np.testing.assert_array_equal(corrector.bits, alice)
    assert bool(helped) == (load > 1.0)
    assert sent < 1.25 * n * binary_entropy(qber)


@pytest.mark.skipif(not COMPILED, reason="the vector decoder needs numba")
def test_long_frames_come_out_the_same_of_both_decoders():
    rng = np.random.default_rng(6)
    code = long_code(LEAST_BITS, 0.05)
    alice = random_bits(rng, code.frame_bits)
    known = np.zeros(code.frame_bits, np.bool_)
    known[7::1001] = True
    bob = noisy(rng, alice, 0.049)
    bob[known] = alice[known]
    results = [decode(code, bob, syndrome(code, alice), known=known, name=name) for name in backend.NAMES]
    assert results[0].ok
    assert results[0].iterations == results[1].iterations
    np.testing.assert_array_equal(results[0].bits, results[1].bits)
    np.testing.assert_array_equal(results[0].bits, alice)


@pytest.mark.skipif(not COMPILED, reason="too slow without numba")
def test_neighbours_in_the_chain_that_are_wrong_together_are_turned_by_decoding_anew():
    # Six wrong bits along the degree-2 columns, with 4 % of errors elsewhere.
    code = make_long_code(1024, 330, 4)
    base, rng = code.base, np.random.default_rng(5)
    layer = np.repeat(np.arange(base.rows), np.diff(base.start))
    wrong, at = [40 * LIFT + 7], 7
    for column in range(40, 45):
        here, there = (base.shift[(layer == column + 1) & (base.column == c)][0] for c in (column, column + 1))
        at = (at - here + there) % LIFT
        wrong.append((column + 1) * LIFT + at)
    alice = (rng.random(code.frame_bits) < 0.04).astype(np.uint8)
    alice[wrong] = 1
    bob = np.zeros(code.frame_bits, np.uint8)
    once = replace(code, schedule=replace(code.schedule, again=0))
    assert not decode(once, bob, syndrome(code, alice)).ok
    result = decode(code, bob, syndrome(code, alice))
    assert result.ok
    np.testing.assert_array_equal(result.bits, alice)
