"""All three proofs against their papers' equations in 60 digits, to 1e-9 relative, edges included."""

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import THEOREMS, Proof, key_length
from tests.keys.proofs import papers

RELATIVE = 1e-9


def by_paper(proof, c, mu, p, leak, eps_sec, eps_cor):
    if proof is Proof.LIM2014:
        return papers.lim2014(c.n_z, c.n_x, c.m_x, mu, p, leak, eps_sec, eps_cor)
    paper = papers.rusca2018 if proof is Proof.RUSCA2018 else papers.wiesemann2024
    return paper(c.n_z, c.m_z, c.n_x, c.m_x, mu, p, leak, eps_sec, eps_cor)


def agree(ours, theirs, scale):
    """1e-9 of the value; where it is a difference of larger terms that cancel, 1e-9 of those would be too much to ask
    of floating point, so a part in 1e12 of the largest term is let pass."""
    assert math.isfinite(ours)
    assert abs(Decimal(ours) - theirs) <= max(Decimal(RELATIVE) * abs(theirs), Decimal(scale) * Decimal("1e-12"))


def compare(proof, c, mu, p, leak=0, eps_sec=1e-9, eps_cor=1e-15):
    got = key_length(proof, c, mu, p, eps_sec, eps_cor, leak)
    values, paid = by_paper(proof, c, mu, p, leak, eps_sec, eps_cor)
    scale = 10 * sum(c.n_z) / min(p)
    for name in ("s_z0", "s_z1", "s_x1", "v_x1"):
        agree(getattr(got, name), values[name], scale)
    assert got.theorem == THEOREMS[proof].statement
    if paid is None:
        assert (got.length_bits, got.phi_z) == (0, 0.5)
        assert got.why_zero
        return got
    contradiction = values["s_z1"] + (0 if proof is Proof.WIESEMANN2024 else values["s_z0"]) > sum(c.n_z)
    if contradiction or values["s_x1"] > sum(c.n_x):
        assert got.length_bits == 0
        return got
    agree(got.phi_z, values["phi_z"], 1)
    agree(got.paid_bits, paid, scale)
    assert got.length_bits == pytest.approx(max(0, math.floor(paid)), rel=RELATIVE, abs=1)
    return got


ONE = {"mu": (0.54, 0.18), "p": (0.5, 0.5)}
TWO = {"mu": (0.55, 0.15, 0.002), "p": (0.6, 0.25, 0.15)}
Z, X = (745_000, 252_182), (35_000, 11_837)
BLOCK = BlockCounts(Z, (5290, 1790), X, (508, 172))
THREE = BlockCounts((8_000_000, 912_000, 8400), (56_000, 6500, 1200), (900_000, 102_500, 950), (13_000, 1500, 160))
CASES = {
    "usual": (BLOCK, THREE),
    "no errors at all": (
        BlockCounts(Z, (0, 0), X, (0, 0)),
        BlockCounts(THREE.n_z, (0, 0, 0), THREE.n_x, (0, 0, 0)),
    ),
    "no errors in X": (
        BlockCounts(Z, BLOCK.m_z, X, (0, 0)),
        BlockCounts(THREE.n_z, THREE.m_z, THREE.n_x, (0, 0, 0)),
    ),
    "nothing": (BlockCounts((0, 0), (0, 0), (0, 0), (0, 0)), BlockCounts((0,) * 3, (0,) * 3, (0,) * 3, (0,) * 3)),
    "nothing in X": (
        BlockCounts(Z, BLOCK.m_z, (0, 0), (0, 0)),
        BlockCounts(THREE.n_z, THREE.m_z, (0, 0, 0), (0, 0, 0)),
    ),
    "no single photons": (
        BlockCounts((1_000_000, 1000), (5000, 5), (50_000, 50), (500, 1)),
        BlockCounts((8_000_000, 1000, 900), (1, 1, 1), (900_000, 100, 90), (1, 1, 1)),
    ),
    "one detection": (
        BlockCounts((1, 0), (0, 0), (0, 1), (0, 0)),
        BlockCounts((1, 0, 0), (0,) * 3, (0, 0, 1), (0,) * 3),
    ),
    "tiny": (
        BlockCounts((700, 300), (5, 2), (60, 20), (1, 0)),
        BlockCounts((700, 100, 3), (5, 2, 1), (60, 9, 1), (1, 0, 0)),
    ),
    "all wrong": (BlockCounts(Z, Z, X, X), BlockCounts(THREE.n_z, THREE.n_z, THREE.n_x, THREE.n_x)),
    "all decoy": (
        BlockCounts((0, 1_000_000), (0, 100), (0, 50_000), (0, 10)),
        BlockCounts((0, 1_000_000, 0), (0, 9, 0), (0, 50_000, 0), (0, 9, 0)),
    ),
    "huge": (
        BlockCounts(
            (745 * 10**9, 252 * 10**9), (5 * 10**9, 2 * 10**9), (35 * 10**9, 12 * 10**9), (5 * 10**8, 2 * 10**8)
        ),
        BlockCounts(*(tuple(v * 10**6 for v in part) for part in (THREE.n_z, THREE.m_z, THREE.n_x, THREE.m_x))),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("proof", list(Proof))
@pytest.mark.parametrize("eps", [(1e-9, 1e-15), (1e-15, 1e-30), (1e-6, 1e-9), (1e-300, 1e-300)])
def test_vectors(case, proof, eps):
    setting = TWO if proof is Proof.LIM2014 else ONE
    compare(proof, CASES[case][proof is Proof.LIM2014], setting["mu"], setting["p"], 75_967, *eps)


def test_the_usual_blocks_do_give_key():
    """Else the comparison above would compare zeros."""
    for proof in Proof:
        setting = TWO if proof is Proof.LIM2014 else ONE
        got = compare(proof, CASES["usual"][proof is Proof.LIM2014], setting["mu"], setting["p"], 75_967)
        assert got.length_bits > 150_000


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(list(Proof)),
    st.integers(10**4, 10**9),
    st.floats(0.3, 0.9),
    st.floats(0.1, 0.45),
    st.floats(0.05, 0.9),
    st.floats(0.001, 0.3),
    st.floats(0.0, 0.2),
    st.floats(0.01, 1.0),
)
def test_links_of_all_kinds(proof, n_z, mu1, ratio, p1, eta, error, share_x):
    mu, p = (mu1, mu1 * ratio), (p1, 1 - p1)
    if proof is Proof.LIM2014:
        mu, p = (*mu, 0.001), (p1 * 0.9, (1 - p1) * 0.9, 0.1)
    gains = [q * -math.expm1(-eta * m) for q, m in zip(p, mu, strict=True)]
    n = tuple(round(n_z * g / sum(gains)) for g in gains)
    x = tuple(round(v * share_x) for v in n)
    c = BlockCounts(n, tuple(round(v * error) for v in n), x, tuple(round(v * error) for v in x))
    compare(proof, c, mu, (*p[:-1], 1 - sum(p[:-1])), leak=round(0.1 * n_z))


counts = st.one_of(st.integers(0, 3), st.integers(0, 10**4), st.integers(0, 10**15))


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(list(Proof)))
def test_no_counts_give_nonsense(data, proof):
    """Never NaN, never negative, never more than was detected."""
    k = THEOREMS[proof].intensities
    n_z, n_x = (data.draw(st.tuples(*[counts] * k)) for _ in range(2))
    m_z, m_x = (tuple(data.draw(st.integers(0, v)) for v in n) for n in (n_z, n_x))
    setting = TWO if k == 3 else ONE
    eps_sec, eps_cor = data.draw(st.sampled_from([(1e-9, 1e-15), (0.999, 0.999), (5e-324, 5e-324)]))
    leak = data.draw(st.integers(0, 10**15))
    c = BlockCounts(n_z, m_z, n_x, m_x)
    got = key_length(proof, c, setting["mu"], setting["p"], eps_sec, eps_cor, leak)
    assert isinstance(got.length_bits, int)
    assert 0 <= got.length_bits <= max(0, c.total_z - leak)
    assert 0.0 <= got.phi_z <= 0.5
    assert all(math.isfinite(v) for v in (got.s_z0, got.s_z1, got.s_x1, got.v_x1))
    assert not math.isnan(got.paid_bits)
    assert (got.why_zero is None) == (got.length_bits > 0)


def test_more_single_photons_than_detections_is_a_contradiction():
    """A decoy brighter than agreed looks like a perfect channel; nothing is paid for it."""
    c = BlockCounts((100_000, 900_000), (50, 450), (10_000, 90_000), (5, 45))
    got = key_length(Proof.WIESEMANN2024, c, ONE["mu"], ONE["p"], 1e-9, 1e-15, 0)
    assert got.s_z1 > c.total_z
    assert (got.length_bits, got.why_zero.split(":")[0]) == (0, "counts contradict the intensities")
