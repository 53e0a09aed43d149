import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import Proof, key_length, key_length_interval

ONE = BlockCounts((745_000, 252_182), (5290, 1790), (35_000, 11_837), (508, 172))
TWO = BlockCounts((8_000_000, 912_000, 8400), (56_000, 6500, 1200), (900_000, 102_500, 950), (13_000, 1500, 160))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(Proof)), st.lists(st.floats(0.0, 0.04), min_size=3, max_size=3), st.integers(0, 2**32 - 1))
def test_nothing_inside_the_box_gives_less(proof, widths, seed):
    two = proof is Proof.LIM2014
    counts, mu, p = (TWO, (0.55, 0.15, 0.002), (0.6, 0.25, 0.15)) if two else (ONE, (0.54, 0.18), (0.5, 0.5))
    box = [(m * (1 - w), m * (1 + w)) for m, w in zip(mu, widths, strict=False)]
    least = key_length_interval(proof, counts, box, p, 1e-9, 1e-15, 75_967)
    rng = np.random.default_rng(seed)
    for _ in range(60):
        inside = [rng.uniform(low, high) for low, high in box]
        # Between the points of its last, smallest step the search may miss a few bits.
        got = key_length(proof, counts, inside, p, 1e-9, 1e-15, 75_967).length_bits
        assert got >= least.length_bits - 2
    assert all(low <= m <= high for m, (low, high) in zip(least.mu, box, strict=True))


def test_a_lower_point_inside_is_found_where_the_corners_are_higher(monkeypatch):
    from qmodd.keys.proofs import interval

    def valley(_proof, _counts, mu, *_rest):
        from dataclasses import replace

        paid = 1000 + 1e5 * (mu[0] - 0.537) ** 2 + 1e5 * (mu[1] - 0.181) ** 2
        return replace(
            key_length(Proof.RUSCA2018, ONE, (0.54, 0.18), (0.5, 0.5), 1e-9, 1e-15, 0), mu=mu, paid_bits=paid
        )

    monkeypatch.setattr(interval, "key_length", valley)
    box = [(0.53, 0.55), (0.17, 0.19)]
    found = interval.key_length_interval(Proof.RUSCA2018, ONE, box, (0.5, 0.5), 1e-9, 1e-15, 0)
    assert found.mu == pytest.approx((0.537, 0.181), abs=3e-4)
