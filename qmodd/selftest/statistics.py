"""Chi-square limits and a covariance that can be inverted although there are few modules. Pure, no scipy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_STEPS, _SMALL = 500, 1e-300


def chi2_cdf(x: float, degrees: int) -> float:
    """P(chi-square of so many degrees of freedom <= x), to about 1e-12: the regularised incomplete gamma function by
    its series below the mean and its continued fraction (Lentz) above (Press et al., Numerical Recipes 6.2)."""
    if degrees < 1:
        raise ValueError(f"chi-square of {degrees} degrees of freedom")
    a, z = 0.5 * degrees, 0.5 * x
    if z <= 0.0:
        return 0.0
    front = math.exp(a * math.log(z) - z - math.lgamma(a))
    return front * _series(a, z) if z < a + 1.0 else 1.0 - front * _fraction(a, z)


def _series(a: float, z: float) -> float:
    term = total = 1.0 / a
    for k in range(1, _STEPS):
        term *= z / (a + k)
        total += term
        if term < 1e-16 * total:
            break
    return total


def _fraction(a: float, z: float) -> float:
    b = z + 1.0 - a
    c, d = 1.0 / _SMALL, 1.0 / b
    h = d
    for k in range(1, _STEPS):
        an = -k * (k - a)
        b += 2.0
        d = an * d + b
        d = 1.0 / (d if abs(d) > _SMALL else _SMALL)
        c = b + an / c
        c = c if abs(c) > _SMALL else _SMALL
        h *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return h


def chi2_quantile(probability: float, degrees: int) -> float:
    """The value below which a chi-square stays with this probability, by bisection.

    Raises ValueError for a probability outside 0 to 1.
    """
    if not 0.0 < probability < 1.0:
        raise ValueError(f"probability {probability:g}: more than 0 and less than 1 is allowed")
    low, high = 0.0, max(10.0, 2.0 * degrees)
    while chi2_cdf(high, degrees) < probability:
        high *= 2.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if chi2_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
        if high - low < 1e-12 * high:
            break
    return 0.5 * (low + high)


def shrunk_correlation(samples: Array) -> tuple[Array, float]:
    """Correlation of columns (modules by values), drawn towards none at all as far as the modules are too few to tell
    (Schaefer and Strimmer, Stat. Appl. Genet. Mol. Biol. 4, 32, 2005). Returns it with the share of the shrinkage.

    Raises ValueError for fewer than three modules or a column without spread.
    """
    n, p = samples.shape
    if n < 3:
        raise ValueError(f"{n} modules: at least 3 are needed for a correlation")
    spread = samples.std(axis=0, ddof=1)
    if not (spread > 0.0).all():
        raise ValueError("a value has no spread")
    x = (samples - samples.mean(axis=0)) / spread
    w = np.einsum("ki,kj->kij", x, x)
    mean = w.mean(axis=0)
    correlation = mean * n / (n - 1)
    variance = n / (n - 1) ** 3 * ((w - mean) ** 2).sum(axis=0)
    off = ~np.eye(p, dtype=bool)
    total = float((correlation[off] ** 2).sum())
    share = min(1.0, max(0.0, float(variance[off].sum()) / total)) if total > 0.0 else 1.0
    shrunk = (1.0 - share) * correlation
    np.fill_diagonal(shrunk, 1.0)
    return shrunk, share
