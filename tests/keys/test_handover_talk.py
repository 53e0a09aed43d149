"""The hand-over's tasks in simulated time: doors, service channel, broker and recipients in memory."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qmodd.channel import ChannelDown
from qmodd.clock import LoopClock
from qmodd.door_core import TELEMETRY_KEPT, DoorCore
from qmodd.door_frames import BrokerState
from qmodd.events import EventLog
from qmodd.keys.handover import MOST_WAITING, RETELL_S
from qmodd.keys.protocol import HandoverMessage, Message, decode, encode
from qmodd.messages import Alive, Event
from qmodd.uplink.memory import MemoryUplink
from sim.loop import SimulatedLoop
from tests.keys.sites import SIGNERS, Site, Two

LATENCY_S = 0.005


async def never(*_: Any) -> None:
    """No command comes."""


class Live:
    """A site with its door, event log and tasks."""

    def __init__(self, site: Site, clock: LoopClock) -> None:
        self.site, self.clock = site, clock
        self.serial = SIGNERS[site.name].name
        self.events = EventLog(None, clock, self.serial)
        self.events.listeners.append(self._publish)
        site.handover.record = self.events.record
        site.handover.clock = site.handover.notices.clock = clock
        site.kms.clock = clock
        site.store._clock = clock
        alive = Alive(state="online", epoch="0" * 16, version="0", since=clock.utc())
        self.door = DoorCore(site.outbox, clock, alive, self.serial, never, site.handover.on_key_ack)

    def _publish(self, entry: dict[str, Any]) -> None:
        self.site.outbox.put("event", Event.from_entry(entry).payload(), kind="event")

    async def talk(self) -> None:
        """Sessions over the channel, again after every cut, as an engine has them."""
        channel = self.door.channel

        async def send(message: Message) -> None:
            await channel.send(encode(message))

        async def listen() -> None:
            while True:
                heard = decode(await channel.receive())
                assert isinstance(heard, HandoverMessage)
                self.site.handover.hear(heard)

        while True:
            await channel.wait_connected()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(listen())
                    await self.site.handover.session(send)
            except* ChannelDown:
                pass  # the next connection is taken up


@dataclass
class World:
    two: Two
    a: Live
    b: Live
    uplink: MemoryUplink
    published: list[tuple[str, str, bytes]] = field(default_factory=list)

    def broker(self, connected: bool) -> None:
        for side in self.uplink._sides:
            side.door.feed(side.link, BrokerState(connected=connected))

    async def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.25)

    def at_rest(self) -> bool:
        """Every key may be handed out at both sites, and both modules know it."""
        made = sum(self.two.blocks.values())
        sql = "SELECT COUNT(*) FROM handover WHERE mine = 1 AND said = 2"
        return all(s.database.rows(sql) == [(made,)] for s in self.two.sites)


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    two, clock = Two(directory), LoopClock(asyncio.get_running_loop())
    lives = [Live(site, clock) for site in two.sites]
    published: list[tuple[str, str, bytes]] = []
    uplink = MemoryUplink(
        lives[0].door, lives[1].door, LATENCY_S,
        receivers={(s.serial, "kms"): s.site.kms.process for s in lives},
        notices={(s.serial, "kms"): s.site.kms.notice for s in lives},
        on_publish=lambda *what: published.append(what),
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for s in lives for work in (s.site.handover.run(), s.talk())]
        tasks.append(group.create_task(uplink.run()))
        await asyncio.sleep(0.1)
        yield World(two, lives[0], lives[1], uplink, published)
        for task in tasks:
            task.cancel()
    for site in two.sites:
        site.handover.close()
    two.close()


def simulated(directory: Path, script: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with world(directory) as made:
            await script(made)

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        runner.run(main())


def test_keys_become_usable_by_themselves(ram_path: Path) -> None:
    async def script(w: World) -> None:
        began = asyncio.get_running_loop().time()
        w.two.block(20)
        await w.until(w.at_rest)
        assert asyncio.get_running_loop().time() - began < 2.0
        usable = [f for f in w.a.events.entries if f["event"] == "key.usable"]
        assert sum(int(str(f["keys"])) for f in usable) == 20
        assert all(0.0 <= float(str(f["age_s"])) < 5.0 for f in usable)
        block = next(iter(w.two.blocks))
        found = await w.b.site.handover.revoke(w.b.site.store.select(block=block), "asked for")
        assert len(found.revoked) == 20
        await w.until(lambda: not w.a.site.handover.revoking() and not w.b.site.handover.revoking())
        assert w.a.site.usable() == w.b.site.usable() == {}
        assert not w.a.site.outbox.counts().get("key_sent")

    simulated(ram_path, script)


def test_words_that_were_lost_with_the_channel_are_said_again(ram_path: Path) -> None:
    async def script(w: World) -> None:
        w.uplink.cut_peers()
        w.two.block(8)
        await asyncio.sleep(30.0)
        assert w.a.site.store.ledger.waiting_for_far() == 8
        assert w.a.site.usable() == {}
        w.uplink.connect_peers()
        await w.until(w.at_rest, RETELL_S + 5.0)

    simulated(ram_path, script)


def test_a_block_in_doubt_is_asked_about_again_after_its_verdict(ram_path: Path) -> None:
    async def script(w: World) -> None:
        w.two.block(4, commit_far=False)
        await asyncio.sleep(3.0)
        assert w.a.site.store.ledger.waiting_for_far() == 4
        w.two.commit_far()
        await w.until(w.at_rest, 3 * RETELL_S)

    simulated(ram_path, script)


@pytest.mark.long
def test_a_broker_that_is_away_for_an_hour_costs_nothing(ram_path: Path) -> None:
    async def script(w: World) -> None:
        w.two.block(8)
        await w.until(w.at_rest)
        w.broker(False)
        tracemalloc.start()
        grown: list[int] = []
        for minute in range(60):
            w.two.block(20, lifetime_s=86_400.0)
            for second in range(60):
                for live in (w.a, w.b):
                    live.door.telemetry("keys", {"second": 60 * minute + second})
                    live.events.record("load.second", {"n": 60 * minute + second})
                if second == 0:
                    raised = b"" if minute % 2 else json.dumps({"minute": minute}).encode()
                    w.a.site.outbox.put("alarm/load", raised, kind="alarm", retain=True)
                await asyncio.sleep(1.0)
            w.a.events.entries.clear()
            w.b.events.entries.clear()
            grown.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert max(grown) - grown[4] < 4_000_000, grown
        assert len(w.a.door._telemetry) <= TELEMETRY_KEPT
        assert w.a.door.telemetry_dropped >= 3600 - TELEMETRY_KEPT
        assert len(w.a.site.handover._words) < MOST_WAITING
        before = len(w.published)
        w.broker(True)
        await w.until(w.at_rest, 600.0)
        assert w.two.a.usable() == w.two.b.usable()
        assert len(w.two.a.usable()) == 8 + 60 * 20
        since = w.published[before:]
        for live in (w.a, w.b):
            seqs = [json.loads(p)["seq"] for m, s, p in since if m == live.serial and s == "event"]
            assert seqs == sorted(set(seqs)), "events are out of order or there twice"
            loads = [json.loads(p) for m, s, p in since if m == live.serial and s == "event" and b"load.second" in p]
            assert [load["fields"]["n"] for load in loads] == list(range(3600))
        # The present truth first: of the alarm only what is so now.
        first_event = next(i for i, (_, s, _) in enumerate(since) if s == "event")
        alarms = [i for i, (m, s, _) in enumerate(since) if s == "alarm/load"]
        assert len(alarms) == 1
        assert alarms[0] < first_event

    simulated(ram_path, script)
