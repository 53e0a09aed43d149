import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import Proof, binary_entropy, key_length, key_length_interval, planned_leak

EPS_SEC, EPS_COR = 1e-9, 1e-15


def h(x):
    return -x * math.log2(x) - (1 - x) * math.log2(1 - x)


def second_opinion(proof, c, mu, p, leak):
    """The formulas of reference keys written straight down: (l before rounding, s_z1, s_x1, v_x1, phi)."""
    parts = {"lim2014": 21, "rusca2018": 19, "wiesemann2024": 15}[proof]
    L = math.log(parts / EPS_SEC)
    t0 = sum(q * math.exp(-k) for q, k in zip(p, mu, strict=True))
    t1 = sum(q * math.exp(-k) * k for q, k in zip(p, mu, strict=True))

    def pm(counts, i, sign):
        return math.exp(mu[i]) / p[i] * (counts[i] + sign * math.sqrt(sum(counts) / 2 * L))

    if proof == "lim2014":
        m1, m2, m3 = mu

        def vac(n):
            return max(0, t0 * (m2 * pm(n, 2, -1) - m3 * pm(n, 1, 1)) / (m2 - m3))

        def single(n, _):
            b = pm(n, 1, -1) - pm(n, 2, 1) - (m2**2 - m3**2) / m1**2 * (pm(n, 0, 1) - vac(n) / t0)
            return t1 * m1 * b / (m1 * (m2 - m3) - m2**2 + m3**2)

        s0 = vac(c.n_z)
        v = t1 * (pm(c.m_x, 1, 1) - pm(c.m_x, 2, -1)) / (m2 - m3)
    else:
        m1, m2 = mu

        def single(n, m):
            tot = sum(n)
            dn, dm = math.sqrt(tot / 2 * L), math.sqrt(sum(m) / 2 * L)
            s0u = min([tot] + [2 * (t0 * math.exp(mu[i]) / p[i] * (m[i] + dm) + dn) for i in range(2)])
            b = pm(n, 1, -1) - (m2 / m1) ** 2 * pm(n, 0, 1) - (m1**2 - m2**2) / m1**2 * s0u / t0
            return t1 * m1 / (m2 * (m1 - m2)) * b

        s0 = max(0, t0 / (m1 - m2) * (m1 * pm(c.n_z, 1, -1) - m2 * pm(c.n_z, 0, 1)))
        v = t1 / (m1 - m2) * (pm(c.m_x, 0, 1) - pm(c.m_x, 1, -1))
    z1, x1 = single(c.n_z, c.m_z), single(c.n_x, c.m_x)
    b = v / x1
    if proof == "wiesemann2024":
        phi = b + math.sqrt((z1 + x1) / (z1 * x1) * (x1 + 1) / x1 * L)
        fixed = math.log2(2 / EPS_COR) + 4 * math.log2(15 / (EPS_SEC * 2**0.25))
        s0 = 0
    else:
        K = 21
        phi = b + math.sqrt(
            (z1 + x1)
            * (1 - b)
            * b
            / (z1 * x1 * math.log(2))
            * math.log2((z1 + x1) / (z1 * x1 * (1 - b) * b) * K**2 / EPS_SEC**2)
        )
        fixed = math.log2(2 / EPS_COR) + 6 * math.log2(parts / EPS_SEC)
    phi = min(phi, 0.5)
    return s0 + z1 * (1 - (1 if phi == 0.5 else h(phi))) - leak - fixed, z1, x1, v, phi


def expected_counts(mu, p, eta_z, eta_x, n_z, error=0.007, error_x=0.0145):
    """Counts of a link of exactly these intensities, scaled to n_Z."""
    qz = [q * (1 - math.exp(-eta_z * k)) for q, k in zip(p, mu, strict=True)]
    qx = [q * (1 - math.exp(-eta_x * k)) for q, k in zip(p, mu, strict=True)]
    scale = n_z / sum(qz)
    z, x = [round(v * scale) for v in qz], [round(v * scale) for v in qx]
    return BlockCounts(tuple(z), tuple(round(error * v) for v in z), tuple(x), tuple(round(error_x * v) for v in x))


SET_R = (0.54, 0.18), (0.5, 0.5)
TEN_DB = BlockCounts((745_000, 252_182), (5290, 1790), (35_000, 11_837), (508, 172))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["rusca2018", "wiesemann2024", "lim2014"]),
    st.integers(10**5, 10**8),
    st.floats(0.4, 0.7),
    st.floats(0.1, 0.25),
    st.floats(0.02, 0.3),
    st.floats(0.004, 0.03),
    st.floats(0.005, 0.05),
    st.integers(0, 10**6),
)
def test_agrees_with_a_second_implementation(proof, n_z, mu1, mu2, share_x, eta, error, leak):
    mu, p = ((mu1, mu2), (0.6, 0.4)) if proof != "lim2014" else ((mu1, mu2, 0.002), (0.6, 0.3, 0.1))
    counts = expected_counts(mu, p, eta, eta * share_x, n_z, error, error)
    result = key_length(Proof(proof), counts, mu, p, EPS_SEC, EPS_COR, leak)
    try:
        length, z1, x1, v, phi = second_opinion(proof, counts, mu, p, leak)
    except (ValueError, ZeroDivisionError):
        assert result.length_bits == 0
        return
    assert (result.s_z1, result.s_x1, result.v_x1) == pytest.approx((z1, x1, max(0, v)), rel=1e-9)
    if z1 <= 0 or x1 <= 0 or not 0 < v / x1 < 0.5:
        assert result.length_bits == 0
        assert result.why_zero
        return
    assert result.phi_z == pytest.approx(phi, rel=1e-9)
    assert result.length_bits == pytest.approx(max(0, math.floor(length)), abs=1)


def rate_rusca(n_z, loss_db):
    """Best key per pulse of proof (b), in the setting of the table in reference keys."""
    eta, dark, misaligned = 0.5 * 10 ** (-loss_db / 10), 1e-8, 0.01

    def rate(mu1, ratio, p1, pz):
        mu, p = (mu1, mu1 * ratio), (p1, 1 - p1)
        gain = [q * (dark + 1 - math.exp(-eta * k)) for q, k in zip(p, mu, strict=True)]
        wrong = [q * (dark / 2 + misaligned * (1 - math.exp(-eta * k))) for q, k in zip(p, mu, strict=True)]
        pulses = n_z / (sum(gain) * pz**2)
        share = ((1 - pz) / pz) ** 2
        scale = n_z / sum(gain)
        n, m = [round(g * scale) for g in gain], [round(w * scale) for w in wrong]
        c = BlockCounts(tuple(n), tuple(m), tuple(round(v * share) for v in n), tuple(round(v * share) for v in m))
        leak = math.ceil(1.16 * sum(n) * h(sum(m) / sum(n)))
        return key_length(Proof.RUSCA2018, c, mu, p, EPS_SEC, EPS_COR, leak).length_bits / pulses

    starts = [[0.45, 0.35, 0.6, 0.9], [0.5, 0.3, 0.5, 0.7], [0.5, 0.3, 0.5, 0.5]]
    at = max(starts, key=lambda a: rate(*a))
    step, best = [0.08, 0.08, 0.1, 0.05], rate(*at)
    while step[0] > 1e-4:
        moved = False
        for i in range(4):
            for sign in (1, -1):
                trial = list(at)
                trial[i] = min(max(trial[i] + sign * step[i], 0.01), 0.995)
                r = rate(*trial)
                if r > best:
                    best, at, moved = r, trial, True
        if not moved:
            step = [s / 2 for s in step]
    return best


@pytest.mark.parametrize(
    ("n_z", "loss", "table"),
    [
        (1e5, 0, 1.95e-2),
        (1e5, 10, 1.63e-3),
        (1e5, 20, 1.61e-4),
        (1e5, 40, 1.57e-6),
        (1e7, 0, 5.97e-2),
        (1e7, 20, 5.13e-4),
        (1e7, 40, 5.08e-6),
        (1e7, 50, 4.69e-7),
        (1e7, 60, 1.70e-8),
    ],
)
def test_reference_table_of_the_one_decoy_bound(n_z, loss, table):
    assert rate_rusca(n_z, loss) == pytest.approx(table, rel=0.01)


def test_set_r_at_10_db_pays_what_was_measured():
    mu, p = SET_R
    leak = 75_967
    r = key_length(Proof.WIESEMANN2024, TEN_DB, mu, p, EPS_SEC, EPS_COR, leak)
    assert r.s_z1 == pytest.approx(567_353, rel=0.01)
    assert r.s_x1 == pytest.approx(19_586, rel=0.02)
    assert r.v_x1 == pytest.approx(1185, rel=0.05)
    assert r.phi_z == pytest.approx(0.0962, rel=0.03)
    assert r.length_bits == pytest.approx(231_909, rel=0.03)
    assert r.why_zero is None
    assert planned_leak(TEN_DB.total_z, TEN_DB.qber_z, tag_bits=50) == pytest.approx(leak, rel=0.01)


def test_set_r_at_20_db_over_one_second_pays_nothing_and_says_why():
    mu, p = SET_R
    short = BlockCounts((80_500, 27_200), (571, 193), (3780, 1280), (55, 19))
    r = key_length(Proof.WIESEMANN2024, short, mu, p, EPS_SEC, EPS_COR, 8200)
    assert r.length_bits == 0
    assert r.why_zero == "phase error bound is 1/2"


def test_why_there_is_no_key():
    mu, p = SET_R
    empty = BlockCounts((0, 0), (0, 0), (0, 0), (0, 0))
    assert "in Z" in (key_length(Proof.RUSCA2018, empty, mu, p, EPS_SEC, EPS_COR, 0).why_zero or "")
    no_x = replace(TEN_DB, n_x=(10, 4), m_x=(0, 0))
    assert "in X" in (key_length(Proof.WIESEMANN2024, no_x, mu, p, EPS_SEC, EPS_COR, 0).why_zero or "")
    assert "leak" in (key_length(Proof.WIESEMANN2024, TEN_DB, mu, p, EPS_SEC, EPS_COR, 10**6).why_zero or "")


def test_no_observed_errors_is_no_knowledge_for_the_gamma_bounds():
    # An upper bound on errors of exactly zero needs all X counts of errors to be zero.
    mu, p = SET_R
    clean = replace(TEN_DB, m_x=(0, 0))
    for proof in (Proof.RUSCA2018, Proof.WIESEMANN2024):
        r = key_length(proof, clean, mu, p, EPS_SEC, EPS_COR, 0)
        if proof is Proof.RUSCA2018:
            assert (r.phi_z, r.length_bits) == (0.5, 0) or r.s_z0 > 0
            assert r.phi_z == 0.5
        else:
            assert 0 < r.phi_z < 0.1
            assert r.length_bits > 300_000


def test_interval_is_the_minimum_and_costs_some_percent():
    mu, p = SET_R
    nominal = key_length(Proof.WIESEMANN2024, TEN_DB, mu, p, EPS_SEC, EPS_COR, 75_967)
    for width, low, high in ((0.01, 0.02, 0.10), (0.02, 0.05, 0.18)):
        box = [(m * (1 - width), m * (1 + width)) for m in mu]
        r = key_length_interval(Proof.WIESEMANN2024, TEN_DB, box, p, EPS_SEC, EPS_COR, 75_967)
        cost = 1 - r.length_bits / nominal.length_bits
        assert low < cost < high
        rng = np.random.default_rng(1)
        for _ in range(200):
            inside = [rng.uniform(a, b) for a, b in box]
            l_inside = key_length(Proof.WIESEMANN2024, TEN_DB, inside, p, EPS_SEC, EPS_COR, 75_967).length_bits
            assert l_inside >= r.length_bits
    point = key_length_interval(Proof.WIESEMANN2024, TEN_DB, [(m, m) for m in mu], p, EPS_SEC, EPS_COR, 75_967)
    assert point == nominal


@pytest.mark.parametrize(
    ("proof", "counts", "mu", "p", "eps", "leak", "text"),
    [
        (Proof.LIM2014, TEN_DB, (0.5, 0.2), (0.5, 0.5), 1e-9, 0, "needs 3"),
        (Proof.RUSCA2018, TEN_DB, (0.2, 0.5), (0.5, 0.5), 1e-9, 0, "not ordered"),
        (Proof.RUSCA2018, TEN_DB, (0.5, 0.2), (0.5, 0.4), 1e-9, 0, "add up"),
        (Proof.RUSCA2018, TEN_DB, (0.5, 0.2), (0.5, 0.5), 0.0, 0, "must lie"),
        (Proof.RUSCA2018, TEN_DB, (0.5, 0.2), (0.5, 0.5), 1e-9, -1, "leak of -1"),
        (Proof.RUSCA2018, replace(TEN_DB, m_z=(10**7, 0)), (0.5, 0.2), (0.5, 0.5), 1e-9, 0, "errors in"),
    ],
)
def test_conditions_of_the_proofs_are_checked(proof, counts, mu, p, eps, leak, text):
    with pytest.raises(ValueError, match=text):
        key_length(proof, counts, mu, p, eps, EPS_COR, leak)


def test_intervals_are_checked():
    for box, text in (
        ([(0.5, 0.4), (0.1, 0.2)], "not ordered"),
        ([(0.1, 0.6), (0.15, 0.2)], "not ordered"),
        ([], "needs 2"),
    ):
        with pytest.raises(ValueError, match=text):
            key_length_interval(Proof.WIESEMANN2024, TEN_DB, box, (0.5, 0.5), EPS_SEC, EPS_COR, 0)


def test_entropy():
    assert binary_entropy(0.5) == 1.0
    assert binary_entropy(0.0) == binary_entropy(1.0) == 0.0
    assert binary_entropy(0.11) == pytest.approx(0.49992, abs=1e-4)
