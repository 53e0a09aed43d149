"""The window of sequence numbers by which a receiver tells a replay from a batch that overtook another."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 64


@dataclass(frozen=True)
class Window:
    """The last 64 sequence numbers of one sender: bit i of `seen` stands for `top - i`."""

    top: int = 0
    seen: int = 0

    def accept(self, seq: int) -> Window | None:
        """The window with seq in it; None when seq was seen, or is too old to tell."""
        if seq > self.top:
            shifted = self.seen << (seq - self.top) if seq - self.top < WINDOW else 0
            return Window(seq, (shifted | 1) & (1 << WINDOW) - 1)
        bit = 1 << (self.top - seq)
        if self.top - seq >= WINDOW or self.seen & bit:
            return None
        return Window(self.top, self.seen | bit)
