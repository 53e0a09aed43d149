"""Fixed-length policy: thresholds and length are agreed before the block, which passes all of them or gives nothing.

Proof (c) is stated so. Where the length follows from what was observed, the result relies on an extension of it to
variable length; who wants the plain theorem agrees on a `FixedLength` first and takes its length or none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor, isfinite, log2

from qmodd.keys.proofs.length import KeyLength
from qmodd.keys.proofs.sampling import UNKNOWN, binary_entropy
from qmodd.keys.proofs.theorems import THEOREMS, Proof


@dataclass(frozen=True)
class FixedLength:
    """What is agreed before a block. `s_z0`, `s_z1` at least, `phi_z` and `leak_bits` at most."""

    proof: Proof
    s_z0: float
    s_z1: float
    phi_z: float
    leak_bits: int
    eps_sec: float
    eps_cor: float

    def __post_init__(self) -> None:
        if not (isfinite(self.s_z0) and self.s_z0 >= 0.0 and isfinite(self.s_z1) and self.s_z1 > 0.0):
            raise ValueError(f"s_z0 {self.s_z0}, s_z1 {self.s_z1}: thresholds must be positive numbers")
        if not 0.0 <= self.phi_z < UNKNOWN:
            raise ValueError(f"phi_z {self.phi_z} must lie in [0, 0.5)")
        if self.leak_bits < 0:
            raise ValueError(f"leak of {self.leak_bits} bits must not be negative")
        for name, eps in (("eps_sec", self.eps_sec), ("eps_cor", self.eps_cor)):
            if not 0.0 < eps < 1.0:
                raise ValueError(f"{name} {eps} must lie in (0, 1)")

    @classmethod
    def of(cls, expected: KeyLength, proof: Proof, eps_sec: float, eps_cor: float, margin: float) -> FixedLength:
        """Thresholds a share `margin` on the safe side of an expected result: the more, the more blocks pass.

        Raises ValueError where the margin leaves no threshold.
        """
        return cls(
            proof,
            expected.s_z0 * (1 - margin),
            expected.s_z1 * (1 - margin),
            expected.phi_z * (1 + margin),
            floor(expected.leak_bits * (1 + margin)),
            eps_sec,
            eps_cor,
        )

    @property
    def length_bits(self) -> int:
        """The one length that a block of this agreement can have."""
        theorem = THEOREMS[self.proof]
        vacuum = self.s_z0 if theorem.vacuum_counts else 0.0
        cost = self.leak_bits + theorem.security_bits(self.eps_sec) + 1 - log2(self.eps_cor)
        return max(0, floor(vacuum + self.s_z1 * (1 - binary_entropy(self.phi_z)) - cost))

    def decide(self, observed: KeyLength) -> KeyLength:
        """The agreed length if every threshold is kept, else none; never the observed length.

        `observed` comes from `key_length` or `key_length_interval` with the same proof and epsilons.
        """
        theorem = THEOREMS[self.proof]
        if observed.theorem != theorem.statement:
            raise ValueError(f"observed by {observed.theorem!r}, agreed on {theorem.statement!r}")
        why = self._failed(observed, theorem.vacuum_counts)
        length = 0 if why else self.length_bits
        if not length and why is None:
            why = "the agreed thresholds pay for no key"
        named = f"{theorem.source}; length and acceptance test fixed before the block"
        return replace(observed, length_bits=length, why_zero=why, theorem=named)

    def _failed(self, o: KeyLength, vacuum_counts: bool) -> str | None:
        tests = [
            ("s_z1", o.s_z1, self.s_z1, o.s_z1 >= self.s_z1),
            ("phi_z", o.phi_z, self.phi_z, o.phi_z <= self.phi_z),
            ("leak_bits", o.leak_bits, self.leak_bits, o.leak_bits <= self.leak_bits),
        ]
        if vacuum_counts:
            tests.append(("s_z0", o.s_z0, self.s_z0, o.s_z0 >= self.s_z0))
        for name, value, limit, kept in tests:
            if not kept:
                return f"acceptance test: {name} {value:.6g} does not keep the agreed {limit:.6g}"
        return None
