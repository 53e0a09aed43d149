"""Instruments that talk in a byte stream (serial, TCP): what they share, and the line to them with its faults."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from sim.busfaults import NO_EFFECT, BusFaults
from sim.chips.slots import Slot
from sim.clock import SimClock


class StreamDevice(Protocol):
    """`feed` takes what the host sent, `take` gives what has been said by now (or by `until`, s)."""

    @property
    def due(self) -> float | None:
        """When the next reply that is not out yet will be, s of the clock; None if there is none."""
        ...

    def feed(self, data: bytes) -> None: ...
    def take(self, until: float | None = None) -> bytes: ...
    def power_on_reset(self) -> None: ...


class Replies:
    """Bytes on their way out, each with the time from which they can be read."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        self._queue: deque[tuple[float, bytes]] = deque()

    @property
    def due(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def put(self, data: bytes, delay_s: float = 0.0) -> None:
        """A stream keeps its order: nothing overtakes what was put before."""
        at = self._clock.now() + delay_s
        if self._queue:
            at = max(at, self._queue[-1][0])
        self._queue.append((at, data))

    def take(self, until: float | None = None) -> bytes:
        """What can be read by `until` (default: now)."""
        horizon = self._clock.now() if until is None else until
        out = []
        while self._queue and self._queue[0][0] <= horizon:
            out.append(self._queue.popleft()[1])
        return b"".join(out)

    def clear(self) -> None:
        self._queue.clear()


class StreamLine:
    """A serial line or TCP connection to an instrument, with what can befall it.

    `before` brings the module's own timers up to now. While the instrument is unplugged nothing is heard and nothing
    comes back.
    """

    def __init__(
        self,
        name: str,
        slot: Slot,
        device: StreamDevice,
        faults: BusFaults,
        clock: SimClock,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._slot = slot
        self._device = device
        self._faults = faults
        self._before = before
        self._replies = Replies(clock)

    @property
    def present(self) -> bool:
        return self._slot.present

    @property
    def due(self) -> float | None:
        """When the next reply can be read, s of the clock; None: nothing is on its way."""
        if not self._slot.present:
            return None
        times = [t for t in (self._replies.due, self._device.due) if t is not None]
        return min(times, default=None)

    def feed(self, data: bytes) -> None:
        """The host has sent something."""
        self._before()
        if not self._slot.present:
            return
        if not self._faults.quiet:
            effect = self._faults.strike(self.name, self._slot.name)
            if "hang" in effect or "nack" in effect:
                return
        self._device.feed(data)
        self._collect(None)

    def take(self, until: float | None = None) -> bytes:
        """What the instrument has said by now; by `until` where a caller is ready to wait until then."""
        self._before()
        if not self._slot.present:
            self._replies.clear()
            return b""
        self._collect(until)
        return self._replies.take(until)

    def _collect(self, until: float | None) -> None:
        data = self._device.take(until)
        if not data:
            return
        effect = NO_EFFECT if self._faults.quiet else self._faults.strike(self.name, self._slot.name)
        if "stuck" in effect or "hang" in effect:
            return
        self._replies.put(self._faults.garble(effect, data), effect.late_s)
