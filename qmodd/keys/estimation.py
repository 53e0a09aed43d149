"""Secret key length of a block from its counts, by finite-key decoy-state bounds.

Three proofs: Lim et al., PRA 89, 022307 (2014), two decoys; Rusca et al., APL 112, 171104 (2018), one decoy; Wiesemann
et al., arXiv:2405.16578 (2024), one decoy, consolidated, the default. Notation: n, m detections and errors per
intensity; mu mean photon numbers, brightest first; p probabilities of the intensities, both fixed before the block.
Natural logarithm in the Hoeffding terms, base 2 in entropies and security terms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, exp, floor, inf, isfinite, log, log2, sqrt

from qmodd.keys.counts import BlockCounts


class Proof(StrEnum):
    LIM2014 = "lim2014"
    RUSCA2018 = "rusca2018"
    WIESEMANN2024 = "wiesemann2024"


@dataclass(frozen=True)
class KeyLength:
    """What the bound pays: `length_bits` and how it came about.

    `s_z0`, `s_z1` vacuum and single-photon detections in Z (lower bounds; s_z0 counts in two of the proofs), `s_x1`
    single photons in X (lower), `v_x1` their errors (upper), `phi_z` phase error rate (upper), `mu` the intensities
    that gave the minimum. `why_zero` says what stands in the way of a key.
    """

    length_bits: int
    s_z0: float
    s_z1: float
    s_x1: float
    v_x1: float
    phi_z: float
    leak_bits: int
    mu: tuple[float, ...]
    why_zero: str | None = None


def binary_entropy(x: float) -> float:
    """h(x) in bits; 0 outside (0, 1)."""
    return 0.0 if x <= 0.0 or x >= 1.0 else -x * log2(x) - (1.0 - x) * log2(1.0 - x)


def planned_leak(n_bits: int, qber: float, efficiency: float = 1.25, tag_bits: int = 128) -> int:
    """A planning model of what correction and verification disclose; never a substitute for the bits disclosed."""
    return ceil(efficiency * n_bits * binary_entropy(qber)) + tag_bits


@dataclass(frozen=True)
class _Decoy:
    """Decoy-state estimators for one block at exact intensities."""

    mu: tuple[float, ...]
    p: tuple[float, ...]
    log_inverse_eps: float

    def tau(self, photons: int) -> float:
        """Probability that a pulse holds 0 or 1 photons."""
        return sum(p * exp(-mu) * mu**photons for p, mu in zip(self.p, self.mu, strict=True))

    def spread(self, total: float) -> float:
        return sqrt(total / 2 * self.log_inverse_eps)

    def low(self, counts: Sequence[int], k: int) -> float:
        return exp(self.mu[k]) / self.p[k] * (counts[k] - self.spread(sum(counts)))

    def high(self, counts: Sequence[int], k: int) -> float:
        return exp(self.mu[k]) / self.p[k] * (counts[k] + self.spread(sum(counts)))

    def vacuum_low(self, n: Sequence[int], bright: int, dark: int) -> float:
        a, b = self.mu[bright], self.mu[dark]
        return max(0.0, self.tau(0) * (a * self.low(n, dark) - b * self.high(n, bright)) / (a - b))

    def vacuum_high(self, n: Sequence[int], m: Sequence[int]) -> float:
        """Half of the vacuum's detections are errors, so the errors bound them (one decoy)."""
        tau0 = self.tau(0)
        each = (
            2 * (tau0 * exp(self.mu[k]) / self.p[k] * (m[k] + self.spread(sum(m))) + self.spread(sum(n)))
            for k in range(2)
        )
        return min(float(sum(n)), *each)

    def single_two_decoys(self, n: Sequence[int]) -> float:
        a, b, c = self.mu
        vacuum = self.vacuum_low(n, 1, 2) / self.tau(0)
        bracket = self.low(n, 1) - self.high(n, 2) - (b * b - c * c) / (a * a) * (self.high(n, 0) - vacuum)
        return self.tau(1) * a * bracket / (a * (b - c) - b * b + c * c)

    def single_one_decoy(self, n: Sequence[int], m: Sequence[int]) -> float:
        a, b = self.mu
        vacuum = self.vacuum_high(n, m) / self.tau(0)
        bracket = self.low(n, 1) - (b / a) ** 2 * self.high(n, 0) - (a * a - b * b) / (a * a) * vacuum
        return self.tau(1) * a * bracket / (b * (a - b))

    def single_errors(self, m: Sequence[int], bright: int, dark: int) -> float:
        a, b = self.mu[bright], self.mu[dark]
        return max(0.0, self.tau(1) * (self.high(m, bright) - self.low(m, dark)) / (a - b))


def _gamma(a: float, b: float, c: float, d: float, k: float) -> float:
    """Random sampling without replacement, from `c` tested to `d` used, at error rate `b`."""
    return sqrt((c + d) * (1 - b) * b / (c * d * log(2)) * log2((c + d) / (c * d * (1 - b) * b) * k * k / (a * a)))


def _phase_by_gamma(rate: float, s_x1: float, s_z1: float, eps_sec: float) -> float:
    # An error rate of 0 would make gamma 0; nothing is known of the phase error then.
    if not 0.0 < rate < 0.5:
        return 0.5
    return rate + _gamma(eps_sec, rate, s_x1, s_z1, 21)


def _phase_by_serfling(rate: float, s_x1: float, s_z1: float, eps: float) -> float:
    return rate + sqrt((s_z1 + s_x1) / (s_z1 * s_x1) * (s_x1 + 1) / s_x1 * log(1 / eps))


@dataclass(frozen=True)
class _Variant:
    intensities: int
    eps_parts: int
    security_bits: Callable[[float], float]
    vacuum_counts: bool


_VARIANTS = {
    Proof.LIM2014: _Variant(3, 21, lambda eps: 6 * log2(21 / eps), True),
    Proof.RUSCA2018: _Variant(2, 19, lambda eps: 6 * log2(19 / eps), True),
    Proof.WIESEMANN2024: _Variant(2, 15, lambda eps: 4 * log2(15 / (eps * 2**0.25)), False),
}


def _check(proof: Proof, counts: BlockCounts, mu: Sequence[float], p: Sequence[float], eps: Sequence[float]) -> None:
    counts.check()
    wanted = _VARIANTS[proof].intensities
    if not len(mu) == len(p) == len(counts.n_z) == wanted:
        raise ValueError(f"{proof} needs {wanted} intensities")
    if abs(sum(p) - 1) > 1e-9 or min(p) <= 0:
        raise ValueError(f"probabilities of intensities {tuple(p)} do not add up to 1")
    if not all(0 < e < 1 for e in eps):
        raise ValueError(f"security parameters {tuple(eps)} must lie in (0, 1)")
    ordered = mu[0] > mu[1] > 0 if wanted == 2 else mu[0] > mu[1] + mu[2] and mu[1] > mu[2] >= 0
    if not ordered:
        raise ValueError(f"intensities {tuple(mu)} are not ordered as {proof} demands")


def _singles(proof: Proof, decoy: _Decoy, counts: BlockCounts) -> tuple[float, float, float, float]:
    """(s_z0, s_z1, s_x1, v_x1)."""
    if proof is Proof.LIM2014:
        return (
            decoy.vacuum_low(counts.n_z, 1, 2),
            decoy.single_two_decoys(counts.n_z),
            decoy.single_two_decoys(counts.n_x),
            decoy.single_errors(counts.m_x, 1, 2),
        )
    return (
        decoy.vacuum_low(counts.n_z, 0, 1),
        decoy.single_one_decoy(counts.n_z, counts.m_z),
        decoy.single_one_decoy(counts.n_x, counts.m_x),
        decoy.single_errors(counts.m_x, 0, 1),
    )


def _why_zero(s_z1: float, s_x1: float, phi: float) -> str:
    if s_z1 <= 0:
        return f"no single-photon detections in Z can be guaranteed (bound {s_z1:.0f})"
    if s_x1 <= 0:
        return f"no single-photon detections in X can be guaranteed (bound {s_x1:.0f}): block too small or X too rare"
    if phi >= 0.5:
        return "phase error bound is 1/2"
    return "leak and security terms exceed what single photons pay"


def key_length(
    proof: Proof,
    counts: BlockCounts,
    mu: Sequence[float],
    p_mu: Sequence[float],
    eps_sec: float,
    eps_cor: float,
    leak_bits: int,
) -> KeyLength:
    """Key bits that `proof` allows for a block at exactly known intensities.

    `leak_bits` is every bit disclosed, verification tags included. Raises ValueError on parameters outside the proof's
    conditions (number and order of intensities, probabilities, impossible counts).
    """
    _check(proof, counts, mu, p_mu, (eps_sec, eps_cor))
    if leak_bits < 0:
        raise ValueError(f"leak of {leak_bits} bits")
    variant = _VARIANTS[proof]
    part = eps_sec / variant.eps_parts
    decoy = _Decoy(tuple(mu), tuple(p_mu), log(1 / part))
    s_z0, s_z1, s_x1, v_x1 = _singles(proof, decoy, counts)
    phi = 0.5
    if s_z1 > 0 and s_x1 > 0:
        phase = _phase_by_serfling if proof is Proof.WIESEMANN2024 else _phase_by_gamma
        phi = min(0.5, phase(v_x1 / s_x1, s_x1, s_z1, part if proof is Proof.WIESEMANN2024 else eps_sec))
    cost = leak_bits + variant.security_bits(eps_sec) + (log2(2 / eps_cor))
    paid = (s_z0 if variant.vacuum_counts else 0.0) + s_z1 * (1 - binary_entropy(phi)) - cost
    usable = s_z1 > 0 and s_x1 > 0 and isfinite(paid) and isfinite(phi)
    length = max(0, floor(paid)) if usable else 0
    why = None if length > 0 else _why_zero(s_z1, s_x1, phi)
    return KeyLength(length, s_z0, s_z1, s_x1, v_x1, phi, leak_bits, tuple(mu), why)


_GRID = (0.0, 0.5, 1.0)


def key_length_interval(
    proof: Proof,
    counts: BlockCounts,
    mu_intervals: Sequence[tuple[float, float]],
    p_mu: Sequence[float],
    eps_sec: float,
    eps_cor: float,
    leak_bits: int,
) -> KeyLength:
    """The least key length over all intensities inside their calibrated intervals (low, high).

    Evaluated at the corners, edge centres and centre of the box; the minimum is taken at a corner wherever the bound is
    monotone, and the inner points guard against a minimum that is not. Raises ValueError as `key_length` does, and if
    any intensities in the box violate the proof's order.
    """
    if any(not 0 <= low <= high for low, high in mu_intervals):
        raise ValueError(f"intensity intervals {tuple(mu_intervals)} are not ordered")
    axes = [sorted({low + f * (high - low) for f in _GRID}) for low, high in mu_intervals]
    worst: KeyLength | None = None
    least = inf
    for mu in itertools.product(*axes):
        result = key_length(proof, counts, mu, p_mu, eps_sec, eps_cor, leak_bits)
        if result.length_bits < least:
            worst, least = result, result.length_bits
    if worst is None:
        raise ValueError("no intensities given")
    return worst
