"""Chi-square against tables, and a correlation that can be inverted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.selftest.statistics import chi2_cdf, chi2_quantile, shrunk_correlation


# NIST/SEMATECH e-Handbook 1.3.6.7.4 to its three decimals, and exact values where there is a closed form.
@pytest.mark.parametrize(
    ("probability", "degrees", "value"),
    [
        (0.90, 1, 2.706),
        (0.95, 1, 3.841),
        (0.999, 1, 10.828),
        (0.95, 5, 11.070),
        (0.95, 10, 18.307),
        (0.975, 20, 34.170),
        (0.99, 30, 50.892),
        (0.999, 30, 59.703),
        (0.95, 100, 124.342),
        (0.999, 100, 149.449),
        (0.05, 10, 3.940),
        (0.001, 20, 5.921),
    ],
)
def test_quantiles_of_the_table(probability: float, degrees: int, value: float) -> None:
    assert chi2_quantile(probability, degrees) == pytest.approx(value, abs=6e-4)


@given(st.floats(1e-6, 1.0 - 1e-6))
def test_two_degrees_are_an_exponential(probability: float) -> None:
    assert chi2_quantile(probability, 2) == pytest.approx(-2.0 * np.log1p(-probability), rel=1e-9)


@given(st.floats(1e-4, 0.9999), st.integers(1, 300))
def test_quantile_inverts_the_distribution(probability: float, degrees: int) -> None:
    assert chi2_cdf(chi2_quantile(probability, degrees), degrees) == pytest.approx(probability, abs=1e-9)


@given(st.floats(0.0, 500.0), st.floats(0.0, 500.0), st.integers(1, 200))
def test_distribution_rises(a: float, b: float, degrees: int) -> None:
    low, high = sorted((a, b))
    assert 0.0 <= chi2_cdf(low, degrees) <= chi2_cdf(high, degrees) + 1e-12 <= 1.0 + 2e-12


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, float("nan")])
def test_no_quantile_of_nonsense(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        chi2_quantile(probability, 3)


def test_many_modules_give_their_correlation() -> None:
    true = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, -0.3], [0.0, -0.3, 1.0]])
    samples = np.random.default_rng(1).multivariate_normal(np.zeros(3), true, 4000)
    found, share = shrunk_correlation(samples * [1.0, 1e-9, 1e6] + [5.0, 0.0, -1.0])
    assert share < 0.01
    assert np.abs(found - true).max() < 0.05


def test_few_modules_of_many_values_can_be_inverted() -> None:
    samples = np.random.default_rng(2).normal(size=(6, 40))
    found, share = shrunk_correlation(samples)
    assert share > 0.5
    assert np.linalg.eigvalsh(found).min() > 0.05
    assert np.diag(found) == pytest.approx(np.ones(40))


def test_what_cannot_be_correlated_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        shrunk_correlation(np.ones((2, 2)))
    with pytest.raises(ValueError, match="no spread"):
        shrunk_correlation(np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 5.0]]))
