"""Secret key length of a block from its counts, by finite-key decoy-state bounds: the face of `qmodd.keys.proofs`.

Three proofs: Lim et al., PRA 89, 022307 (2014), two decoys; Rusca et al., APL 112, 171104 (2018), one decoy; Wiesemann
et al., arXiv:2405.16578 (2024), one decoy, consolidated, the default. Notation: n, m detections and errors per
intensity; mu mean photon numbers, brightest first; p probabilities of the intensities, both fixed before the block.
Natural logarithm in the Hoeffding terms, base 2 in entropies and security terms.
"""

from __future__ import annotations

from math import ceil

from qmodd.keys.proofs.fixed import FixedLength
from qmodd.keys.proofs.interval import key_length_interval
from qmodd.keys.proofs.length import KeyLength, key_length
from qmodd.keys.proofs.sampling import binary_entropy
from qmodd.keys.proofs.theorems import THEOREMS, Proof

__all__ = [
    "THEOREMS",
    "FixedLength",
    "KeyLength",
    "Proof",
    "binary_entropy",
    "key_length",
    "key_length_interval",
    "planned_leak",
]


def planned_leak(n_bits: int, qber: float, efficiency: float = 1.25, tag_bits: int = 128) -> int:
    """A planning model of what correction and verification disclose; never a substitute for the bits disclosed."""
    return ceil(efficiency * n_bits * binary_entropy(qber)) + tag_bits
