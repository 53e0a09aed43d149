"""Serial instruments behind ptys: what pyserial opens, with the twin of an instrument at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pty
import tty
from collections import deque
from pathlib import Path
from typing import Protocol

from sim.clock import SimClock

BITS_PER_BYTE = 10
"""Start bit, eight data bits, stop bit."""
MAX_PENDING = 1 << 16
"""Bytes kept for a reader that does not read; a UART would have lost them long before."""

SHORTEST_WAIT_S = 1e-4


class SerialTwin(Protocol):
    """An instrument on a serial line or a TCP connection.

    `due`: world time, s, at which a delayed reply can be taken; None without one. `present`: False while unplugged.
    """

    def feed(self, data: bytes, /) -> None: ...
    def take(self) -> bytes: ...
    @property
    def due(self) -> float | None: ...
    @property
    def present(self) -> bool: ...


class Wire:
    """Pure part: when which bytes leave, given the line's speed. Times are world time, s."""

    def __init__(self, baud: int | None) -> None:
        self._byte_s = BITS_PER_BYTE / baud if baud else 0.0
        self._queue: deque[tuple[float, bytes]] = deque()
        self._heard = 0.0
        self._free = 0.0

    def received(self, now: float, count: int) -> None:
        """A request of `count` bytes has begun to arrive."""
        self._heard = max(now, self._heard) + count * self._byte_s

    def send(self, now: float, data: bytes) -> None:
        """The instrument sends: after the request has come in and earlier replies have gone out."""
        start = max(now, self._heard, self._free)
        self._free = start + len(data) * self._byte_s
        self._queue.append((self._free, data))

    def take(self, now: float) -> bytes:
        """What has left by `now`."""
        out = bytearray()
        while self._queue and self._queue[0][0] <= now:
            out += self._queue.popleft()[1]
        return bytes(out)

    @property
    def due(self) -> float | None:
        return self._queue[0][0] if self._queue else None


class PtyEndpoint:
    """A pty, reachable by a link, over one twin. Runs on the loop that `start` is called from; `poll` it now and then.

    An instrument that is unplugged hangs up, as a USB adapter does, and comes back as another pty.

    baud: simulate the time that bytes take on the line; None: none. speed: world seconds a real second.
    """

    def __init__(
        self, twin: SerialTwin, link: Path, clock: SimClock, *, baud: int | None = None, speed: float = 1.0
    ) -> None:
        self.link = link
        self._twin = twin
        self._clock = clock
        self._speed = speed
        self._wire = Wire(baud)
        self._pending = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._descriptors: tuple[int, int] | None = None

    def start(self) -> None:
        """Open the pty and put the link in place, over any old one. Raises OSError."""
        master, slave = pty.openpty()
        # Raw before anyone opens it, or what the instrument sends first is echoed back to it. The slave stays open
        # here, or the master reads EIO between two users.
        tty.setraw(slave)
        os.set_blocking(master, False)
        self._descriptors = (master, slave)
        fresh = self.link.with_name(self.link.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        fresh.symlink_to(os.ttyname(slave))
        fresh.replace(self.link)
        asyncio.get_running_loop().add_reader(master, self._readable, master)

    def close(self) -> None:
        """Hang up: the user's reads and writes fail from now on, and the link leads nowhere."""
        self._disarm()
        if self._descriptors is None:
            return
        master, slave = self._descriptors
        self._descriptors = None
        loop = asyncio.get_running_loop()
        loop.remove_reader(master)
        loop.remove_writer(master)
        os.close(slave)
        os.close(master)

    def poll(self) -> None:
        """Pass on what the instrument has to say by now, and arrange to look again when more is due."""
        if not self._twin.present:
            self.close()
            return
        if self._descriptors is None:
            self.start()  # plugged in again
        now = self._clock.now()
        data = self._twin.take()
        if data:
            self._wire.send(now, data)
        self._pending += self._wire.take(now)
        del self._pending[MAX_PENDING:]
        self._flush()
        self._arm(now)

    def _readable(self, master: int) -> None:
        try:
            data = os.read(master, 65536)
        except OSError as e:
            if e.errno in (errno.EAGAIN, errno.EIO):
                return
            raise
        self._wire.received(self._clock.now(), len(data))
        self._twin.feed(data)
        self.poll()

    def _arm(self, now: float) -> None:
        self._disarm()
        times = [t for t in (self._twin.due, self._wire.due) if t is not None]
        if times:
            wait = max(SHORTEST_WAIT_S, (min(times) - now) / self._speed)
            self._timer = asyncio.get_running_loop().call_later(wait, self.poll)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        if self._descriptors is None:
            return
        master, loop = self._descriptors[0], asyncio.get_running_loop()
        if self._pending:
            with contextlib.suppress(BlockingIOError):
                del self._pending[: os.write(master, self._pending)]
        if self._pending:
            loop.add_writer(master, self._flush)
        else:
            loop.remove_writer(master)
