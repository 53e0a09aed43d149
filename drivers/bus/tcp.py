"""Plain TCP instruments: delimited lines, and JSON objects that may arrive glued together.

Any failure closes the connection; replies that arrive late meet a socket that is gone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from drivers.bus.lane import Lane
from drivers.bus.libraries import SocketLike
from drivers.bus.port import Port, io_fault
from drivers.errors import BusFault, DriverError, Timeout

T = TypeVar("T")
GRACE_S = 0.25
POLL_S = 0.001
"""How long a look for what has arrived waits."""
MAX_BUFFER = 1 << 20


class TcpPort:
    """A connection and the bytes received on it that nobody has taken yet."""

    def __init__(self, address: str, opener: Callable[[], SocketLike], lane: Lane) -> None:
        self.address = address
        self.lane = lane
        self.port: Port[SocketLike] = Port(lane, self._open(opener), (OSError,), self._classify, open_s=3.0)
        self.buffer = bytearray()

    async def run(
        self, work: Callable[[SocketLike], T], *, deadline_s: float, harmless: bool = False, fresh: bool = False
    ) -> T:
        """Run `work(socket)` as one transaction, `fresh`: on a new connection. Raises BusFault, Timeout, or what
        `work` raises."""
        hard_s = deadline_s + GRACE_S
        return await self.port.run(work, deadline_s=deadline_s, harmless=harmless, hard_s=hard_s, fresh=fresh)

    async def close(self) -> None:
        """Close the connection and end the lane's thread; the next call opens both again."""
        await self.port.close()

    def receive(self, sock: SocketLike, timeout_s: float) -> None:
        """Wait for more bytes. Raises TimeoutError, BusFault when the far end closed or floods."""
        sock.settimeout(timeout_s)
        data = sock.recv(65536)
        if not data:
            raise BusFault(f"{self.lane.name}: the far end closed the connection")
        self.buffer += data
        if len(self.buffer) > MAX_BUFFER:
            raise BusFault(f"{self.lane.name}: more than {MAX_BUFFER} bytes without a delimiter")

    def _open(self, opener: Callable[[], SocketLike]) -> Callable[[], SocketLike]:
        def fresh() -> SocketLike:
            self.buffer.clear()
            return opener()

        return fresh

    def _classify(self, error: Exception) -> tuple[DriverError, bool]:
        if isinstance(error, BusFault | Timeout):
            return error, False
        if isinstance(error, DriverError):
            return error, True
        if isinstance(error, TimeoutError):
            return Timeout(f"{self.lane.name}: no reply in time; the connection is opened anew"), False
        return io_fault(self.lane.name, error), False


class TcpLine:
    """A stream of lines from an instrument that talks by itself."""

    def __init__(self, tcp: TcpPort, delimiter: bytes = b"\n") -> None:
        self.tcp = tcp
        self._delimiter = delimiter

    async def arrived(self, *, deadline_s: float = 0.25, fresh: bool = False) -> list[bytes]:
        """Whole lines that have arrived since the last call, without delimiters; [] if there are none.

        `fresh`: since a connection made now.
        """
        return await self.tcp.run(self._take, deadline_s=deadline_s, fresh=fresh)

    async def close(self) -> None:
        await self.tcp.close()

    def _take(self, sock: SocketLike) -> list[bytes]:
        ends = self.tcp.lane.clock() + 0.1  # a flood must not keep the lane for ever
        with contextlib.suppress(TimeoutError, BlockingIOError):  # nothing more has arrived
            while self.tcp.lane.clock() < ends:
                self.tcp.receive(sock, POLL_S)
        *lines, rest = bytes(self.tcp.buffer).split(self._delimiter)
        self.tcp.buffer[:] = rest
        return lines


class TcpJson:
    """JSON objects both ways. Objects from the instrument end with `delimiter` or follow one another directly.

    Replies carry no number, and what belongs to one request has no end mark. So every exchange has a connection of its
    own: nothing that was asked for before can arrive on it.
    """

    def __init__(self, tcp: TcpPort, delimiter: bytes = b"\x17") -> None:
        self.tcp = tcp
        self._delimiter = delimiter

    async def ask(
        self,
        requests: list[dict[str, Any]],
        take: Callable[[dict[str, Any]], T | None],
        *,
        deadline_s: float = 1.0,
        harmless: bool = False,
    ) -> T:
        """Send requests, then hand every object that arrives to `take` until it returns something.

        Raises Timeout, BusFault, or what `take` raises.
        """

        def work(sock: SocketLike) -> T:
            sock.settimeout(deadline_s)
            for request in requests:
                sock.sendall(json.dumps(request).encode())
            return self._await(sock, take, deadline_s)

        return await self.tcp.run(work, deadline_s=deadline_s, harmless=harmless, fresh=True)

    async def close(self) -> None:
        await self.tcp.close()

    def _await(self, sock: SocketLike, take: Callable[[dict[str, Any]], T | None], deadline_s: float) -> T:
        clock = self.tcp.lane.clock
        ends = clock() + deadline_s
        while True:
            for item in split_json(self.tcp.buffer, self._delimiter):
                if (result := take(item)) is not None:
                    return result
            left = ends - clock()
            if left <= 0:
                raise Timeout(f"{self.tcp.lane.name}: no such answer within {deadline_s:.3g} s")
            self.tcp.receive(sock, left)


def split_json(buffer: bytearray, delimiter: bytes) -> list[dict[str, Any]]:
    """Take every complete JSON object off the front of `buffer` (changed in place).

    Objects may be delimited, glued together, or both. What is not JSON is skipped up to the next delimiter, so a
    garbled reply costs itself only; an unfinished object stays for the next call.
    """
    found: list[dict[str, Any]] = []
    *whole, rest = bytes(buffer).split(delimiter)
    for piece in whole:
        found += _objects(piece)[0]
    objects, used = _objects(rest)
    buffer[:] = rest[used:]
    return found + objects


def _objects(piece: bytes) -> tuple[list[dict[str, Any]], int]:
    """Objects at the front of a piece and how many bytes they take."""
    text = piece.decode("latin-1")  # one character a byte, so that positions are byte positions
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    at = 0
    while True:
        start = at + len(text[at:]) - len(text[at:].lstrip())
        try:
            item, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            return found, at
        if isinstance(item, dict):
            found.append(item)
