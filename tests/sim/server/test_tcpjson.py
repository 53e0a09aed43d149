from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sim.clock import ManualClock, RealClock
from sim.server.tcpjson import MAX_UNREAD, TcpCommandServer, TcpStreamServer
from tests.sim.server.twins import Echo, Lines


@asynccontextmanager
async def client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


@asynccontextmanager
async def command(twin: Echo, server: TcpCommandServer) -> AsyncIterator[int]:
    try:
        yield await server.start()
    finally:
        await server.close()


async def test_replies_go_to_who_asked() -> None:
    twin = Echo()
    async with command(twin, TcpCommandServer(twin, ManualClock())) as port, client(port) as a, client(port) as b:
        for reader, writer in (a, b, a):
            writer.write(b'{"request":"labelProps"}\x17')
            assert await asyncio.wait_for(reader.readuntil(b"\x17"), 5.0) == b'{"request":"labelProps"}\x17'


async def test_a_delayed_reply_comes_by_itself() -> None:
    clock = RealClock(100.0)
    twin = Echo(clock, 1.0)
    async with command(twin, TcpCommandServer(twin, clock, speed=100.0)) as port, client(port) as (reader, writer):
        begun = clock.now()
        writer.write(b"x")
        assert await asyncio.wait_for(reader.readexactly(1), 5.0) == b"x"
        assert clock.now() - begun >= 1.0


async def test_a_reply_to_nobody_is_dropped_and_unplugging_resets() -> None:
    twin = Echo()
    server = TcpCommandServer(twin, ManualClock())
    async with command(twin, server) as port:
        async with client(port) as (reader, writer):
            writer.write(b"x")
            await reader.readexactly(1)
            twin.present = False
            server.poll()
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 5.0)
        twin.present = True
        twin.feed(b"to nobody")
        server.poll()
        async with client(port) as (reader, writer):
            writer.write(b"y")
            assert await asyncio.wait_for(reader.readexactly(1), 5.0) == b"y"


async def test_lines_go_to_every_client_that_reads() -> None:
    twin = Lines()
    server = TcpStreamServer(twin)
    port = await server.start()
    async with client(port) as (a, _), client(port) as (b, _):
        for _ in range(1000):
            if len(server._clients) == 2:
                break
            await asyncio.sleep(0)
        server.poll(0.0)
        twin.waiting = b"1.0,12,13\n"
        server.poll(1.0)
        assert await a.readline() == await b.readline() == b"1.0,12,13\n"
        # A client that leaves more than this unread misses what comes after.
        twin.waiting = b"x" * (16 * MAX_UNREAD) + b"\n"
        server.poll(2.0)
        twin.waiting = b"missed\n"
        server.poll(3.0)
        assert len(await a.readexactly(16 * MAX_UNREAD + 1)) == len(await b.readexactly(16 * MAX_UNREAD + 1))
        twin.waiting = b"next\n"
        server.poll(4.0)
        assert await a.readline() == await b.readline() == b"next\n"
    await server.close()
