"""The cover as a tamper contact: open for longer than a contact bounces, at two readings at least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Policy = Literal["off", "latch", "zeroise"]
LINE = "cover_closed"


@dataclass
class Tamper:
    """`struck` is told once for each opening that was confirmed. `now` is monotonic, s."""

    policy: Policy
    debounce_s: float
    now: Callable[[], float]
    struck: Callable[[str], None]
    _open_since: float | None = None
    _told: bool = False

    @property
    def watching(self) -> bool:
        return self.policy != "off"

    @property
    def suspect(self) -> bool:
        """Open at the last reading, and not told yet: read again soon."""
        return self.watching and self._open_since is not None and not self._told

    def hear(self, closed: bool | None) -> None:
        """A reading; None says nothing."""
        if closed is None or not self.watching:
            return
        if closed:
            self._open_since, self._told = None, False
            return
        now = self.now()
        if self._open_since is None:
            self._open_since = now
        elif not self._told and now - self._open_since >= self.debounce_s:
            self._told = True
            self.struck("the cover was opened")
