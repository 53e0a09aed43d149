"""Finding a fringe again that does not answer as calibrated: near the last good place, then over the known fringe.

Pure. Visibility alone decides; sign and slope are not believed here (reference control B7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# Steps about the last good place, nearest first, rad.
LOCAL = (0.0, 0.4, -0.4, 0.8, -0.8, 1.3, -1.3, 1.9, -1.9, 2.5, -2.5)
# Places on the fringe as it was calibrated, rad from where the lock began.
KNOWN = (0.0, 0.5 * math.pi, -0.5 * math.pi, math.pi)
# Best visibility over the fringe, as a share of the calibrated one, below which no place was good.
FOUND_SHARE = 0.85


@dataclass
class Search:
    """`good_rad`: the last good place; `wanted`: visibility at which to stop at once; `least`: what still counts as
    found when everything has been tried."""

    good_rad: float
    wanted: float
    least: float
    seen: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = [self.good_rad + d for d in LOCAL] + list(KNOWN)

    @property
    def place(self) -> float | None:
        """Where to look next; None when everything has been tried."""
        return self._places[len(self.seen)] if len(self.seen) < len(self._places) else None

    def see(self, visibility: float, place: float) -> tuple[float, float] | None:
        """What was seen at a place: (visibility, place) when that ends the search with success."""
        self.seen.append((visibility, place))
        if visibility >= self.wanted:
            return visibility, place
        last = len(self.seen) == len(self._places)
        best = max(self.seen)
        return best if last and best[0] >= self.least else None

    @property
    def best(self) -> float:
        """The best visibility so far."""
        return max((v for v, _ in self.seen), default=0.0)
