"""How much of something may happen: so many a second, with a burst."""

from __future__ import annotations

from dataclasses import dataclass, field

from qmodd.clock import Clock

# What one who is not trusted may cost core: verifications of signatures.
CHECKS_PER_S, CHECKS_BURST = 100.0, 200.0


@dataclass
class Budget:
    """Token bucket: `rate` a second, at most `burst` at once; full at the start."""

    clock: Clock
    rate: float = CHECKS_PER_S
    burst: float = CHECKS_BURST
    _left: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._left, self._at = self.burst, self.clock.monotonic()

    def take(self) -> bool:
        """Is there room for one more? It is used up then."""
        now = self.clock.monotonic()
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
