"""The service channel between two uplinks: whole messages over TCP. One side listens, the other connects.

Wire: u32 big-endian length of what follows, one kind byte (H hello, D data, B heartbeat), payload. Carries bytes and
believes nothing; what is believed is decided in core (`qmodd.keys.authentication`). Needs no broker. A peer that is
silent for `DEAD_AFTER_S` is gone; a peer that merely reads slowly is waited for.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Literal

from qmodd.door_channel import cost
from qmodd.door_frames import CHANNEL_WINDOW_BYTES, MAX_MESSAGE_BYTES, ChannelCredit, ChannelData, Frame, PeerState

HEARTBEAT_S = 0.5
DEAD_AFTER_S = 2.0
RECONNECT_S = 0.25
HELLO_PREFIX = b"qmodd-relay-1 "

_HEADER = struct.Struct(">I")
Kind = Literal[b"H", b"D", b"B"]
ToCore = Callable[[Frame], Awaitable[None]]


class RelayBroken(Exception):
    """The connection between the two uplinks ended; the message says why."""


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    return _HEADER.pack(len(payload) + 1) + kind + payload


class RelayDeframer:
    """Cuts the stream into (kind, payload)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Raises RelayBroken on a frame that cannot be."""
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _HEADER.size:
                (length,) = _HEADER.unpack_from(self._buffer, at)
                if not 1 <= length <= MAX_MESSAGE_BYTES + 1:
                    raise RelayBroken(f"the peer sent a frame of {length} bytes")
                end = at + _HEADER.size + length
                if len(self._buffer) < end:
                    break
                body = bytes(self._buffer[at + _HEADER.size : end])
                at = end
                yield body[:1], body[1:]
        finally:
            del self._buffer[:at]


def split_address(address: str) -> tuple[str, int]:
    """'host:port'. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


class Relay:
    """Between one connection to core and one peer at a time; `link` numbers the peer's connections."""

    def __init__(self, module: str, to_core: ToCore) -> None:
        self.module = module
        self.peer = ""
        self.link = 0
        self.connected = False
        self._to_core = to_core
        self._outgoing: deque[ChannelData] = deque()
        self._wake = asyncio.Event()
        self._open_bytes = 0
        self._granted = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    # from core

    def from_core(self, data: ChannelData) -> None:
        """Queue a message for the peer (bounded: core sends no more than it has credit for)."""
        if self.connected and data.link == self.link:
            self._outgoing.append(data)
            self._wake.set()

    def credit(self, credit: ChannelCredit) -> None:
        if credit.link == self.link:
            self._open_bytes = max(0, self._open_bytes - credit.taken)
            self._granted.set()

    # the two ways to meet

    async def listen(self, host: str, port: int, listening: Callable[[int], None] = lambda _port: None) -> None:
        """Serve one peer at a time; a second one is turned away while the first is alive. Runs until cancelled.

        `listening` is told the port. Raises OSError when the address cannot be had.
        """
        async with asyncio.TaskGroup() as group:

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                if self.connected:
                    writer.close()
                else:
                    group.create_task(self._once(reader, writer), name="relay connection")

            server = await asyncio.start_server(accept, host, port)
            listening(server.sockets[0].getsockname()[1])
            try:
                await server.serve_forever()
            finally:
                server.close()

    async def connect(self, host: str, port: int) -> None:
        """Connect, and again whenever the connection ends. Runs until cancelled."""
        while True:
            try:
                async with asyncio.timeout(DEAD_AFTER_S):
                    reader, writer = await asyncio.open_connection(host, port)
            except (OSError, TimeoutError):
                pass  # nobody there yet: core has been told that the peer is down
            else:
                await self._once(reader, writer)
            await asyncio.sleep(RECONNECT_S)

    async def _once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        why = "the peer's uplink closed the connection"
        try:
            await self._converse(reader, writer)
        except* RelayBroken as e:
            why = str(e.exceptions[0])
        except* OSError as e:
            why = f"connection to the peer's uplink broke: {e.exceptions[0]}"
        finally:
            writer.close()
        if self.connected and writer is self._writer:
            self._forget()
            await self._to_core(PeerState(up=False, link=self.link, why=why[:200]))

    def _forget(self) -> None:
        self.connected = False
        self._outgoing.clear()
        self._open_bytes = 0
        self._granted.set()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer.write(frame(b"H", HELLO_PREFIX + self.module.encode()))
        async with asyncio.TaskGroup() as group, aclosing(_messages(reader)) as messages:
            group.create_task(self._heartbeat(writer), name="relay heartbeat")
            kind, hello = await anext(messages)
            if kind != b"H" or not hello.startswith(HELLO_PREFIX) or len(hello) > 64:
                raise RelayBroken("the other side is not an uplink of ours")
            if self.connected:
                raise RelayBroken("another peer came first")
            await self._met(hello, writer)
            group.create_task(self._send(writer), name="relay sender")
            async for kind, payload in messages:
                if kind == b"D":
                    await self._take(payload)

    async def _met(self, hello: bytes, writer: asyncio.StreamWriter) -> None:
        self.peer = hello[len(HELLO_PREFIX) :].decode("ascii", "replace")
        self._forget()
        self._writer = writer
        self.link += 1
        self.connected = True
        await self._to_core(PeerState(up=True, link=self.link))

    async def _take(self, payload: bytes) -> None:
        """Hand a message to core when core has room; meanwhile nothing is read, which slows the peer."""
        while self._open_bytes >= CHANNEL_WINDOW_BYTES:
            self._granted.clear()
            await self._granted.wait()
        self._open_bytes += cost(payload)
        await self._to_core(ChannelData(link=self.link, data=payload))

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        while True:
            while not self._outgoing:
                self._wake.clear()
                await self._wake.wait()
            data = self._outgoing.popleft()
            writer.write(frame(b"D", data.data))
            await writer.drain()
            await self._to_core(ChannelCredit(link=data.link, taken=cost(data.data)))

    async def _heartbeat(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if writer.transport.get_write_buffer_size() == 0:  # else what waits there is sign of life enough
                writer.write(frame(b"B"))


async def _messages(reader: asyncio.StreamReader) -> AsyncGenerator[tuple[bytes, bytes], None]:
    """What the peer sends. Raises RelayBroken at the end, or when nothing came for `DEAD_AFTER_S`."""
    deframer = RelayDeframer()
    while True:
        try:
            async with asyncio.timeout(DEAD_AFTER_S):
                data = await reader.read(65_536)
        except TimeoutError:
            raise RelayBroken(f"no sign of life from the peer's uplink for {DEAD_AFTER_S:g} s") from None
        if not data:
            raise RelayBroken("the peer's uplink closed the connection")
        for item in deframer.feed(data):
            yield item
