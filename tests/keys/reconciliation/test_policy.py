from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.keys.reconciliation import ExpectedQber, Mode, ModePolicy, Plan, Setting
from qmodd.keys.reconciliation.long import USUAL_BITS

LONG = Plan.make(USUAL_BITS, 0.02, Mode.EFFICIENCY)
SHORT = Plan.make(USUAL_BITS, 0.02)


def after(policy, sifted_bps, seconds):
    """The mode of the next block after one that was sifted and corrected so fast."""
    policy.saw_sifted(USUAL_BITS, USUAL_BITS / sifted_bps)
    policy.saw_corrected(LONG if policy.mode is Mode.EFFICIENCY else SHORT, seconds)
    return policy.choose(True)


def test_auto_tries_efficiency_as_soon_as_the_qber_is_known():
    policy = ModePolicy()
    assert policy.choose(False) is Mode.THROUGHPUT
    assert policy.choose(True) is Mode.EFFICIENCY


@pytest.mark.parametrize("setting", [Setting.THROUGHPUT, Setting.EFFICIENCY])
def test_a_setting_is_kept_whatever_the_rates(setting):
    policy = ModePolicy(setting)
    wanted = Mode.EFFICIENCY if setting is Setting.EFFICIENCY else Mode.THROUGHPUT
    assert policy.choose(True) is wanted
    assert [after(policy, 1e9, 10.0) for _ in range(5)] == [wanted] * 5
    assert [after(policy, 1e3, 0.1) for _ in range(5)] == [wanted] * 5
    # Whether a long frame fits a QBER that is only guessed is nobody's wish.
    assert policy.choose(False) is Mode.THROUGHPUT


def test_auto_gives_up_when_decoding_falls_behind_and_comes_back_without_flutter():
    policy = ModePolicy()
    policy.choose(True)
    modes = [after(policy, 10e6, USUAL_BITS / 20e6) for _ in range(50)]
    assert set(modes) == {Mode.EFFICIENCY}
    modes = [after(policy, 30e6, USUAL_BITS / (20e6 if policy.mode is Mode.EFFICIENCY else 90e6)) for _ in range(200)]
    # Tried again now and then; most blocks are corrected in the mode that keeps up.
    assert modes.count(Mode.THROUGHPUT) > 150
    assert sum(a is not b for a, b in pairwise(modes)) < 16
    modes = [after(policy, 2e6, USUAL_BITS / (20e6 if policy.mode is Mode.EFFICIENCY else 90e6)) for _ in range(40)]
    assert set(modes[-20:]) == {Mode.EFFICIENCY}


def test_back_pressure_that_slows_sifting_to_the_decoders_rate_is_seen():
    policy = ModePolicy()
    policy.choose(True)
    assert Mode.THROUGHPUT in [after(policy, 20e6, USUAL_BITS / 20e6) for _ in range(10)]


def test_no_time_says_nothing():
    policy = ModePolicy()
    policy.saw_sifted(1000, 0.0)
    policy.saw_corrected(LONG, 0.0)
    assert (policy.sifted, policy.corrected) == (None, None)


@given(qber=st.floats(0.002, 0.09), seed=st.integers(0, 2**32))
def test_a_steady_qber_is_expected_more_exactly_than_one_block_tells_it(qber, seed):
    rng, expected = np.random.default_rng(seed), ExpectedQber()
    values = []
    for block in range(300):
        expected.learn(float(rng.binomial(USUAL_BITS, qber)) / USUAL_BITS, USUAL_BITS)
        if block > 20:
            values.append(expected.value)
    deviation = (qber / USUAL_BITS) ** 0.5
    assert abs(np.mean(values) - qber) < 0.9 * deviation
    assert np.sqrt(np.mean((np.array(values) - qber) ** 2)) < 1.1 * deviation


def test_a_jump_is_followed_at_once_and_a_drift_gets_a_margin():
    expected = ExpectedQber()
    assert expected.value is None
    for qber in (0.02, 0.02, 0.03):
        expected.learn(qber, USUAL_BITS)
    assert expected.mean == 0.03
    short = []
    for block in range(40):
        qber = 0.03 * 1.004**block
        if block > 10:
            short.append(qber - expected.value)
        expected.learn(qber, USUAL_BITS)
    # 0.4 % a block, half a standard deviation: never expected much too low, nor far too high.
    assert max(short) < 0.00018
    assert min(short) > -0.0006


def test_a_block_without_errors_is_expected_to_have_none():
    expected = ExpectedQber()
    for _ in range(3):
        expected.learn(0.0, 100_000)
    assert expected.value == 0.0
