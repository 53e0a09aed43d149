"""Count rates as a counter beside the tagger would show them: expectation and counting noise, no clicks drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

KEEP_S = 10.0


class RateMeter:
    """Averages expected rates over the last measurement period. Past rates are kept only while somebody asks.

    expected: rates/s now, shape (3,).
    """

    def __init__(self, expected: Callable[[], Floats], generator: np.random.Generator) -> None:
        self._expected = expected
        self._generator = generator
        self._past: deque[tuple[float, Floats]] = deque()  # (end of a stretch, rates in it)
        self._begun = 0.0
        self._asked = -KEEP_S
        self._longest = 0.0

    def note(self, t: float) -> None:
        """Called with the state before a change at t (s), and now and then."""
        if t - self._asked > KEEP_S:
            if self._past:
                self._past.clear()
            self._begun = t
            return
        self._past.append((t, self._expected()))
        horizon = t - self._longest
        while len(self._past) > 1 and self._past[0][0] < horizon:
            self._begun = self._past.popleft()[0]

    def measure(self, t: float, period_s: float) -> Floats:
        """Counts/s over the `period_s` that end at t, shape (3,)."""
        self._asked = t
        self._longest = max(self._longest, period_s)
        mean = self._mean(t, period_s)
        counts = self._generator.poisson(np.maximum(mean, 0.0) * period_s)
        out: Floats = counts / period_s
        return out

    def _mean(self, t: float, period_s: float) -> Floats:
        present = self._expected()
        start = max(t - period_s, self._begun)
        if t <= start:
            return present
        total, upper, rates = np.zeros(3), t, present
        for end, before in reversed(self._past):
            lower = min(upper, max(end, start))
            total += rates * (upper - lower)
            upper, rates = lower, before
            if upper <= start:
                break
        total += rates * (upper - start)
        mean: Floats = total / (t - start)
        return mean
