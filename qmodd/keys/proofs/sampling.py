"""From the error rate of single photons in X to a bound of their phase error rate in Z: random sampling."""

from __future__ import annotations

from math import isfinite, log, log2, sqrt

# The bound of proofs (a) and (b) has 21 parts in it whatever the number of parts of eps_sec.
_PARTS = 21
UNKNOWN = 0.5


def binary_entropy(x: float) -> float:
    """h(x) in bits; 0 outside (0, 1)."""
    return 0.0 if x <= 0.0 or x >= 1.0 else -x * log2(x) - (1.0 - x) * log2(1.0 - x)


def phase_by_gamma(errors: float, s_x1: float, s_z1: float, eps_sec: float) -> float:
    """Proofs (a) and (b). 1/2, the worst there is, where the bound says nothing.

    An error rate of exactly 0 would make the sampling term 0, as if nothing had to be sampled: it counts as unknown.
    """
    rate = errors / s_x1
    if not 0.0 < rate < UNKNOWN:
        return UNKNOWN
    share = log2(s_x1 + s_z1) - log2(s_x1) - log2(s_z1) - log2(1 - rate) - log2(rate)
    bits = share + 2 * (log2(_PARTS) - log2(eps_sec))
    if bits < 0.0:
        return UNKNOWN
    return _capped(rate + sqrt((1 / s_x1 + 1 / s_z1) * (1 - rate) * rate / log(2) * bits))


def phase_by_serfling(errors: float, s_x1: float, s_z1: float, log_inverse_eps: float) -> float:
    """Proof (c); holds with no observed error, too. Natural logarithm."""
    term = (1 / s_x1 + 1 / s_z1) * (1 + 1 / s_x1) * log_inverse_eps
    return _capped(errors / s_x1 + sqrt(term))


def _capped(phi: float) -> float:
    return min(UNKNOWN, phi) if isfinite(phi) else UNKNOWN
