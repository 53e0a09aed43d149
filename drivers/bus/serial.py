"""Serial lines over serial.Serial: an exchange is one piece of work with a deadline over all its reads."""

from __future__ import annotations

import termios
from collections.abc import Callable
from typing import TypeVar

from drivers.bus.lane import Lane
from drivers.bus.libraries import SerialLike
from drivers.bus.port import Port, io_fault
from drivers.errors import BusFault, DriverError, Timeout

T = TypeVar("T")
GRACE_S = 0.25
"""pyserial's own time-out comes first; the lane's follows this much later, for a driver that does not return."""


class SerialIo:
    """The line during one exchange. Every read ends at the exchange's deadline with Timeout."""

    def __init__(self, name: str, line: SerialLike, clock: Callable[[], float], deadline_s: float) -> None:
        self._name = name
        self._line = line
        self._clock = clock
        self._deadline_s = deadline_s
        self._ends = clock() + deadline_s

    def write(self, data: bytes) -> None:
        written = self._line.write(data)
        if written is not None and written != len(data):
            raise BusFault(f"{self._name}: {written} of {len(data)} bytes written")

    def flush_input(self) -> None:
        """Throw away what has arrived and was not asked for."""
        self._line.reset_input_buffer()

    def until(self, terminator: bytes, limit: int = 4096) -> bytes:
        """Read up to and including the terminator. Raises Timeout, BusFault after `limit` bytes without one."""
        self._line.timeout = self._left()
        data = self._line.read_until(terminator, limit)
        if data.endswith(terminator):
            return data
        if len(data) >= limit:
            raise BusFault(f"{self._name}: {limit} bytes without a terminator")
        raise Timeout(f"{self._name}: no complete reply within {self._deadline_s:.3g} s, got {data!r}")

    def exactly(self, count: int) -> bytes:
        """Read `count` bytes. Raises Timeout."""
        self._line.timeout = self._left()
        data = self._line.read(count)
        if len(data) != count:
            raise Timeout(f"{self._name}: no complete reply within {self._deadline_s:.3g} s, got {data!r}")
        return data

    def restart(self) -> None:
        """Give the rest of the exchange the full deadline again (used between resynchronising and asking)."""
        self._ends = self._clock() + self._deadline_s

    def _left(self) -> float:
        left = self._ends - self._clock()
        if left <= 0:
            raise Timeout(f"{self._name}: no complete reply within {self._deadline_s:.3g} s")
        return left


class SerialLine:
    """One line. After a failed exchange the input is flushed before the next request is sent."""

    def __init__(self, address: str, opener: Callable[[], SerialLike], lane: Lane) -> None:
        self.address = address
        self.lane = lane
        self.port: Port[SerialLike] = Port(lane, opener, (OSError, termios.error), self._classify, open_s=1.0)
        self._broken = False

    async def exchange(
        self, work: Callable[[SerialIo], T], *, deadline_s: float, harmless: bool = False, steps: int = 1
    ) -> T:
        """Run `work(io)` as one transaction. `steps`: how often `work` may restart the deadline, plus one.

        Raises BusFault, Timeout, or what `work` raises.
        """
        return await self.port.run(
            lambda line: self._exchange(line, work, deadline_s),
            deadline_s=deadline_s,
            harmless=harmless,
            hard_s=deadline_s * steps + GRACE_S,
        )

    async def close(self) -> None:
        await self.port.close()

    def _exchange(self, line: SerialLike, work: Callable[[SerialIo], T], deadline_s: float) -> T:
        io = SerialIo(self.lane.name, line, self.lane.clock, deadline_s)
        if self._broken:
            io.flush_input()
            self.lane.counters.resyncs += 1
        # Set before and cleared after, so that an exchange that never returns counts as broken too.
        self._broken = True
        result = work(io)
        self._broken = False
        return result

    def _classify(self, error: Exception) -> tuple[DriverError, bool]:
        if isinstance(error, DriverError):
            return error, True
        if isinstance(error, TimeoutError):
            return Timeout(f"{self.lane.name}: the line timed out"), True
        return io_fault(self.lane.name, error), False
