"""What counts tell about the light before any phase is read from them, and what the heater did meanwhile.

Pure; times are monotonic seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field

from qmodd.control.phase_estimate import PhaseCounts

# Counts expected before their absence says anything, and the share of them below which the light has gone.
EXPECTED = 25.0
GONE_SHARE = 0.3
# A loss that leaves this much is a loss, not a cut: after a while its rate is the new one.
LEFT_SHARE = 0.05
LEARN_S = 20.0
NOTHING = PhaseCounts(0.0, 0, 0, 0, 0)


@dataclass
class LightWatch:
    """Whether X counts come at the rate they had. `patience_s`: after that a lower, steady rate is taken for the new.

    `gone` is the reason why the counts of now may not be used, "" while light comes.
    """

    visibility_min: float
    patience_s: float = 10.0
    gone: str = ""
    _rate: float = 0.0
    _counts: PhaseCounts = NOTHING
    _gone_s: float = 0.0

    def see(self, counts: PhaseCounts) -> None:
        """Counts of one more interval, whether used or not."""
        self._counts = self._counts + counts
        n, seconds = self._counts.total, self._counts.seconds
        expected = self._rate * seconds
        if expected < EXPECTED and self._rate > 0.0:
            return
        if self._rate > 0.0 and n < GONE_SHARE * expected and not self._still_a_fringe():
            self._gone_s += seconds
            self.gone = f"light has gone: {n} X counts in {seconds:.2g} s, {expected:.0f} expected"
            if self._gone_s > self.patience_s and n > LEFT_SHARE * expected:
                self._rate, self.gone = 0.0, ""
        else:
            self.gone, self._gone_s = "", 0.0
            gain = 1.0 - math.exp(-seconds / LEARN_S)
            drop = n < GONE_SHARE * expected
            self._rate = n / seconds if drop or self._rate <= 0.0 else self._rate + gain * (n / seconds - self._rate)
        self._counts = NOTHING

    def _still_a_fringe(self) -> bool:
        c = self._counts
        return c.total >= EXPECTED and c.visibility - 3.0 * c.visibility_sigma > self.visibility_min - 0.1


@dataclass
class Applied:
    """Where the heater has turned the phase, by time: `centre` and the `dither` on top of it, rad."""

    keep_s: float = 60.0
    _t: deque[float] = field(default_factory=deque)
    _centre: deque[float] = field(default_factory=deque)
    _dither: deque[float] = field(default_factory=deque)

    def note(self, t: float, centre: float, dither: float) -> None:
        """From t on."""
        self._t.append(t)
        self._centre.append(centre)
        self._dither.append(dither)
        while len(self._t) > 2 and self._t[1] < t - self.keep_s:
            self._t.popleft()
            self._centre.popleft()
            self._dither.popleft()

    def mean(self, begin: float, end: float) -> tuple[float, float]:
        """(centre, dither) over an interval; what came before the first note counts as that."""
        i = max(0, bisect_right(self._t, begin) - 1)
        length, centre, dither, at = end - begin, 0.0, 0.0, begin
        if length <= 0.0:
            return self._centre[i], self._dither[i]
        while at < end:
            until = min(end, self._t[i + 1]) if i + 1 < len(self._t) else end
            share = max(0.0, until - at) / length
            centre += share * self._centre[i]
            dither += share * self._dither[i]
            at, i = max(at, until), min(i + 1, len(self._t) - 1)
        return centre, dither
