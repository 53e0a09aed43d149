"""Secret key length of a block at exactly known intensities. When in doubt, none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log, log2

from qmodd.keys.counts import BlockCounts
from qmodd.keys.proofs.decoy import Decoy
from qmodd.keys.proofs.sampling import UNKNOWN, binary_entropy, phase_by_gamma, phase_by_serfling
from qmodd.keys.proofs.theorems import THEOREMS, Proof, Theorem

# A source this bright makes no single photons; and exp(mu) stays a number.
BRIGHTEST = 10.0
MOST_COUNTS = 10**15


@dataclass(frozen=True)
class KeyLength:
    """What the bound pays: `length_bits` and how it came about.

    `s_z0`, `s_z1` vacuum and single-photon detections in Z (lower bounds; s_z0 counts in two of the proofs), `s_x1`
    single photons in X (lower), `v_x1` their errors (upper), `phi_z` phase error rate (upper), `mu` the intensities
    that gave the minimum. `why_zero` says what stands in the way of a key; `theorem` what a positive length relies on.
    `paid_bits` is the length before it was rounded down, below zero where leak and security cost more than there is,
    and -inf where nothing can be guaranteed.
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
    theorem: str = ""
    paid_bits: float = float("-inf")


@dataclass(frozen=True)
class _Singles:
    s_z0: float
    s_z1: float
    s_x1: float
    v_x1: float


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

    All parameters are fixed before the block. `leak_bits` is every bit disclosed, verification tags included. Raises
    ValueError, naming what is wrong, on parameters outside the proof's conditions (number and order of intensities,
    probabilities, impossible counts).
    """
    theorem = THEOREMS[proof]
    check(proof, counts, mu, p_mu, eps_sec, eps_cor, leak_bits)
    log_inverse = log(theorem.eps_parts) - log(eps_sec)
    singles = _singles(proof, Decoy(tuple(mu), tuple(p_mu), log_inverse), counts)
    why = _unusable(theorem, singles, counts)
    phi = UNKNOWN if why else _phase(proof, singles, eps_sec, log_inverse)
    paid = float("-inf")
    if why is None:
        cost = leak_bits + theorem.security_bits(eps_sec) + 1 - log2(eps_cor)
        vacuum = singles.s_z0 if theorem.vacuum_counts else 0.0
        paid = vacuum + singles.s_z1 * (1 - binary_entropy(phi)) - cost
    # Vacuum alone pays only where the phase error is known: with it unknown nothing is, and nothing is given.
    length = floor(paid) if isfinite(paid) and paid >= 1.0 and phi < UNKNOWN else 0
    if length == 0 and why is None:
        why = "phase error bound is 1/2" if phi >= UNKNOWN else "leak and security terms exceed what single photons pay"
    return KeyLength(
        length,
        singles.s_z0,
        singles.s_z1,
        singles.s_x1,
        singles.v_x1,
        phi,
        leak_bits,
        tuple(mu),
        why,
        theorem.statement,
        paid,
    )


def check(
    proof: Proof,
    counts: BlockCounts,
    mu: Sequence[float],
    p_mu: Sequence[float],
    eps_sec: float,
    eps_cor: float,
    leak_bits: int,
) -> None:
    """Raises ValueError with name, value and limit of what is outside the proof's conditions."""
    counts.check()
    if max(*counts.n_z, *counts.n_x) > MOST_COUNTS:
        raise ValueError(f"n_z {counts.n_z}, n_x {counts.n_x}: at most {MOST_COUNTS} a count")
    wanted = THEOREMS[proof].intensities
    for name, size in (("mu", len(mu)), ("p_mu", len(p_mu)), ("n_z", len(counts.n_z))):
        if size != wanted:
            raise ValueError(f"{name} has {size} intensities, {proof} needs {wanted}")
    if not all(0.0 < p < 1.0 for p in p_mu) or abs(sum(p_mu) - 1) > 1e-9:
        raise ValueError(f"p_mu {tuple(p_mu)}: probabilities of intensities must lie in (0, 1) and add up to 1")
    for name, eps in (("eps_sec", eps_sec), ("eps_cor", eps_cor)):
        if not 0.0 < eps < 1.0:
            raise ValueError(f"{name} {eps} must lie in (0, 1)")
    if not all(isfinite(m) and m <= BRIGHTEST for m in mu):
        raise ValueError(f"mu {tuple(mu)}: mean photon numbers must be numbers of at most {BRIGHTEST:g}")
    ordered = mu[0] > mu[1] > 0 if wanted == 2 else mu[0] > mu[1] + mu[2] and mu[1] > mu[2] >= 0
    if not ordered:
        order = "mu[0] > mu[1] > 0" if wanted == 2 else "mu[0] > mu[1] + mu[2], mu[1] > mu[2] >= 0"
        raise ValueError(f"mu {tuple(mu)}: not ordered as {proof} demands: {order}")
    if leak_bits < 0:
        raise ValueError(f"leak of {leak_bits} bits must not be negative")


def _singles(proof: Proof, decoy: Decoy, counts: BlockCounts) -> _Singles:
    if proof is Proof.LIM2014:
        return _Singles(
            decoy.least_vacuum(counts.n_z, 1, 2),
            decoy.least_single_of_two_decoys(counts.n_z),
            decoy.least_single_of_two_decoys(counts.n_x),
            decoy.most_single_errors(counts.m_x, 1, 2),
        )
    return _Singles(
        decoy.least_vacuum(counts.n_z, 0, 1),
        decoy.least_single_of_one_decoy(counts.n_z, counts.m_z),
        decoy.least_single_of_one_decoy(counts.n_x, counts.m_x),
        decoy.most_single_errors(counts.m_x, 0, 1),
    )


def _unusable(theorem: Theorem, s: _Singles, counts: BlockCounts) -> str | None:
    """Why nothing can be guaranteed. More single photons than detections prove that light and plan do not agree."""
    if not all(isfinite(v) for v in (s.s_z0, s.s_z1, s.s_x1, s.v_x1)):
        return "the bounds are not finite"
    if s.s_z1 <= 0:
        return f"no single-photon detections in Z can be guaranteed (bound {s.s_z1:.0f})"
    if s.s_x1 <= 0:
        return f"no single-photon detections in X can be guaranteed (bound {s.s_x1:.0f}): block too small or X too rare"
    in_z = s.s_z1 + (s.s_z0 if theorem.vacuum_counts else 0.0)
    if in_z > counts.total_z or s.s_x1 > counts.total_x:
        return "counts contradict the intensities: more single photons than detections"
    return None


def _phase(proof: Proof, s: _Singles, eps_sec: float, log_inverse: float) -> float:
    if proof is Proof.WIESEMANN2024:
        return phase_by_serfling(s.v_x1, s.s_x1, s.s_z1, log_inverse)
    return phase_by_gamma(s.v_x1, s.s_x1, s.s_z1, eps_sec)
