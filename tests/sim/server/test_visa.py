"""Real pyvisa with pyvisa-py against both VISA servers, and raw HiSLIP where it would never go."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import pyvisa

from sim.server.hislip import CHUNK, HEADER, MAX_MESSAGE, HislipServer, Type, pack
from sim.server.hislip_locks import ERROR, EXCLUSIVE, FAILURE, SHARED, Locks
from sim.server.rawscpi import RawScpiServer
from tests.sim.server.twins import Counter

T = TypeVar("T")


@pytest.fixture(scope="module")
def manager() -> Iterator[Any]:
    made = pyvisa.ResourceManager("@py")
    yield made
    made.close()


async def using(manager: Any, resource: str, work: Callable[[Any], T]) -> T:
    """Run `work(session)` in a thread, as the bus does."""

    def run() -> T:
        with manager.open_resource(resource) as session:
            session.timeout = 5000
            session.chunk_size = CHUNK
            return work(session)

    return await asyncio.to_thread(run)


@asynccontextmanager
async def hislip() -> AsyncIterator[tuple[Counter, int]]:
    twin = Counter()
    server = HislipServer(twin)
    try:
        yield twin, await server.start()
    finally:
        await server.close()


def name(port: int) -> str:
    return f"TCPIP::127.0.0.1::hislip0,{port}::INSTR"


async def test_identity_blocks_clear_and_status(manager: Any) -> None:
    def work(session: Any) -> None:
        assert session.query("*IDN?").strip() == "QM,COUNTER,1,1.0"
        data = session.query_binary_values("BLOC? 2097152", datatype="B", container=bytes)
        assert data == bytes(range(256)) * 8192
        session.clear()
        assert session.query("LENG? x").strip() == "9"  # with CR LF
        assert session.read_stb() == 0

    async with hislip() as (_, port):
        await using(manager, name(port), work)


async def test_a_reply_not_read_never_answers_the_next_query(manager: Any) -> None:
    def work(session: Any) -> str:
        session.write("*IDN?")
        answer: str = session.query("LENG? 12345")
        return answer.strip()

    async with hislip() as (_, port):
        assert await using(manager, name(port), work) == "13"


async def test_a_program_message_of_many_chunks_arrives_whole(manager: Any) -> None:
    data = bytes(range(256)) * 9000  # more than two chunks, newlines inside

    def work(session: Any) -> int:
        session.write_raw(b"LENG? " + data)
        return int(session.read_raw())

    async with hislip() as (twin, port):
        assert await using(manager, name(port), work) == len(data) + 6
    assert twin.seen == [b"LENG? " + data]


async def test_a_client_may_come_again_and_a_server_too(manager: Any) -> None:
    async with hislip() as (_, port):
        for _ in range(3):
            assert (await using(manager, name(port), lambda s: s.query("*IDN?"))).startswith("QM")
    twin = Counter()
    server = HislipServer(twin)
    assert await server.start(port=port) == port
    assert (await using(manager, name(port), lambda s: s.query("*IDN?"))).startswith("QM")
    await server.close()


async def test_a_taken_port_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async with hislip() as (_, port):
        second = HislipServer(Counter())
        assert await second.start(port=port) != port
        await second.close()
    assert "cannot be had again" in caplog.text


async def test_raw_socket_with_pyvisa(manager: Any) -> None:
    def work(session: Any) -> bytes:
        session.read_termination = session.write_termination = "\n"
        assert session.query("*IDN?") == "QM,COUNTER,1,1.0"
        session.write_raw(b"LENG? #15a\nb\n\n\n")
        assert session.read() == "14"
        got: bytes = session.query_binary_values("BLOC? 70000", datatype="B", container=bytes)
        return got

    twin = Counter()
    twin.late_s = 0.01
    server = RawScpiServer(twin)
    port = await server.start()
    try:
        data = await using(manager, f"TCPIP::127.0.0.1::{port}::SOCKET", work)
    finally:
        await server.close()
    assert data == (bytes(range(256)) * 274)[:70000]
    assert twin.seen[1] == b"LENG? #15a\nb\n\n"


async def test_raw_socket_unplugged_hangs_up() -> None:
    twin = Counter()
    twin.present = False
    server = RawScpiServer(twin)
    async with channel(await server.start()) as raw:
        raw.writer.write(b"*IDN?\n")
        assert await dropped(raw)
    await server.close()
    assert twin.seen == []


class Raw:
    """A HiSLIP client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, *message: Any) -> tuple[int, int, int, bytes]:
        self.writer.write(pack(*message))
        return await self.hear()

    async def hear(self) -> tuple[int, int, int, bytes]:
        async with asyncio.timeout(5.0):
            _, kind, control, parameter, length = HEADER.unpack(await self.reader.readexactly(HEADER.size))
            return kind, control, parameter, await self.reader.readexactly(length)


@asynccontextmanager
async def channel(port: int) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def session(port: int) -> AsyncIterator[tuple[Raw, Raw]]:
    async with channel(port) as sync, channel(port) as other:
        kind, _, parameter, _ = await sync.ask(Type.INITIALIZE, 0, 0x01005858, b"hislip0")
        assert kind == Type.INITIALIZE_RESPONSE
        assert (await other.ask(Type.ASYNC_INITIALIZE, 0, parameter & 0xFFFF))[0] == Type.ASYNC_INITIALIZE_RESPONSE
        yield sync, other


async def test_message_ids_are_echoed_and_chunks_fit_the_client() -> None:
    async with hislip() as (_, port), session(port) as (sync, other):
        kind, *_, size = await other.ask(Type.ASYNC_MAX_MSG_SIZE, 0, 0, struct.pack("!Q", 1000))
        assert (kind, int.from_bytes(size, "big")) == (Type.ASYNC_MAX_MSG_SIZE_RESPONSE, MAX_MESSAGE)
        sync.writer.write(pack(Type.DATA, 0, 6, b"BLOC"))
        sync.writer.write(pack(Type.DATA_END, 0, 8, b"? 2000"))
        got = [await sync.hear() for _ in range(3)]
        assert [g[0] for g in got] == [Type.DATA, Type.DATA, Type.DATA_END]
        assert {g[2] for g in got} == {8}
        assert [len(g[3]) for g in got] == [984, 984, 2012 - 2 * 984]


async def test_a_lock_keeps_others_waiting_until_it_is_released() -> None:
    async with hislip() as (twin, port), session(port) as (_, holder), session(port) as (sync, waiter):
        assert (await holder.ask(Type.ASYNC_LOCK, 1, 1000))[1] == EXCLUSIVE
        assert (await waiter.ask(Type.ASYNC_LOCK_INFO))[1:3] == (1, 1)
        assert (await waiter.ask(Type.ASYNC_LOCK, 1, 0))[1] == FAILURE
        sync.writer.write(pack(Type.DATA_END, 0, 2, b"*IDN?"))
        assert (await waiter.ask(Type.ASYNC_STATUS_QUERY))[0] == Type.ASYNC_STATUS_RESPONSE
        assert twin.seen == []
        waiter.writer.write(pack(Type.ASYNC_LOCK, 1, 5000))
        assert (await holder.ask(Type.ASYNC_LOCK, 0))[1] == EXCLUSIVE
        assert (await waiter.hear())[1] == EXCLUSIVE
        assert (await sync.hear())[3] == b"QM,COUNTER,1,1.0\n"
        assert (await waiter.ask(Type.ASYNC_LOCK, 0))[1] == EXCLUSIVE
        assert (await waiter.ask(Type.ASYNC_LOCK, 0))[1] == ERROR


async def test_a_lock_ends_with_its_session() -> None:
    async with hislip() as (_, port), session(port) as (_, waiter):
        async with session(port) as (_, holder):
            assert (await holder.ask(Type.ASYNC_LOCK, 1, 0))[1] == EXCLUSIVE
            waiter.writer.write(pack(Type.ASYNC_LOCK, 1, 5000))
        assert (await waiter.hear())[1] == EXCLUSIVE


async def test_small_messages() -> None:
    async with hislip() as (twin, port), session(port) as (sync, other):
        sync.writer.write(pack(Type.TRIGGER, 0, 2))
        assert (await other.ask(Type.ASYNC_REMOTE_LOCAL_CONTROL, 1))[0] == Type.ASYNC_REMOTE_LOCAL_RESPONSE
        assert (await other.ask(Type.ASYNC_DEVICE_CLEAR))[0] == Type.ASYNC_DEVICE_CLEAR_ACKNOWLEDGE
        assert (await sync.ask(Type.DEVICE_CLEAR_COMPLETE))[0] == Type.DEVICE_CLEAR_ACKNOWLEDGE
        assert (await other.ask(Type.DATA))[:2] == (Type.ERROR, 1)
        assert (await sync.ask(Type.ASYNC_LOCK_INFO))[:2] == (Type.ERROR, 1)
        sync.writer.write(pack(Type.DATA, 0, 0, b"half a message"))
        sync.writer.write(pack(Type.ERROR))  # the client gives up on it
        assert (await sync.ask(Type.DATA_END, 0, 4, b"LENG?"))[2:] == (4, b"5\n")
        assert twin.seen == [b"*TRG", b"LENG?"]


async def test_a_late_reply_waits_in_scaled_time() -> None:
    twin = Counter()
    twin.late_s = 2.0
    server = HislipServer(twin, speed=100.0)
    loop = asyncio.get_running_loop()
    async with session(await server.start()) as (sync, _):
        begun = loop.time()
        assert (await sync.ask(Type.DATA_END, 0, 4, b"LENG?"))[3] == b"5\n"
        assert loop.time() - begun >= 0.02
    await server.close()


async def test_an_unplugged_instrument_drops_its_clients_and_takes_none() -> None:
    async with hislip() as (twin, port):
        async with session(port) as (sync, other):
            twin.present = False
            sync.writer.write(pack(Type.DATA_END, 0, 4, b"LENG?"))
            assert await dropped(sync)
            assert await dropped(other)
        async with channel(port) as raw:
            assert await dropped(raw)
    assert twin.seen == []


async def dropped(raw: Raw) -> bool:
    try:
        return await asyncio.wait_for(raw.reader.read(), 5.0) == b""
    except ConnectionResetError:
        return True


async def test_a_program_message_beyond_the_limit_is_an_error_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.server.hislip.MAX_MESSAGE", 100)
    async with hislip() as (_, port), session(port) as (sync, _):
        sync.writer.write(pack(Type.DATA, 0, 0, bytes(80)))
        assert (await sync.ask(Type.DATA_END, 0, 0, bytes(80)))[:2] == (Type.ERROR, 4)
        assert (await sync.ask(Type.DATA_END, 0, 4, b"LENG?"))[3] == b"5\n"
        assert (await sync.ask(Type.DATA_END, 0, 4, bytes(101)))[0] == Type.FATAL_ERROR


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"GET / HTTP/1.1\r\n", 1),
        (pack(Type.DATA), 3),
        (pack(Type.INITIALIZE, 0, 0, b"hislip7"), 3),
        (pack(Type.ASYNC_INITIALIZE, 0, 99), 3),
    ],
)
async def test_a_wrong_beginning_is_fatal(message: bytes, code: int) -> None:
    async with hislip() as (_, port), channel(port) as raw:
        raw.writer.write(message)
        assert (await raw.hear())[:2] == (Type.FATAL_ERROR, code)
        assert await raw.reader.read() == b""


async def test_data_before_the_second_channel_is_fatal() -> None:
    async with hislip() as (_, port), channel(port) as raw:
        await raw.ask(Type.INITIALIZE, 0, 0, b"")
        assert (await raw.ask(Type.DATA_END, 0, 0, b"*IDN?"))[:2] == (Type.FATAL_ERROR, 2)


def test_locks_are_shared_by_key() -> None:
    locks = Locks()
    assert [locks.request(1, b"k"), locks.request(1, b"k"), locks.request(2, b"other")] == [SHARED, ERROR, FAILURE]
    assert (locks.shuts_out(1), locks.shuts_out(2), locks.holders, locks.is_exclusive) == (False, True, 1, False)
    assert [locks.request(2, b"k"), locks.request(3, b"")] == [SHARED, FAILURE]
    assert [locks.request(1, b""), locks.request(1, b""), locks.request(2, b"")] == [EXCLUSIVE, ERROR, FAILURE]
    assert (locks.shuts_out(1), locks.shuts_out(2), locks.holders) == (False, True, 2)
    assert [locks.release(1), locks.release(1), locks.release(1)] == [EXCLUSIVE, SHARED, ERROR]
    locks.forget(2)
    assert locks.holders == 0
