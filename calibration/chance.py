"""How likely a chi-square is, without a statistics library."""

from __future__ import annotations

import math


def upper_tail(chi2: float, dof: int) -> float:
    """Probability of a larger chi-square: 1 - P(dof/2, chi2/2), by series or continued fraction."""
    a, x = 0.5 * dof, 0.5 * chi2
    if x <= 0.0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:
        term = total = 1.0 / a
        n = a
        while term > 1e-16 * total:
            n += 1.0
            term *= x / n
            total += term
        return 1.0 - front * total
    b, c = x + 1.0 - a, 1e300
    h = d = 1.0 / b
    for i in range(1, 500):
        k = -i * (i - a)
        b += 2.0
        d = 1.0 / (k * d + b)
        c = b + k / c
        h *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return front * h
