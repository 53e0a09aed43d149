import itertools
import math

import numpy as np
import pytest

from qmodd.keys.estimation import key_length_interval
from qmodd.rate.model import rates
from qmodd.rate.planner import block_sizes, counts_in, expected, over_loss
from qmodd.rate.system import Keys, Receiver, Source, System


def test_the_length_is_that_of_the_expected_counts():
    s = System(source=Source(mu_uncertainty=(0.01, 0.02)))
    e = expected(s, 10.0)
    r = rates(s, 10.0)
    counts = counts_in(r, e.n_z / r.total_z, e.n_z)
    assert counts.total_z == e.n_z == s.keys.n_z
    box = [(0.54 * 0.99, 0.54 * 1.01), (0.18 * 0.98, 0.18 * 1.02)]
    own = key_length_interval(s.keys.proof, counts, box, (0.5, 0.5), 1e-9, 1e-15, e.length.leak_bits)
    assert e.length == own
    assert e.skr_bps == pytest.approx(own.length_bits * r.total_z / e.n_z)
    assert e.per_pulse == pytest.approx(e.skr_bps / 125e6)
    assert e.length.leak_bits == pytest.approx(1.25 * e.n_z * _h(counts.qber_z) + 128, abs=2)


def test_rate_falls_with_loss_and_rises_with_block_size():
    falling = [e.skr_bps for e in over_loss(System(), range(5, 45, 5))]
    assert all(a > b for a, b in itertools.pairwise(falling))
    rising = block_sizes(System(), 15.0)
    assert all(a.skr_bps <= b.skr_bps for a, b in itertools.pairwise(rising))
    assert all(a.block_s < b.block_s for a, b in itertools.pairwise(rising))
    assert rising[0].length_bits == 0
    assert rising[0].length.why_zero


def test_bounds_of_intensities_cost_key():
    sure = expected(System(), 10.0).length_bits
    unsure = expected(System(source=Source(mu_uncertainty=(0.02, 0.02))), 10.0).length_bits
    assert 0.05 < 1 - unsure / sure < 0.18


def test_mean_of_drawn_blocks_is_near_the_length_of_the_mean_counts():
    s = System(keys=Keys(n_z=5_000_000))
    r = rates(s, 10.0)
    e = expected(s, 10.0)
    rng = np.random.default_rng(3)
    lengths = []
    for _ in range(60):
        seen = type(r)(*[rng.poisson(v * e.block_s) / e.block_s for v in (r.n_z, r.m_z, r.n_x, r.m_x)], 1, r.clicks, 0)
        counts = counts_in(seen, e.block_s, round(seen.total_z * e.block_s))
        k = s.keys
        own = key_length_interval(k.proof, counts, s.source.mu_intervals, (0.5, 0.5), 1e-9, 1e-15, e.length.leak_bits)
        lengths.append(own.length_bits)
    assert np.mean(lengths) == pytest.approx(e.length_bits, rel=0.02)


def test_nothing_arrives_at_all():
    dark = System(receiver=Receiver(darks_hz=(0.0, 0.0, 0.0)), source=Source(mu=(1e-9, 1e-12)))
    e = expected(dark, 200.0)
    assert e.skr_bps == 0.0
    assert e.length_bits == 0
    assert e.block_s > 1e20


def test_two_decoys_too():
    three = System(
        source=Source(mu=(0.55, 0.15, 0.002), p_mu=(0.6, 0.25, 0.15), mu_uncertainty=()),
        keys=Keys(proof="lim2014", n_z=10_000_000),
    )
    e = expected(three, 10.0)
    assert e.length_bits > 1_000_000
    assert "Lim" in e.length.theorem


def _h(x):
    return -x * math.log2(x) - (1 - x) * math.log2(1 - x)
