from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import FixedLength, Proof, key_length

COUNTS = BlockCounts((745_000, 252_182), (5290, 1790), (35_000, 11_837), (508, 172))


def observed(proof=Proof.WIESEMANN2024, counts=COUNTS, leak=75_967):
    return key_length(proof, counts, (0.54, 0.18), (0.5, 0.5), 1e-9, 1e-15, leak)


@pytest.mark.parametrize("proof", [Proof.WIESEMANN2024, Proof.RUSCA2018])
def test_without_margin_the_agreed_length_is_the_expected_one(proof):
    expected = observed(proof)
    agreed = FixedLength.of(expected, proof, 1e-9, 1e-15, 0.0)
    assert agreed.length_bits == expected.length_bits
    got = agreed.decide(expected)
    assert got.length_bits == expected.length_bits
    assert got.theorem.endswith("fixed before the block")
    assert "2408.17349" not in got.theorem


@given(st.floats(0.001, 0.1))
def test_a_margin_costs_key_and_a_better_block_gets_no_more(margin):
    agreed = FixedLength.of(observed(), Proof.WIESEMANN2024, 1e-9, 1e-15, margin)
    assert agreed.length_bits < observed().length_bits
    better = observed(counts=replace(COUNTS, m_x=(100, 30)), leak=60_000)
    assert better.length_bits > observed().length_bits
    assert agreed.decide(better).length_bits == agreed.length_bits


@pytest.mark.parametrize(
    ("block", "name"),
    [
        (observed(leak=90_000), "leak_bits"),
        (observed(counts=replace(COUNTS, m_x=(900, 300))), "phi_z"),
        (observed(counts=BlockCounts((845_000, 152_182), (5290, 1790), (35_000, 11_837), (508, 172))), "s_z1"),
    ],
)
def test_one_threshold_missed_is_no_key(block, name):
    agreed = FixedLength.of(observed(), Proof.WIESEMANN2024, 1e-9, 1e-15, 0.01)
    got = agreed.decide(block)
    assert got.length_bits == 0
    assert got.why_zero is not None
    assert f"acceptance test: {name}" in got.why_zero


def test_what_cannot_be_agreed_on_is_refused():
    for change, text in (
        ({"phi_z": 0.5}, "phi_z"),
        ({"s_z1": 0.0}, "s_z1"),
        ({"leak_bits": -1}, "leak"),
        ({"eps_cor": 0.0}, "eps_cor"),
        ({"s_z1": float("nan")}, "s_z1"),
    ):
        fine = FixedLength.of(observed(), Proof.WIESEMANN2024, 1e-9, 1e-15, 0.01)
        with pytest.raises(ValueError, match=text):
            replace(fine, **change)
    with pytest.raises(ValueError, match="agreed on"):
        fine.decide(observed(Proof.RUSCA2018))
