"""Every stage counts for itself, and at the end of a block the sums must agree; else it is no key.

The counts come from different places on purpose: the stages count what they really handled, where the bits are; the
conversation counts what was said and decided. A disagreement is a fault of the program or of the machine, never of the
link, so it is an event of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qmodd.keys.counts import BlockCounts


@dataclass(frozen=True)
class StageTally:
    """Bits of one block as each stage counted them, where they are: Z bits gathered from batches, corrected, covered by
    the verification tag, and put into privacy amplification; bits disclosed by reconciliation (0 on Alice's side, where
    nobody but the conversation counts them); secret bits that came out."""

    gathered: int = 0
    corrected: int = 0
    disclosed: int = 0
    verified: int = 0
    amplified: int = 0
    secret: int = 0


@dataclass(frozen=True)
class BlockAccount:
    """One block as the conversation counted it, and as its material did. `leak_bits` includes `tag_bits`."""

    counts: BlockCounts
    n_z: int
    leak_bits: int
    tag_bits: int
    used: int
    dropped: int
    length: int

    def disagreements(self, tally: StageTally, *, decoder: bool) -> Iterator[str]:
        """What does not add up; `decoder` for the side that decodes and so counts what was disclosed to it."""
        total = self.counts.total_z
        if total != self.n_z:
            yield f"{total} Z detections by intensity, {self.n_z} to a block"
        for name in ("gathered", "corrected", "verified", "amplified"):
            bits = getattr(tally, name)
            if bits != total:
                yield f"{bits} bits {name} of {total} Z detections"
        if decoder and tally.disclosed != self.leak_bits - self.tag_bits:
            yield f"{tally.disclosed} bits disclosed at the decoder, {self.leak_bits - self.tag_bits} in what was said"
        if tally.secret != self.used:
            yield f"{tally.secret} secret bits made, {self.used} to be used"
        if self.used + self.dropped != self.length:
            yield f"{self.used} bits used and {self.dropped} dropped of {self.length}"


class RunAccount:
    """Conservation over a run: what batches report as sifted is in closed blocks or in the one that is open."""

    def __init__(self) -> None:
        self.sifted = 0
        self.closed = 0

    def batch(self, n_z: int, closed: int, open_n_z: int) -> str | None:
        """Take in a batch of `n_z` Z detections that closed blocks of `closed` in total; what disagrees, or None."""
        self.sifted += n_z
        self.closed += closed
        if self.sifted == self.closed + open_n_z:
            return None
        return f"{self.sifted} Z detections sifted, {self.closed} in closed blocks and {open_n_z} in the open one"
