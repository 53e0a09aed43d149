"""The emulator's clock: real time, scaled, or that of a simulated event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class SimClock(Protocol):
    def now(self) -> float:
        """Seconds of the world since it was made; never goes back."""
        ...


class RealClock:
    """Real time, scaled by `speed`."""

    def __init__(self, speed: float = 1.0, source: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._start = source()
        self._speed = speed

    def now(self) -> float:
        return (self._source() - self._start) * self._speed


class CallbackClock:
    """Follows any function of time, such as `loop.time` of a simulated event loop."""

    def __init__(self, source: Callable[[], float]) -> None:
        self._source = source

    def now(self) -> float:
        return self._source()


class ManualClock:
    """For tests: moved by hand."""

    def __init__(self, start: float = 0.0) -> None:
        self.t = start

    def now(self) -> float:
        return self.t
