"""Both doors joined in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from qmodd.channel import ChannelDown
from qmodd.clock import LoopClock
from qmodd.door_core import DoorCore
from qmodd.door_frames import Inbound
from qmodd.messages import Reply
from qmodd.outbox import Outbox
from qmodd.requests import Requests
from qmodd.uplink.memory import MemoryUplink
from qmodd.uplink.topics import Topics, module_of
from tests.uplink_fakes import ALIVE, EPOCH, MODULE, TRUST, HandClock, Log, request, running, until


@dataclass
class Core:
    module: str
    outbox: Outbox = field(default_factory=lambda: Outbox(None))
    acks: list[tuple[str, bytes]] = field(default_factory=list)
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        clock = LoopClock(asyncio.get_running_loop())
        requests = Requests(self.module, EPOCH, HandClock(), TRUST, {"stop": self.stop}, self.log)
        self.door = DoorCore(
            self.outbox, clock, ALIVE, self.module, requests.handle, lambda r, p: self.acks.append((r, p)), self.log
        )

    async def stop(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {}


@dataclass
class World:
    alice: Core
    bob: Core
    uplink: MemoryUplink
    published: list[tuple[str, str, bytes]]


@asynccontextmanager
async def world(
    latency_s: float = 0.0, receiver: Callable[[bytes], bytes | None] | None = None
) -> AsyncIterator[World]:
    alice, bob = Core(MODULE), Core("QM-B-0001")
    published: list[tuple[str, str, bytes]] = []
    receivers = {(MODULE, "kms"): receiver} if receiver else {}
    uplink = MemoryUplink(
        alice.door, bob.door, latency_s, receivers=receivers, on_publish=lambda *what: published.append(what)
    )
    async with running(uplink.run(), alice.door.serve_requests(), bob.door.serve_requests()), asyncio.timeout(10):
        await alice.door.channel.wait_connected()
        await bob.door.channel.wait_connected()
        yield World(alice, bob, uplink, published)
    assert not alice.door.uplink_connected
    alice.outbox.close()
    bob.outbox.close()


async def test_messages_arrive_in_order_after_the_latency() -> None:
    async with world(latency_s=0.01) as w:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for n in range(50):
            await w.alice.door.channel.send(bytes([n]))
        assert [(await w.bob.door.channel.receive())[0] for _ in range(50)] == list(range(50))
        assert loop.time() - begun >= 0.01
        await w.bob.door.channel.send(b"back")
        assert await w.alice.door.channel.receive() == b"back"


async def test_back_pressure_goes_from_end_to_end() -> None:
    async with world() as w:
        quarter = bytes(1024 * 1024)

        async def send() -> None:
            for _ in range(12):
                await w.alice.door.channel.send(quarter)

        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            for _ in range(200):
                await asyncio.sleep(0)
            assert not sending.done()
            for _ in range(12):
                assert await w.bob.door.channel.receive() == quarter


async def test_a_cut_loses_what_was_under_way_and_both_sides_know() -> None:
    async with world(latency_s=0.01) as w:
        await w.alice.door.channel.send(b"lost")
        await until(lambda: not w.alice.door.channel.outgoing)
        w.uplink.cut_peers()
        for core in (w.alice, w.bob):
            with pytest.raises(ChannelDown, match="closed the connection"):
                await core.door.channel.receive()
        w.uplink.connect_peers()
        assert await w.alice.door.channel.wait_connected() == 2
        assert await w.bob.door.channel.wait_connected() == 2
        await w.alice.door.channel.send(b"new")
        assert await w.bob.door.channel.receive() == b"new"


async def test_keys_reach_the_receiver_and_its_word_comes_back() -> None:
    async with world(receiver=lambda sealed: b"ack of " + sealed) as w:
        w.alice.outbox.put("keys/kms", b"sealed", kind="key")
        w.bob.outbox.put("keys/kms", b"to nobody", kind="key")
        await until(lambda: w.alice.acks == [("kms", b"ack of sealed")])
        assert w.alice.outbox.counts() == {"key_sent": 1}
        await until(lambda: w.bob.outbox.counts() == {"key_waiting": 1})
        assert (MODULE, "keys/kms", b"sealed") in w.published


async def test_a_receiver_that_does_not_believe_says_nothing() -> None:
    async with world(receiver=lambda _sealed: None) as w:
        w.alice.outbox.put("keys/kms", b"sealed", kind="key")
        await until(lambda: w.alice.outbox.counts() == {"key_sent": 1})
        assert w.alice.acks == []


async def test_telemetry_and_answers_are_published() -> None:
    async with world() as w:
        w.alice.door.telemetry("thermal", {"die_c": 30.0})
        w.uplink.request(MODULE, Inbound(topic=f"qmodd/v1/{MODULE}/command/stop", payload=request().payload()))
        await until(lambda: len(w.published) == 2)
        answers = {suffix: payload for _, suffix, payload in w.published}
        assert Reply.model_validate_json(answers["reply/ann"]).ok
        assert b"30.0" in answers["telemetry/thermal"]


def test_topics() -> None:
    topics = Topics("QM-A-0001")
    assert topics.alive == "qmodd/v1/QM-A-0001/alive"
    assert topics.command("stop") == "qmodd/v1/QM-A-0001/command/stop"
    assert topics.acknowledging("qmodd/v1/QM-A-0001/keys/kms/ack") == "kms"
    assert topics.acknowledging("qmodd/v1/QM-A-0001/command/stop") is None
    assert module_of(topics.telemetry("thermal")) == "QM-A-0001"
    assert module_of(topics.reply("ann")) == "QM-A-0001"
    assert module_of("other/topic/of/somebody") is None
