"""The service channel between two uplinks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from qmodd.door_channel import cost
from qmodd.door_frames import CHANNEL_WINDOW_BYTES, ChannelCredit, ChannelData, Frame, PeerState
from qmodd.uplink import relay as r
from qmodd.uplink.relay import Relay, RelayBroken, RelayDeframer, frame, split_address
from tests.uplink_fakes import running


@dataclass
class Core:
    """What a relay hands to its core."""

    frames: asyncio.Queue[Frame] = field(default_factory=asyncio.Queue)

    async def __call__(self, frame: Frame) -> None:
        await self.frames.put(frame)

    async def next(self) -> Frame:
        async with asyncio.timeout(5):
            return await self.frames.get()


@dataclass
class Pair:
    alice: Relay
    bob: Relay
    to_alice: Core
    to_bob: Core
    port: int


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    to_alice, to_bob, port = Core(), Core(), asyncio.Event()
    alice, bob = Relay("QM-A-0001", to_alice), Relay("QM-B-0001", to_bob)
    ports: list[int] = []

    def listening(number: int) -> None:
        ports.append(number)
        port.set()

    async with running(alice.listen("127.0.0.1", 0, listening)) as group:
        await port.wait()
        connecting = group.create_task(bob.connect("127.0.0.1", ports[0]))
        try:
            yield Pair(alice, bob, to_alice, to_bob, ports[0])
        finally:
            connecting.cancel()


async def test_messages_pass_both_ways_whole_and_in_order() -> None:
    async with pair() as p:
        assert await p.to_alice.next() == PeerState(up=True, link=1)
        assert await p.to_bob.next() == PeerState(up=True, link=1)
        assert (p.alice.peer, p.bob.peer) == ("QM-B-0001", "QM-A-0001")
        big = bytes(range(256)) * 4096
        for message in (b"", big, b"last"):
            p.alice.from_core(ChannelData(link=1, data=message))
        for message in (b"", big, b"last"):
            assert await p.to_bob.next() == ChannelData(link=1, data=message)
            assert await p.to_alice.next() == ChannelCredit(link=1, taken=cost(message))
        p.bob.from_core(ChannelData(link=1, data=b"back"))
        assert await p.to_alice.next() == ChannelData(link=1, data=b"back")
        p.bob.from_core(ChannelData(link=9, data=b"for a connection that ended"))
        p.bob.credit(ChannelCredit(link=9, taken=1))
        assert await p.to_bob.next() == ChannelCredit(link=1, taken=cost(b"back"))


async def test_a_core_that_does_not_take_stops_the_peer() -> None:
    async with pair() as p:
        await p.to_alice.next()
        await p.to_bob.next()
        half = bytes(CHANNEL_WINDOW_BYTES // 2)
        for _ in range(3):
            p.alice.from_core(ChannelData(link=1, data=half))
        await p.to_bob.next()
        await p.to_bob.next()
        p.alice.from_core(ChannelData(link=1, data=b"after"))
        assert p.to_bob.frames.empty()
        for _ in range(2):
            p.bob.credit(ChannelCredit(link=1, taken=cost(half)))
        assert await p.to_bob.next() == ChannelData(link=1, data=half)
        assert await p.to_bob.next() == ChannelData(link=1, data=b"after")


async def test_a_peer_that_goes_is_noticed_and_met_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(r, "RECONNECT_S", 0.01)
    async with pair() as p:
        await p.to_alice.next()
        await p.to_bob.next()
        assert p.bob._writer is not None
        p.bob._writer.close()
        down = await p.to_alice.next()
        assert isinstance(down, PeerState)
        assert (down.up, down.link) == (False, 1)
        assert "closed" in down.why
        assert await p.to_alice.next() == PeerState(up=True, link=2)


async def test_silence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(r, "DEAD_AFTER_S", 0.1)
    monkeypatch.setattr(r, "HEARTBEAT_S", 60.0)
    async with pair() as p:
        await p.to_alice.next()
        down = await p.to_alice.next()
        assert isinstance(down, PeerState)
        assert down.why == "no sign of life from the peer's uplink for 0.1 s"


async def test_heartbeats_keep_a_silent_channel_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(r, "HEARTBEAT_S", 0.005)
    async with pair() as p:
        await p.to_alice.next()
        reader, writer = await asyncio.open_connection("127.0.0.1", p.port)
        assert await reader.read() == b""  # one peer at a time
        writer.close()
        await writer.wait_closed()
        assert p.alice.connected
        assert p.to_alice.frames.empty()


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.1\r\n\r\n", frame(b"D", b"x"), frame(b"H", b"other"), b""])
async def test_a_stranger_is_not_taken_for_a_peer(hello: bytes) -> None:
    to_core, port = Core(), asyncio.Queue[int]()
    alice = Relay("QM-A-0001", to_core)
    async with running(alice.listen("127.0.0.1", 0, port.put_nowait)), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", await port.get())
        writer.write(hello)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        assert not alice.connected
        assert to_core.frames.empty()


async def test_bob_waits_for_an_alice_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(r, "RECONNECT_S", 0.0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        bob = Relay("QM-B-0001", Core())
        async with running(bob.connect(*unused.getsockname())):
            for _ in range(20):
                await asyncio.sleep(0)
        assert not bob.connected


def test_a_frame_that_cannot_be_ends_the_connection() -> None:
    for data in (bytes(4), b"\xff" * 4):
        with pytest.raises(RelayBroken, match="frame of"):
            list(RelayDeframer().feed(data))


def test_addresses() -> None:
    assert split_address("alice.example:7700") == ("alice.example", 7700)
    assert split_address("[::1]:7700") == ("::1", 7700)
    for wrong in ("alice", "alice:x", ""):
        with pytest.raises(ValueError, match="HOST:PORT"):
            split_address(wrong)
