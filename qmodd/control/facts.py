"""Facts that make a loop's input or output unusable. A loop reports them; it does not use the number.

Each is an exception, too: a loop that cannot go on without the number raises it as its reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


class LoopFault(Exception):
    """A fact that makes a loop's output unusable: a stale input, a railed output, a limit missed."""


class Fact(LoopFault):
    """A fact about one input or output, by name."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Stale(Fact):
    """A reading that is too old, or that does not change although noise is expected: nothing was measured."""


class Railed(Fact):
    """An output at the end of its range: what it holds is no longer held."""


class Missed(Fact):
    """A period that began late by more than itself, or a step that did not end in time."""


class Freshness:
    """Whether an input is still measured: taken lately, and alive with noise.

    `period_s` is the loop's; a reading older than `old_periods` of them is stale, and so is one that has come back bit
    for bit `repeats` times in a row (a frozen converter: the chance of that is nil where noise exceeds a step).
    """

    def __init__(self, name: str, period_s: float, *, old_periods: float = 5.0, repeats: int = 8) -> None:
        if period_s <= 0.0 or old_periods <= 0.0 or repeats < 2:
            raise ValueError(f"{name}: period {period_s} s, {old_periods} periods, {repeats} repeats")
        self.name = name
        self._limit_s = old_periods * period_s
        self._repeats = repeats
        self._last: tuple[float, ...] | None = None
        self._same = 0
        self._taken_s = -math.inf

    def see(self, values: Sequence[float], taken_s: float) -> Stale | None:
        """A new reading, taken at a monotonic time: None when it may be used."""
        now = tuple(values)
        self._same = self._same + 1 if now == self._last else 0
        self._last, self._taken_s = now, taken_s
        if self._same + 1 < self._repeats:
            return None
        shown = ", ".join(f"{v:.6g}" for v in now)
        return Stale(
            self.name,
            f"{self.name}: the same reading {self._same + 1} times in a row ({shown}); {self._repeats} is the limit",
        )

    def check(self, now_s: float) -> Stale | None:
        """Whether the last reading is still young enough; none at all is stale, too."""
        age = now_s - self._taken_s
        if age <= self._limit_s:
            return None
        text = "never read" if math.isinf(age) else f"last read {age:.2f} s ago"
        return Stale(self.name, f"{self.name}: {text}; {self._limit_s:g} s is the limit")

    def restart(self) -> None:
        """After a pause in which nothing was read on purpose."""
        self._last, self._same = None, 0
