"""Message-based instruments over pyvisa: one message out, one message in.

Any failure closes the session; the next call opens a new one. That is the only resynchronisation that works for every
back-end: pyvisa-py's device clear expects the acknowledge as the next message and fails when a late reply is already
on its way, and a reply torn in the middle of a chunk leaves its HiSLIP reader between two headers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pyvisa import errors as visa_errors
from pyvisa.constants import StatusCode

from drivers.bus.lane import Lane
from drivers.bus.libraries import VisaLike
from drivers.bus.port import Port, io_fault
from drivers.errors import BusFault, DriverError, Timeout

T = TypeVar("T")
GRACE_S = 0.5
OPEN_S = 6.0
"""pyvisa-py's own connect time-out is 5 s."""

# pyvisa-py's HiSLIP reader raises RuntimeError for a dropped connection and asserts on unexpected headers.
_FAILURES = (OSError, visa_errors.Error, RuntimeError, AssertionError, ValueError)


class VisaIo:
    """The session during one transaction."""

    def __init__(self, session: VisaLike) -> None:
        self._session = session

    def write(self, message: bytes) -> None:
        self._session.write_raw(message)

    def query(self, message: bytes) -> bytes:
        """Send one message, return the whole reply as it came."""
        self._session.write_raw(message)
        return self._session.read_raw()


class VisaInstrument:
    """One resource. Transactions never interleave; each has the library's own time-out."""

    def __init__(self, address: str, opener: Callable[[], VisaLike], lane: Lane) -> None:
        self.address = address
        self.lane = lane
        self.port: Port[VisaLike] = Port(lane, opener, _FAILURES, self._classify, open_s=OPEN_S)

    async def run(self, work: Callable[[VisaIo], T], *, deadline_s: float = 2.0, harmless: bool = False) -> T:
        """Run `work(io)` as one transaction, e.g. a set followed by its query.

        `deadline_s` is the time-out of each read and write in it. Raises BusFault, Timeout, or what `work` raises.
        """

        def attempt(session: VisaLike) -> T:
            session.timeout = deadline_s * 1e3
            return work(VisaIo(session))

        return await self.port.run(attempt, deadline_s=deadline_s, harmless=harmless, hard_s=2 * deadline_s + GRACE_S)

    async def close(self) -> None:
        await self.port.close()

    def _classify(self, error: Exception) -> tuple[DriverError, bool]:
        name = self.lane.name
        if isinstance(error, BusFault | Timeout):
            return error, False
        if isinstance(error, DriverError):
            return error, True
        timed_out = isinstance(error, visa_errors.VisaIOError) and error.error_code == StatusCode.error_timeout
        if timed_out or isinstance(error, TimeoutError):
            return Timeout(f"{name}: no reply in time; the session is opened anew"), False
        return io_fault(name, error), False


def definite_block(message: bytes, name: str) -> bytes:
    """Contents of an IEEE 488.2 definite-length block (`#`, digit count, length, data, optional newline).

    Raises BusFault when the message is anything else, shorter or longer.
    """
    digits = message[1:2]
    if message[:1] != b"#" or not digits.isdigit() or digits == b"0":
        raise BusFault(f"{name}: expected a definite-length block, got {bytes(message[:20])!r}")
    start = 2 + int(digits)
    count = bytes(message[2:start])
    if not count.isdigit():
        raise BusFault(f"{name}: broken block length {count!r}")
    end = start + int(count)
    if len(message) < end or message[end:].strip(b"\r\n"):
        raise BusFault(f"{name}: block of {int(count)} bytes arrived as {len(message) - start}")
    return bytes(message[start:end])


def make_block(data: bytes) -> bytes:
    """`data` as an IEEE 488.2 definite-length block."""
    count = str(len(data)).encode()
    return b"#%d%s%s" % (len(count), count, data)
