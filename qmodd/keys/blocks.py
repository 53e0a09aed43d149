"""From sifted batches to blocks that close at exactly n_Z Z detections.

Both sides run the same code, hence make the same cut. Also the record of intervals that are kept out of the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil, floor, inf

import numpy as np
import numpy.typing as npt

from qmodd.keys.authentication import Direction, Transcript
from qmodd.keys.counts import BlockCounts
from qmodd.keys.material import Gatherer, Held, Material
from qmodd.keys.protocol import Plan
from qmodd.keys.sifting import Sifted

Int64s = npt.NDArray[np.int64]
Mu = tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class RawBlock:
    """One closed block of one side: what it is made of, here or by name, and everything that was said about it."""

    run: int
    block: int
    plan: Plan
    mu: Mu
    material: Material | Held
    transcript: Transcript
    began: float
    bob_module: str = ""

    @property
    def counts(self) -> BlockCounts:
        """`m_x` is right on Bob's side only."""
        return self.material.counts


@dataclass
class BlockBuilder:
    """Gathers the batches of one run, so of one pair of modules. `plan_bytes` and `synced_bytes`, which name them, open
    the transcript of every block."""

    plan: Plan
    plan_bytes: bytes
    block: int = 0
    n_z: int = 0
    began: float = 0.0
    synced_bytes: bytes = b""
    bob_module: str = ""
    _gatherer: Gatherer | None = None
    _said: Transcript = field(default_factory=Transcript)
    _mu: dict[int, tuple[Mu, bytes]] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        return self.n_z / self.plan.n_z

    def set_intensities(self, block: int, mu: Mu, message: bytes) -> None:
        """From a block on that has not begun. Raises ValueError if it has: intensities are fixed before a block."""
        if block <= self.block:
            raise ValueError(f"intensities for block {block} while block {self.block} is open")
        self._mu[block] = (mu, message)

    def add(self, said: Transcript, sifted: Sifted, now: float) -> list[RawBlock]:
        """Take in one batch; returns the blocks that it closes. What is left over opens the next block."""
        gatherer = self._gatherer = self._gatherer or Gatherer(self.plan.n_z)
        closed = gatherer.add(sifted)
        return self.gathered(said, closed, gatherer.n_z, now)

    def gathered(
        self, said: Transcript, closed: Sequence[Material | Held], open_n_z: int, now: float
    ) -> list[RawBlock]:
        """The same where the batch was gathered elsewhere: `closed` is what it closed, `open_n_z` what is left over."""
        self._said.extend(said)
        blocks = []
        for material in closed:
            blocks.append(self._close(material, now))
            self.block += 1
            self._said = Transcript()
            self._said.extend(said)
        self.n_z = open_n_z
        return blocks

    def _close(self, material: Material | Held, now: float) -> RawBlock:
        mu, message = self._intensities()
        transcript = Transcript()
        transcript.add(Direction.ALICE, self.plan_bytes)
        transcript.add(Direction.BOB, self.synced_bytes)
        transcript.add(Direction.ALICE, message)
        transcript.extend(self._said)
        began, self.began = self.began, now
        return RawBlock(self.plan.run, self.block, self.plan, mu, material, transcript, began, self.bob_module)

    def _intensities(self) -> tuple[Mu, bytes]:
        known = [b for b in self._mu if b <= self.block]
        return self._mu[max(known)] if known else (self.plan.mu, b"")


def counts_alice(raw: RawBlock, m_x: tuple[int, ...]) -> BlockCounts:
    """Alice's counts with the X errors that Bob reports. Raises ValueError if they cannot be."""
    counts = replace(raw.counts, m_x=m_x)
    counts.check()
    return counts


@dataclass
class Flags:
    """Intervals that are kept out of the key, for reasons outside of the block's own bits, decided before its bases are
    announced. Times are those of the injected clock; slots follow from an anchor."""

    margin_s: float = 0.02
    _open: dict[str, float] = field(default_factory=dict)
    _closed: list[tuple[float, float]] = field(default_factory=list)

    @property
    def active(self) -> tuple[str, ...]:
        return tuple(self._open)

    def begin(self, reason: str, since: float) -> None:
        """Keep out everything from `since` (s) until `end(reason)`."""
        self._open[reason] = min(since, self._open.get(reason, inf))

    def end(self, reason: str, now: float) -> None:
        since = self._open.pop(reason, None)
        if since is not None:
            self._closed.append((since, now))

    def forget(self, before: float) -> None:
        self._closed = [c for c in self._closed if c[1] >= before]

    def ranges(self, slot: int, at: float, slots_per_s: float) -> Int64s:
        """Slot ranges (k, 2) that are kept out; slot `slot` is now at `at` seconds."""
        spans = [*self._closed, *((since, inf) for since in self._open.values())]
        out = []
        for a, b in spans:
            first = floor(slot + (a - self.margin_s - at) * slots_per_s)
            end = 2**62 if b == inf else ceil(slot + (b + self.margin_s - at) * slots_per_s)
            out.append((max(0, first), max(0, end)))
        return np.array(out, np.int64).reshape(-1, 2)


def inside(slots: Int64s, ranges: Int64s) -> npt.NDArray[np.bool_]:
    """Which slots lie in any of the ranges [a, b)."""
    hit = np.zeros(len(slots), np.bool_)
    for a, b in ranges:
        hit |= (slots >= a) & (slots < b)
    return hit
