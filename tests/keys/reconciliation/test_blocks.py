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
    disclose,
    disclosed_bits,
    syndromes,
    total_disclosed,
)
from qmodd.keys.reconciliation.codes import binary_entropy
from tests.keys.reconciliation.test_decoder import noisy, random_bits


def reconcile(plan, alice, bob):
    """The whole exchange; returns (corrector, rounds of help given, bits of all that Alice sent)."""
    corrector = Corrector(plan, bob)
    first = syndromes(plan, alice)
    assert len(first) * 8 == plan.syndrome_bits
    needs, helped, sent = corrector.correct(first), [], len(first) * 8
    while needs:
        for frame, round_ in needs:
            piece = disclose(plan, alice, frame, round_)
            assert len(piece) == -(-disclosed_bits(plan, frame, round_) // 8)
            sent += disclosed_bits(plan, frame, round_)
            corrector.assist(frame, round_, piece)
            helped.append((frame, round_))
        needs = corrector.needs()
    return corrector, helped, sent


@settings(max_examples=25, deadline=None)
@given(
    n=st.one_of(st.integers(1, 3 * FRAME_BITS), st.just(2 * FRAME_BITS)),
    qber=st.floats(0.001, 0.1),
    load=st.floats(0.3, 1.6),
    hurry=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_block_is_corrected_and_every_bit_that_alice_sends_is_counted(n, qber, load, hurry, seed):
    rng = np.random.default_rng(seed)
    alice = random_bits(rng, n)
    bob = noisy(rng, alice, load * qber)
    before = bob.copy()
    plan = Plan.make(n, qber, hurry=hurry)
    corrector, helped, sent = reconcile(plan, alice, bob)
    np.testing.assert_array_equal(corrector.bits, alice)
    np.testing.assert_array_equal(bob, before)
    assert total_disclosed(plan, helped) == sent
    assert corrector.failed_first == len({frame for frame, _ in helped})


@settings(deadline=None)
@given(n=st.integers(1, 10 * FRAME_BITS))
def test_frames_share_the_block_evenly_and_leave_nothing_out(n):
    plan = Plan.make(n, 0.01)
    lengths = [plan.frame_length(f) for f in range(plan.frames)]
    assert sum(lengths) == n
    assert max(lengths) <= FRAME_BITS
    assert max(lengths) - min(lengths) <= 1
    assert [plan.frame_begin(f) for f in range(plan.frames)] == [sum(lengths[:f]) for f in range(plan.frames)]


def test_a_shorter_frame_gets_a_code_for_what_is_left_of_its_entropy():
    whole, half = Plan.make(FRAME_BITS, 0.04), Plan.make(FRAME_BITS // 2, 0.04)
    assert 0.5 * whole.code.rows <= half.code.rows <= 0.56 * whole.code.rows
    rng = np.random.default_rng(3)
    alice = random_bits(rng, FRAME_BITS // 2)
    _, _, sent = reconcile(half, alice, noisy(rng, alice, 0.038))
    assert sent < 1.35 * len(alice) * binary_entropy(0.038)


def test_a_hopeless_frame_is_helped_to_the_end_and_disclosed_whole():
    rng = np.random.default_rng(7)
    n = 2 * FRAME_BITS
    plan = Plan.make(n, 0.005)
    alice = random_bits(rng, n)
    bob = np.concatenate([noisy(rng, alice[:FRAME_BITS], 0.3), noisy(rng, alice[FRAME_BITS:], 0.003)])
    corrector, helped, _ = reconcile(plan, alice, bob)
    assert helped == [(0, round_) for round_ in range(1, LAST_ROUND + 1)]
    np.testing.assert_array_equal(corrector.bits, alice)
    assert corrector.failed_first == 1
    # More syndrome doubles the rows; then the frame itself.
    assert total_disclosed(plan, helped) == 3 * plan.code.syndrome_bits + FRAME_BITS


def test_a_slightly_too_noisy_frame_needs_little_help():
    rng = np.random.default_rng(8)
    helped_frames, given_bits = 0, 0
    plan = Plan.make(FRAME_BITS, 0.02)
    for _ in range(10):
        alice = random_bits(rng, FRAME_BITS)
        _, helped, _ = reconcile(plan, alice, noisy(rng, alice, 1.06 * plan.code.thrifty_qber))
        helped_frames += bool(helped)
        given_bits += sum(disclosed_bits(plan, *h) for h in helped)
        assert len(helped) < LAST_ROUND - 1
    assert helped_frames >= 3
    assert given_bits < 10 * 0.25 * plan.code.syndrome_bits


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
    with pytest.raises(ValueError, match="bytes for"):
        corrector.assist(0, 1, b"1")
    for round_ in range(1, LAST_ROUND):
        assert not corrector.assist(0, round_, disclose(plan, alice, 0, round_))
    lie = alice ^ (np.arange(FRAME_BITS) == 1).astype(np.uint8)
    with pytest.raises(ValueError, match="contradicts"):
        corrector.assist(0, LAST_ROUND, disclose(plan, lie, 0, LAST_ROUND))


def test_plans_are_checked():
    with pytest.raises(ValueError, match="block of 0"):
        Plan.make(0, 0.01)
    with pytest.raises(ValueError, match="block of 0"):
        Plan.make_for_rung(0, 1)
    with pytest.raises(ValueError, match="QBER"):
        Plan.make(10, 0.6)
    with pytest.raises(ValueError, match="no rung 999"):
        Plan.make_for_rung(10, 999)
    assert Plan.make_for_rung(10, 2).code is LADDER[2]
    plan = Plan.make(10, 0.01)
    with pytest.raises(ValueError, match="planned 10"):
        syndromes(plan, np.zeros(11, np.uint8))
    with pytest.raises(ValueError, match="planned 10"):
        Corrector(plan, np.zeros(9, np.uint8))
    with pytest.raises(ValueError, match="no frame 1"):
        disclosed_bits(plan, 1, 1)
    for round_ in (0, LAST_ROUND + 1):
        with pytest.raises(ValueError, match="no round"):
            disclosed_bits(plan, 0, round_)
