"""Photocurrents for loops: readings that are still measured, or the fact that they are not."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibration.context import CalibrationContext
from qmodd.control.facts import Fact, Freshness

# Identical readings that make an input stale, and how many more a loop holds its output for before it gives up.
REPEATS, PATIENCE = 5, 3


@dataclass
class Diodes:
    """Reads some diodes in the same conversions. `read` gives None while they are stale: the loop holds what it has.

    A converter that stays frozen ends the loop with the fact as its reason.
    """

    context: CalibrationContext
    names: tuple[str, ...]
    period_s: float = 1.0
    _fresh: Freshness = field(init=False)
    _stale: int = field(default=0, init=False)
    facts: tuple[Fact, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self._fresh = Freshness(", ".join(self.names), self.period_s, repeats=REPEATS)

    async def read(self, now_s: float, samples: int) -> dict[str, float] | None:
        """A by name. Raises Stale when the readings stay frozen, and what the converter's driver raises."""
        seen = await self.context.photocurrents(*self.names, samples=samples)
        stale = self._fresh.see([seen[n] for n in self.names], now_s)
        if stale is None:
            self._stale, self.facts = 0, ()
            return seen
        self._stale += 1
        self.facts = (stale,)
        if self._stale > PATIENCE:
            self.restart()
            raise stale
        return None

    def restart(self) -> None:
        """After a pause."""
        self._fresh.restart()
        self._stale, self.facts = 0, ()
