"""One key, one pair of recipients: which pair every key of a block belongs to, and of what size it is.

Both sides deal a block's keys by the same pairs, so the same key goes to the same pair. Pairs take turns in proportion
to their shares, the one that is furthest behind first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Protocol

MOST_PAIRS = 64
MOST_SHARE = 1000


@dataclass(frozen=True)
class Pair:
    """One recipient at each site, by this site's name. `share` is its weight, `key_bits` the size of its keys."""

    name: str
    share: int = 1
    key_bits: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.share <= MOST_SHARE:
            raise ValueError(f"recipient {self.name}: share {self.share}; 1 to {MOST_SHARE} is allowed")
        if self.key_bits % 8 or not 8 <= self.key_bits <= 8192:
            raise ValueError(f"recipient {self.name}: key_bits {self.key_bits}: a multiple of 8 up to 8192 is allowed")


class Dealt(Protocol):
    """What a block's record says about its keys."""

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def allocations(self) -> int: ...
    @property
    def key_bits(self) -> int: ...


@dataclass(frozen=True)
class Allocation:
    """The order in which pairs take turns. `shares` and `sizes` (bits of a key) by pair."""

    shares: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def by(cls, pairs: Sequence[Pair]) -> Allocation:
        return cls(tuple(p.share for p in pairs), tuple(p.key_bits for p in pairs))

    @classmethod
    def of(cls, record: Dealt) -> Allocation:
        """As it was agreed for a block. Blocks of an older version have equal shares and one size."""
        pairs = record.pairs or ((1, record.key_bits),) * max(1, record.allocations)
        return cls(tuple(s for s, _ in pairs), tuple(b for _, b in pairs))

    @cached_property
    def cycle(self) -> tuple[int, ...]:
        """Pairs in the order of one round of turns."""
        common = gcd(*self.shares)
        shares = [s // common for s in self.shares]
        total, credit, turns = sum(shares), [0] * len(shares), []
        for _ in range(total):
            credit = [c + s for c, s in zip(credit, shares, strict=True)]
            chosen = max(range(len(shares)), key=lambda i: (credit[i], -i))
            credit[chosen] -= total
            turns.append(chosen)
        return tuple(turns)

    def owner(self, number: int) -> int:
        """The pair that key `number` of a block belongs to."""
        return self.cycle[number % len(self.cycle)]

    def size(self, number: int) -> int:
        """Bits of key `number`."""
        return self.sizes[self.owner(number)]

    def bits(self, keys: int) -> int:
        """Bits of the first `keys` keys together."""
        whole, rest = divmod(keys, len(self.cycle))
        return whole * self._cycle_bits + sum(self.sizes[p] for p in self.cycle[:rest])

    def keys_in(self, bits: int) -> int:
        """How many keys `bits` are enough for; the first one that does not fit ends it."""
        whole, left = divmod(max(0, bits), self._cycle_bits)
        keys = whole * len(self.cycle)
        for pair in self.cycle:
            left -= self.sizes[pair]
            if left < 0:
                break
            keys += 1
        return keys

    @cached_property
    def _cycle_bits(self) -> int:
        return sum(self.sizes[p] for p in self.cycle)


def difference(mine: Sequence[Pair], shares: Sequence[int], sizes: Sequence[int]) -> str | None:
    """What the far module's pairs have different, in words for an operator; None: nothing."""
    if len(mine) != len(shares) or len(shares) != len(sizes):
        return f"{len(shares)} recipients at the far site, {len(mine)} at this one: keys belong to pairs of recipients"
    for number, (pair, share, size) in enumerate(zip(mine, shares, sizes, strict=True), 1):
        where = f"recipient pair {number} ({pair.name} at this site)"
        if pair.share != share:
            return f"{where}: share {pair.share} here, {share} at the far module"
        if pair.key_bits != size:
            return f"{where}: key_bits {pair.key_bits} here, {size} at the far module"
    return None
