"""The three proofs: how many intensities each wants, how it divides its epsilon, and what exactly it states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import log2


class Proof(StrEnum):
    LIM2014 = "lim2014"
    RUSCA2018 = "rusca2018"
    WIESEMANN2024 = "wiesemann2024"


@dataclass(frozen=True)
class Theorem:
    """`intensities` of the source; `eps_parts` equal parts that eps_sec is divided into; `security_bits` of eps_sec:
    what privacy amplification costs; `vacuum_counts`: vacuum detections are paid for in full; `source`: where it is
    stated; `variable`: what a length that follows from the block's own counts relies on beside it."""

    intensities: int
    eps_parts: int
    security_bits: Callable[[float], float]
    vacuum_counts: bool
    source: str
    variable: str

    @property
    def statement(self) -> str:
        """What a length from a block's own counts relies on, for records and people."""
        return f"{self.source}; {self.variable}"


# Logarithms are split, so that no epsilon that a float can hold makes a quotient overflow.
THEOREMS = {
    Proof.LIM2014: Theorem(
        3,
        21,
        lambda eps: 6 * (log2(21) - log2(eps)),
        True,
        "Lim et al., Phys. Rev. A 89, 022307 (2014), two decoys",
        "length from the block's counts by its Eq. (1)",
    ),
    Proof.RUSCA2018: Theorem(
        2,
        19,
        lambda eps: 6 * (log2(19) - log2(eps)),
        True,
        "Rusca et al., Appl. Phys. Lett. 112, 171104 (2018), one decoy",
        "length from the block's counts by its Eq. (A25)",
    ),
    Proof.WIESEMANN2024: Theorem(
        2,
        15,
        lambda eps: 4 * (log2(15) - log2(eps) - 0.25),
        False,
        "Wiesemann et al., arXiv:2405.16578 (2024), one decoy",
        "length from the block's counts by the variable-length framework of Tupkary et al., arXiv:2408.17349",
    ),
}
