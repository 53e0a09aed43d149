from __future__ import annotations

import asyncio
import errno
import json
from pathlib import Path
from typing import Any

import pytest

from sim.clock import ManualClock, RealClock
from sim.server import endpoints as where
from sim.server.bus_server import Buses
from sim.server.busproto import (
    HANG,
    Frames,
    I2cMessage,
    Open,
    Operation,
    Rdwr,
    Reply,
    Request,
    Smbus,
    Spi,
    SpiTransfer,
    decode_reply,
    encode_request,
    frame,
)
from sim.server.world_server import SLICE_S, AlreadyServed, WorldServer, serve
from tests.sim.server.twins import Bench, Lines, StillWorld


def ask(bench: Bench, path: str, operation: Operation, module: str = "alice") -> Reply:
    return Buses("alice", bench).serve(Request(module, path, operation))


def test_i2c_requests_reach_the_part() -> None:
    bench = Bench()
    assert ask(bench, "/dev/i2c-1", Open()) == Reply(0)
    assert ask(bench, "/dev/i2c-1", Smbus(0x48, True, 0x0F, 3, b"")).payload[:2] == b"\x01\x17"
    messages = (I2cMessage(0x48, 0, 1, b"\x0f"), I2cMessage(0x48, 1, 2))
    assert ask(bench, "/dev/i2c-1", Rdwr(messages)) == Reply(2, b"\x01\x17")
    assert bench.i2c[1].seen[-1] == (0x48, [(0, b"\x0f"), (1, 2)])
    elsewhere = (*messages, I2cMessage(0x50, 0, 1, b"x"))
    assert ask(bench, "/dev/i2c-1", Rdwr(elsewhere)) == Reply(-errno.ENXIO)


def test_chip_select_rises_where_the_caller_says() -> None:
    bench = Bench()
    transfers = (SpiTransfer(1, 10, tx=b"a"), SpiTransfer(2, 10, cs_change=True), SpiTransfer(1, 20, tx=b"b"))
    assert ask(bench, "/dev/spidev0.0", Spi(1, transfers)) == Reply(4, b"\x9e\xff\xff\x9d")
    assert bench.spi[0, 0].frames == [(b"a\0\0", 1, 10), (b"b", 1, 20)]
    assert ask(bench, "/dev/spidev0.0", Spi(0, (SpiTransfer(0, 10),))) == Reply(0)


@pytest.mark.parametrize(
    ("path", "operation", "code"),
    [
        ("/dev/i2c-9", Open(), errno.ENOENT),
        ("/dev/spidev1.0", Open(), errno.ENOENT),
        ("/dev/ttyS0", Open(), errno.ENOENT),
        ("/dev/i2c-1", Spi(0, ()), errno.ENOTTY),
        ("/dev/spidev0.0", Rdwr(()), errno.ENOTTY),
    ],
)
def test_what_there_is_not(path: str, operation: Operation, code: int) -> None:
    assert ask(Bench(), path, operation) == Reply(-code)


def test_each_socket_serves_its_own_module() -> None:
    assert ask(Bench(), "/dev/i2c-1", Open(), module="bob") == Reply(-errno.ENOENT)


def test_a_part_that_breaks_is_eio_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.spi[0, 0].frames = None  # type: ignore[assignment]
    assert ask(bench, "/dev/spidev0.0", Spi(0, (SpiTransfer(1, 1),))) == Reply(-errno.EIO)
    assert "failed" in caplog.text


class Client:
    """A supervisor's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self._frames = reader, writer, Frames()
        self._ready: list[bytes] = []

    async def hear(self) -> Reply:
        while not self._ready:
            data = await asyncio.wait_for(self.reader.read(4096), 5.0)
            assert data
            self._ready += self._frames.feed(data)
        return decode_reply(self._ready.pop(0))

    async def ask(self, path: str, operation: Operation) -> Reply:
        self.writer.write(encode_request(Request("alice", path, operation)))
        return await self.hear()


async def connect(path: str) -> Client:
    return Client(*await asyncio.open_unix_connection(path))


async def test_everything_is_up_and_written_down(tmp_path: Path) -> None:
    rigs = {"alice": Bench(tcp={}), "bob": Bench(serial={}, scpi={})}
    factory = {"alice": {"serial": "QA1"}, "bob": {"serial": "QB1"}}
    async with WorldServer(StillWorld(), rigs, tmp_path, ManualClock(), factory=factory) as server:
        found = json.loads((tmp_path / "endpoints.json").read_text())
        assert found == server.endpoints
        assert found["alice"] == {
            "bus": str(tmp_path / "alice.bus"),
            "serial": {"tec": str(tmp_path / "alice-tec")},
            "visa": {"source": found["alice"]["visa"]["source"]},
        }
        assert set(found["bob"]["tcp"]) == {"snspd", "snspd_counts"}
        assert found["factory"]["bob"] == str(tmp_path / "bob-factory.json")
        assert json.loads((tmp_path / "bob-factory.json").read_text()) == {"serial": "QB1"}
        client = await connect(found["bob"]["bus"])
        client.writer.write(encode_request(Request("bob", "/dev/i2c-1", Open())))
        assert await client.hear() == Reply(0)
        client.writer.close()
    assert not (tmp_path / "bob.bus").exists()


async def test_a_hanging_bus_says_so_and_later_times_out_without_a_transfer(tmp_path: Path) -> None:
    bench, looks = Bench(), iter([True, True, False, False])
    bench.i2c[1].hangs = lambda: next(looks)
    async with WorldServer(StillWorld(), {"alice": bench}, tmp_path, ManualClock()) as server:
        client = await connect(server.endpoints["alice"]["bus"])
        assert await client.ask("/dev/i2c-1", Smbus(0x48, True, 0, 2, b"")) == Reply(HANG)
        assert await client.hear() == Reply(-errno.ETIMEDOUT)
        assert bench.i2c[1].seen == []
        assert (await client.ask("/dev/i2c-1", Smbus(0x48, True, 0, 2, b""))).status == 0
        client.writer.close()


async def test_a_client_that_goes_while_a_bus_hangs_is_forgotten(tmp_path: Path) -> None:
    bench = Bench()
    bench.i2c[1].hangs = lambda: True
    async with WorldServer(StillWorld(), {"alice": bench}, tmp_path, ManualClock()) as server:
        client = await connect(server.endpoints["alice"]["bus"])
        assert await client.ask("/dev/i2c-1", Smbus(0x48, True, 0, 2, b"")) == Reply(HANG)
        client.writer.close()
        await client.writer.wait_closed()


async def test_nonsense_closes_the_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with WorldServer(StillWorld(), {"alice": Bench()}, tmp_path, ManualClock()) as server:
        client = await connect(server.endpoints["alice"]["bus"])
        client.writer.write(frame(b"\xff"))
        assert await client.reader.read() == b""
        client.writer.close()
    assert "connection closed" in caplog.text


async def test_a_restart_takes_the_same_ports(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    for _ in range(2):
        (tmp_path / "alice.bus").touch()  # as a crash leaves it
        async with WorldServer(StillWorld(), {"alice": Bench()}, tmp_path, ManualClock()) as server:
            seen.append(server.endpoints)
    assert seen[0] == seen[1]


async def test_one_directory_one_world(tmp_path: Path) -> None:
    async with WorldServer(StillWorld(), {}, tmp_path, ManualClock()):
        with pytest.raises(AlreadyServed, match=str(tmp_path)):
            await WorldServer(StillWorld(), {}, tmp_path, ManualClock()).__aenter__()
    async with WorldServer(StillWorld(), {}, tmp_path, ManualClock()):
        pass


@pytest.mark.parametrize("text", ["", "[]", '{"alice": {"visa": {"x": "TCPIP::h"}}}', '{"alice": {"tcp": {"x": "h"}}}'])
def test_a_torn_endpoints_file_gives_new_ports(tmp_path: Path, text: str) -> None:
    (tmp_path / where.FILE).write_text(text)
    assert where.previous_ports(tmp_path) == {}


async def test_the_world_is_looked_at_and_says_its_lines_until_cancelled(tmp_path: Path) -> None:
    world, bench = StillWorld(drawn=[0.01, 0.01]), Bench()
    lines = bench.tcp["snspd_counts"]
    assert isinstance(lines, Lines)
    up: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    server = asyncio.create_task(serve(world, {"bob": bench}, tmp_path, RealClock(2.0), speed=2.0, ready=up.put_nowait))
    endpoints = await up.get()
    host, _, port = endpoints["bob"]["tcp"]["snspd_counts"].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines.waiting = b"0.1,5\n"
    assert await asyncio.wait_for(reader.readline(), 5.0) == b"0.1,5\n"
    writer.close()
    server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server
    assert len(world.pumped) >= 3
    assert bench.ticks >= 3
    assert set(world.pumped) == {2.0 * SLICE_S}
