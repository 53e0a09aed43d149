"""Plain TCP instruments: a command port over a twin that takes and gives bytes, and a port that streams lines."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol, runtime_checkable

from sim.clock import SimClock
from sim.server.listening import Listening
from sim.server.pty import SHORTEST_WAIT_S, SerialTwin

MAX_UNREAD = 1 << 20
"""Bytes that a client may leave unread before it misses lines."""


@runtime_checkable
class StreamTwin(Protocol):
    """An instrument that talks by itself, a line a measurement period."""

    def stream_lines(self, now: float, /) -> bytes:
        """Whole lines since the last call, at world time `now`, s; b"" without any."""
        ...


class TcpCommandServer:
    """The command port. What the twin says goes to the client that spoke last, delayed replies included."""

    def __init__(self, twin: SerialTwin, clock: SimClock, *, speed: float = 1.0) -> None:
        self._twin = twin
        self._clock = clock
        self._speed = speed
        self._listening = Listening(self._serve)
        self._clients: set[asyncio.StreamWriter] = set()
        self._last: asyncio.StreamWriter | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Returns the port. Raises OSError."""
        return await self._listening.start(host, port)

    async def close(self) -> None:
        self._disarm()
        await self._listening.close()

    def poll(self) -> None:
        """Pass on what the instrument has to say by now, and arrange to look again when more is due."""
        if not self._twin.present:
            self._disarm()
            self._reset_clients()
            return
        data = self._twin.take()
        if data and self._last is not None and not self._last.is_closing():
            self._last.write(data)
        self._disarm()
        if self._twin.due is not None:
            wait = max(SHORTEST_WAIT_S, (self._twin.due - self._clock.now()) / self._speed)
            self._timer = asyncio.get_running_loop().call_later(wait, self.poll)

    def _reset_clients(self) -> None:
        """The instrument lost its supply: connections are reset, new ones too as soon as they speak."""
        for client in self._clients:
            client.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while data := await reader.read(1 << 16):
                self._last = writer
                self._twin.feed(data)
                self.poll()
                await writer.drain()
        finally:
            self._clients.discard(writer)
            if self._last is writer:
                self._last = None

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class TcpStreamServer:
    """The broadcast port: every client gets every line from when it connects."""

    def __init__(self, twin: StreamTwin) -> None:
        self._twin = twin
        self._listening = Listening(self._serve)
        self._clients: set[asyncio.StreamWriter] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Returns the port. Raises OSError."""
        return await self._listening.start(host, port)

    async def close(self) -> None:
        await self._listening.close()

    def poll(self, now: float) -> None:
        """Send what the twin has measured by world time `now`, s."""
        lines = self._twin.stream_lines(now)
        if not lines:
            return
        for client in self._clients:
            if not client.is_closing() and client.transport.get_write_buffer_size() < MAX_UNREAD:
                client.write(lines)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            with contextlib.suppress(ConnectionError):
                while await reader.read(4096):  # nothing is asked on this port; only the end is of interest
                    continue
        finally:
            self._clients.discard(writer)
