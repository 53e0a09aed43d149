"""What one side keeps of a block: Z bits, their intensities and counts; or, in the control process, only its name.

Slots and X bits are needed no longer than their batch, so two bytes a Z detection are all that a block takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qmodd.keys.counts import BlockCounts
from qmodd.keys.jit import kernel
from qmodd.keys.sifting import Sifted, count

Bits = npt.NDArray[np.uint8]

_NONE = BlockCounts((0, 0), (0, 0), (0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Material:
    """A closed block: own Z bits, whether each is a decoy, counts (`m_x` is right on Bob's side only), slots
    [first_slot, end_slot)."""

    z_bits: Bits
    z_decoy: Bits
    counts: BlockCounts
    first_slot: int
    end_slot: int

    @classmethod
    def of(cls, sifted: Sifted) -> Material:
        """Raises ValueError on a block without detections."""
        if not len(sifted.slots):
            raise ValueError("a block without detections")
        return cls(sifted.z_bits, sifted.z_decoy, count(sifted), int(sifted.slots[0]), int(sifted.slots[-1]) + 1)


@dataclass(frozen=True)
class Held:
    """The name of a block whose bits are where the kernels run."""

    number: int
    counts: BlockCounts
    first_slot: int
    end_slot: int


@dataclass(frozen=True)
class Gathered:
    """What a batch did: the blocks that it closed, in order, and the Z detections of the block that is open now."""

    closed: tuple[Held, ...]
    open_n_z: int


def split(sifted: Sifted) -> tuple[Bits, Bits]:
    """Bits and decoy flags of the Z detections."""
    return sifted.z_bits, sifted.z_decoy


@kernel
def _pick_z(basis: Bits, bit: Bits, decoy: Bits, z_bits: Bits, z_decoy: Bits) -> int:
    """Without a branch, which random bases would make the processor guess wrong half the time. Returns their number."""
    k = 0
    for i in range(len(basis)):
        z_bits[k] = bit[i]
        z_decoy[k] = decoy[i]
        k += 1 - basis[i]
    return k


def split_compiled(sifted: Sifted) -> tuple[Bits, Bits]:
    """The same, ten times as fast, for who has the compiler loaded."""
    n = len(sifted.basis)
    z_bits, z_decoy = np.empty(n, np.uint8), np.empty(n, np.uint8)
    k = int(_pick_z(sifted.basis, sifted.bit, sifted.decoy, z_bits, z_decoy))
    return z_bits[:k].copy(), z_decoy[:k].copy()


class Gatherer:
    """Cuts a stream of sifted batches into blocks of exactly `n_z` Z detections; the rest opens the next block."""

    def __init__(self, n_z: int, split: Callable[[Sifted], tuple[Bits, Bits]] = split) -> None:
        if n_z <= 0:
            raise ValueError(f"blocks of {n_z} detections")
        self._target = n_z
        self._split = split
        self._start()

    def _start(self) -> None:
        self.n_z = 0
        self._bits: list[Bits] = []
        self._decoy: list[Bits] = []
        self._counts = _NONE
        self._first = self._end = -1

    def add(self, sifted: Sifted) -> list[Material]:
        """The blocks that this batch closes."""
        closed = []
        while self.n_z + sifted.n_z >= self._target:
            head, sifted = sifted.cut(self._target - self.n_z)
            self._take(head)
            closed.append(
                Material(np.concatenate(self._bits), np.concatenate(self._decoy), self._counts, self._first, self._end)
            )
            self._start()
        self._take(sifted)
        return closed

    def _take(self, part: Sifted) -> None:
        if not len(part.slots):
            return
        bits, decoy = self._split(part)
        self._bits.append(bits)
        self._decoy.append(decoy)
        self.n_z += len(bits)
        self._counts = self._counts + count(part)
        self._first = int(part.slots[0]) if self._first < 0 else self._first
        self._end = int(part.slots[-1]) + 1
