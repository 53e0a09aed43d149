"""The door: what core sends, what it takes, and what it never does for an uplink that was taken over."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd import budget, cbor, door_core
from qmodd import door_frames as f
from qmodd.channel import ChannelDown
from qmodd.door import Door, listen
from qmodd.door_channel import cost
from qmodd.door_core import DoorCore
from qmodd.messages import Alive, Reply
from qmodd.outbox import Outbox
from qmodd.requests import Requests
from qmodd.uplink.client import DoorClosed, DoorSession, open_door
from tests.uplink_fakes import ALIVE, EPOCH, MODULE, TRUST, HandClock, Log, request, running, until

TOPIC = f"qmodd/v1/{MODULE}/command/stop"


class Bench:
    """A core behind its door: requests that would move an output, and keys that would be marked as delivered."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.outbox = Outbox(None)
        self.moved: list[Mapping[str, Any]] = []
        self.acks: list[tuple[str, bytes]] = []
        self.log = Log()
        self.requests = Requests(MODULE, EPOCH, self.clock, TRUST, {"stop": self.move}, self.log)

    async def move(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.moved.append(arguments)
        return {}

    def key_ack(self, recipient: str, payload: bytes) -> None:
        self.acks.append((recipient, payload))

    def core(self, **changes: Any) -> DoorCore:
        handle = changes.pop("on_request", self.requests.handle)
        return DoorCore(self.outbox, self.clock, ALIVE, MODULE, handle, self.key_ack, self.log)

    def door(self, path: Path) -> Door:
        handle = self.requests.handle
        return Door(path, self.outbox, self.clock, handle, self.key_ack, alive=ALIVE, module=MODULE, report=self.log)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def attach(core: DoorCore, *, broker: bool = True) -> int:
    link = core.attach()
    core.feed(link, f.Hello())
    if broker:
        core.feed(link, f.BrokerState(connected=True))
    return link


async def take(core: DoorCore, link: int, n: int) -> list[f.Frame]:
    async with asyncio.timeout(5):
        return [await core.next_frame(link) for _ in range(n)]


def nothing_to_send(core: DoorCore) -> bool:
    return core._poll() is None


# frames


@pytest.mark.parametrize(
    "frame",
    [
        f.Hello(module=MODULE, alive=ALIVE.payload()),
        f.Publish(id=1, suffix="event", payload=b"x", qos=1, retain=False, key=False, expires_in_s=3),
        f.Telemetry(group="thermal", payload=b"{}"),
        f.Answer(client="ann", payload=b"{}", correlation=b"c"),
        f.ChannelData(link=1, data=b"\x00" * 100_000),
        f.ChannelCredit(link=1, taken=5),
        f.Bye(),
    ],
)
def test_frames_come_back_however_they_are_cut(frame: f.Frame) -> None:
    data = f.pack(frame) * 2
    whole = f.Deframer(f.FROM_CORE)
    assert list(whole.feed(data)) == [frame, frame]
    cut = f.Deframer(f.FROM_CORE)
    got = [x for at in range(0, len(data), 7001) for x in cut.feed(data[at : at + 7001])]
    assert got == [frame, frame]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "frame of 0 bytes"),
        (b"\x02" + cbor.encode({}), "type 2 is not for this direction"),
        (b"\x03" + cbor.encode({"id": 1, "ok": True}), "code: missing"),
        (b"\x03" + cbor.encode({"id": 1, "ok": 1, "code": 0}), "ok: bool_type"),
        (b"\x03" + cbor.encode({"id": -1, "ok": True, "code": 0}), "id: greater_than_equal"),
        (b"\x03" + cbor.encode({"id": 1, "ok": True, "code": 0, "x": 1}), "x: extra_forbidden"),
        (b"\x03" + cbor.encode([1]), "model"),
        (b"\x03\xff", "not acceptable CBOR"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(f.ProtocolError, match=why):
        list(f.Deframer(f.FROM_UPLINK).feed(struct.pack(">I", len(body)) + body))


def test_a_frame_over_the_limit_is_refused_by_its_length() -> None:
    with pytest.raises(f.ProtocolError, match="8388609 bytes"):
        list(f.Deframer(f.FROM_UPLINK).feed(struct.pack(">I", f.MAX_FRAME_BYTES + 1)))
    with pytest.raises(ValueError, match="at most"):
        f.pack(
            f.Inbound(topic="t" * 200, payload=bytes(f.MAX_FRAME_BYTES - 4096), correlation=bytes(1024)).model_copy(
                update={"payload": bytes(f.MAX_FRAME_BYTES)}
            )
        )


# core


async def test_core_greets_and_then_tells_the_truth_first(bench: Bench) -> None:
    bench.outbox.put("event", b"1", kind="event")
    bench.outbox.put("state", b"2", kind="state", retain=True)
    core = bench.core()
    core.telemetry("thermal", {"die_c": 30.0})
    link = attach(core)
    hello, first, second, last = await take(core, link, 4)
    assert isinstance(hello, f.Hello)
    assert Alive.model_validate_json(hello.alive) == ALIVE
    assert isinstance(first, f.Publish)
    assert isinstance(second, f.Publish)
    assert [first.suffix, second.suffix] == ["state", "event"]
    assert isinstance(last, f.Telemetry)
    assert json.loads(last.payload) == {"t": bench.clock.utc().timestamp(), "seq": 1, "die_c": 30.0, "dropped_count": 0}
    core.feed(link, f.Published(id=second.id, ok=True, code=0))
    core.feed(link, f.Published(id=first.id, ok=True, code=0))
    assert bench.outbox.counts() == {"state_published": 1}
    assert core.uplink_connected
    assert core.broker_connected


async def test_without_a_broker_nothing_is_published_and_nothing_is_lost(bench: Bench) -> None:
    bench.outbox.put("event", b"1", kind="event")
    core = bench.core()
    link = attach(core, broker=False)
    await take(core, link, 1)
    assert nothing_to_send(core)
    core.feed(link, f.BrokerState(connected=True))
    (row,) = await take(core, link, 1)
    core.feed(link, f.BrokerState(connected=False))
    core.feed(link, f.BrokerState(connected=True))
    assert await take(core, link, 1) == [row]
    assert bench.log.names == ["uplink.connected", "broker.connected", "broker.lost", "broker.connected"]


async def test_an_undelivered_row_is_tried_again_later(bench: Bench) -> None:
    row = bench.outbox.put("keys/kms", b"sealed", kind="key", expiry=bench.clock.utc())
    core = bench.core()
    link = attach(core)
    _, first = await take(core, link, 2)
    assert isinstance(first, f.Publish)
    assert (first.key, first.expires_in_s) == (True, 1)
    core.feed(link, f.Published(id=row, ok=False, code=0x10))
    assert nothing_to_send(core)
    bench.clock.t += door_core.RETRY_FIRST_S
    assert next(x for x in await take(core, link, 1) if isinstance(x, f.Publish)).payload == b"sealed"
    core.feed(link, f.Published(id=row, ok=True, code=0))
    assert nothing_to_send(core)
    bench.clock.t += door_core.KEY_RECEIPT_WAIT_S
    assert isinstance((await take(core, link, 1))[0], f.Publish)


async def test_next_frame_wakes_when_a_retry_is_due(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_core, "RETRY_FIRST_S", 0.0)
    row = bench.outbox.put("event", b"1", kind="event")
    core = bench.core()
    link = attach(core)
    await take(core, link, 2)
    core.feed(link, f.Published(id=row, ok=False, code=0x97))
    assert isinstance((await take(core, link, 1))[0], f.Publish)


async def test_the_window_bounds_what_is_under_way(bench: Bench) -> None:
    for n in range(door_core.PUBLISH_WINDOW + 5):
        bench.outbox.put("event", str(n).encode(), kind="event")
    core = bench.core()
    link = attach(core)
    rows = (await take(core, link, door_core.PUBLISH_WINDOW + 1))[1:]
    assert nothing_to_send(core)
    for row in rows:
        assert isinstance(row, f.Publish)
        core.feed(link, f.Published(id=row.id, ok=True, code=0))
    rest = await take(core, link, 5)
    assert [r.payload for r in rest if isinstance(r, f.Publish)] == [b"64", b"65", b"66", b"67", b"68"]


async def test_telemetry_keeps_the_newest_and_counts_what_it_drops(bench: Bench) -> None:
    core = bench.core()
    for n in range(door_core.TELEMETRY_KEPT + 3):
        core.telemetry("thermal", {"n": n})
    assert core.telemetry_dropped == 3
    link = attach(core)
    frames = (await take(core, link, door_core.TELEMETRY_KEPT + 1))[1:]
    values = [json.loads(x.payload) for x in frames if isinstance(x, f.Telemetry)]
    assert values[0]["n"] == 3
    assert values[-1]["dropped_count"] == 2


async def test_what_is_over_time_is_not_published(bench: Bench) -> None:
    bench.outbox.put("event", b"1", kind="event", expiry=bench.clock.utc() - timedelta(seconds=1))
    core = bench.core()
    link = attach(core)
    await take(core, link, 1)
    assert nothing_to_send(core)


async def test_a_request_is_answered_through_the_door(bench: Bench) -> None:
    core = bench.core()
    link = attach(core)
    await take(core, link, 1)
    async with running(core.serve_requests()):
        core.feed(link, f.Inbound(topic=TOPIC, payload=request().payload(), correlation=b"mark"))
        (answer,) = await take(core, link, 1)
    assert isinstance(answer, f.Answer)
    assert (answer.client, answer.correlation) == ("ann", b"mark")
    assert Reply.model_validate_json(answer.payload).ok
    assert len(bench.moved) == 1


async def test_long_work_does_not_hold_up_the_next_request(bench: Bench) -> None:
    release, served = asyncio.Event(), asyncio.Event()

    async def handle(inbound: f.Inbound, answer: Callable[[str, bytes], None]) -> None:
        if inbound.payload == b"long":
            await release.wait()
        else:
            served.set()

    core = bench.core(on_request=handle)
    link = attach(core)
    async with running(core.serve_requests()), asyncio.timeout(5):
        core.feed(link, f.Inbound(topic=TOPIC, payload=b"long"))
        core.feed(link, f.Inbound(topic=TOPIC, payload=b"safe"))
        await served.wait()
        release.set()


async def test_more_requests_than_core_reads_are_dropped_and_counted(bench: Bench) -> None:
    core = bench.core()
    link = attach(core)
    for _ in range(door_core.REQUESTS_AT_ONCE + 4):
        core.feed(link, f.Inbound(topic=TOPIC, payload=b""))
    assert core.requests_dropped == 4
    assert bench.log.names.count("request.dropped") == 3  # at 1, 2 and 4


async def test_what_uplink_may_cost_is_limited(bench: Bench) -> None:
    core = bench.core()
    link = attach(core)
    for _ in range(1000):
        core.feed(link, f.KeyReceipt(recipient="kms", payload=b""))
    assert len(bench.acks) == budget.CHECKS_BURST
    bench.clock.t += 0.1
    for _ in range(1000):
        core.feed(link, f.KeyReceipt(recipient="kms", payload=b""))
    assert len(bench.acks) == budget.CHECKS_BURST + 10


async def test_answers_are_bounded(bench: Bench) -> None:
    async def handle(inbound: f.Inbound, answer: Callable[[str, bytes], None]) -> None:
        for n in range(door_core.ANSWERS_KEPT + 2):
            answer("ann", str(n).encode())

    core = bench.core(on_request=handle)
    link = attach(core, broker=False)
    async with running(core.serve_requests()):
        core.feed(link, f.Inbound(topic=TOPIC, payload=b""))
        await until(lambda: core.answers_dropped == 2)


async def test_a_new_uplink_replaces_the_old_one(bench: Bench) -> None:
    core = bench.core()
    old = attach(core)
    new = attach(core)
    with pytest.raises(f.ProtocolError, match="replaced"):
        core.feed(old, f.BrokerState(connected=False))
    with pytest.raises(f.ProtocolError, match="replaced"):
        await core.next_frame(old)
    core.detach(old, "late")
    assert core.uplink_connected
    core.detach(new, "gone")
    assert not core.uplink_connected
    assert not core.broker_connected


@pytest.mark.parametrize("frame", [f.BrokerState(connected=True), f.Hello(version=2)])
async def test_a_wrong_greeting_is_refused(bench: Bench, frame: f.Frame) -> None:
    core = bench.core()
    with pytest.raises(f.ProtocolError):
        core.feed(core.attach(), frame)


async def test_a_second_greeting_is_refused(bench: Bench) -> None:
    core = bench.core()
    with pytest.raises(f.ProtocolError, match="Hello is not for this state"):
        core.feed(attach(core), f.Hello())


# the service channel


async def test_the_channel_carries_messages_both_ways(bench: Bench) -> None:
    core = bench.core()
    link = attach(core)
    await take(core, link, 1)
    assert not core.channel.connected
    with pytest.raises(ChannelDown, match="not connected"):
        await core.channel.send(b"x")
    core.feed(link, f.PeerState(up=True, link=7))
    assert await core.channel.wait_connected() == 1
    await core.channel.send(b"out")
    assert await take(core, link, 1) == [f.ChannelData(link=7, data=b"out")]
    core.feed(link, f.ChannelData(link=7, data=b"in"))
    core.feed(link, f.ChannelData(link=6, data=b"of an earlier connection"))
    assert await core.channel.receive() == b"in"
    assert await take(core, link, 1) == [f.ChannelCredit(link=7, taken=cost(b"in"))]
    with pytest.raises(ValueError, match="at most"):
        await core.channel.send(bytes(f.MAX_MESSAGE_BYTES + 1))


async def test_a_lost_connection_is_told_once_and_the_next_one_has_another_number(bench: Bench) -> None:
    core = bench.core()
    link = attach(core)
    core.feed(link, f.PeerState(up=True, link=1))
    assert await core.channel.wait_connected() == 1
    async with asyncio.TaskGroup() as group:
        receiving = group.create_task(_down(core.channel.receive()))
        await asyncio.sleep(0)
        core.feed(link, f.PeerState(up=False, link=1, why="no sign of life"))
        core.feed(link, f.PeerState(up=True, link=2))
    assert receiving.result() == "the connection ended and a new one was made"
    core.feed(link, f.ChannelData(link=2, data=b"of the new one"))
    with pytest.raises(ChannelDown, match="a new one was made"):
        await core.channel.receive()
    with pytest.raises(ChannelDown, match="a new one was made"):
        await core.channel.send(b"x")
    assert await core.channel.wait_connected() == 2
    assert await core.channel.receive() == b"of the new one"
    core.detach(link, "killed")
    with pytest.raises(ChannelDown, match="uplink is not connected: killed"):
        await core.channel.receive()
    assert bench.log.names[-2:] == ["broker.lost", "uplink.lost"]


async def _down(call: Any) -> str:
    try:
        await call
    except ChannelDown as e:
        return str(e)
    return "it came through"


async def test_a_receiver_of_an_ended_connection_does_not_slip_into_the_next(bench: Bench) -> None:
    core = bench.core()
    link = attach(core)
    core.feed(link, f.PeerState(up=True, link=1))
    await core.channel.wait_connected()
    async with asyncio.TaskGroup() as group:
        receiving = group.create_task(_down(core.channel.receive()))
        await asyncio.sleep(0)
        core.feed(link, f.PeerState(up=True, link=2))
        await core.channel.wait_connected()
        core.feed(link, f.ChannelData(link=2, data=b"new"))
    assert "new one" in receiving.result()


async def test_a_slow_peer_stops_the_sender(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    core = bench.core()
    link = attach(core)
    core.feed(link, f.PeerState(up=True, link=1))
    await core.channel.wait_connected()
    big = bytes(f.CHANNEL_WINDOW_BYTES)
    await core.channel.send(big)
    async with asyncio.TaskGroup() as group:
        second = group.create_task(core.channel.send(b"second"))
        await asyncio.sleep(0)
        assert not second.done()
        core.feed(link, f.ChannelCredit(link=1, taken=cost(big)))
        core.feed(link, f.ChannelCredit(link=99, taken=1))


async def test_more_than_was_granted_or_sent_ends_the_link(bench: Bench) -> None:
    core = bench.core()
    link = attach(core)
    core.feed(link, f.PeerState(up=True, link=1))
    core.feed(link, f.ChannelData(link=1, data=bytes(f.CHANNEL_WINDOW_BYTES)))
    with pytest.raises(f.ProtocolError, match="than were granted"):
        core.feed(link, f.ChannelData(link=1, data=b""))
    with pytest.raises(f.ProtocolError, match="than were sent"):
        core.feed(link, f.ChannelCredit(link=1, taken=1))


async def test_waiting_for_a_peer_ends_when_it_comes(bench: Bench) -> None:
    core = bench.core()
    link = attach(core)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(core.channel.wait_connected())
        await asyncio.sleep(0)
        core.feed(link, f.PeerState(up=False, link=0))
        core.feed(link, f.PeerState(up=True, link=1))
    assert waiting.result() == 1


# the socket


@asynccontextmanager
async def served(bench: Bench, tmp_path: Path) -> AsyncIterator[Door]:
    door = bench.door(tmp_path / "door")
    async with running(door.run()):
        await until(door.path.is_socket)
        yield door


async def test_the_socket_is_closed_to_others_and_gone_after_the_stop(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "door").touch()  # left behind by a core that was killed
    async with served(bench, tmp_path) as door:
        assert stat.S_IMODE(door.path.stat().st_mode) == 0o600
        async with open_door(door.path) as session, asyncio.timeout(5):
            frames = session.frames()
            assert isinstance(await anext(frames), f.Hello)
            assert session.alive == ALIVE
            await bench.log.until("uplink.connected")
    assert not door.path.exists()


async def test_a_stop_on_purpose_is_told_and_a_missing_core_is_named(bench: Bench, tmp_path: Path) -> None:
    door = bench.door(tmp_path / "door")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        serving = group.create_task(door.run())
        await until(door.path.is_socket)
        async with open_door(door.path) as session:
            frames = session.frames()
            await anext(frames)
            await bench.log.until("uplink.connected")
            serving.cancel()
            assert isinstance(await anext(frames), f.Bye)
            with pytest.raises(DoorClosed, match="core stopped"):
                await anext(frames)
            with pytest.raises(DoorClosed, match=r"core closed the door|broke"):
                await asyncio.gather(*[session.send(f.Hello()) for _ in range(3)])
    with pytest.raises(DoorClosed, match="No such file"):
        async with open_door(tmp_path / "door"):
            pass


async def hostile(path: Path, data: bytes) -> bytes:
    """Sends anything and returns all that core says until it hangs up or has nothing to say."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    writer.write_eof()
    said = await reader.read()
    writer.close()
    return said


async def test_malformed_frames_drop_the_link_with_a_reason_and_core_goes_on(bench: Bench, tmp_path: Path) -> None:
    async with served(bench, tmp_path) as door, asyncio.timeout(10):
        await hostile(door.path, b"\xff\xff\xff\xff")
        assert await bench.log.until("uplink.refused") == "dropped: frame of 4294967295 bytes; allowed are 1 to 8388608"
        async with open_door(door.path) as session:
            await anext(session.frames())
            await session.send(f.BrokerState(connected=True))
            await bench.log.until("broker.connected")


async def test_a_newer_uplink_takes_the_place_of_a_hung_one(bench: Bench, tmp_path: Path) -> None:
    async with served(bench, tmp_path) as door, asyncio.timeout(10):
        async with open_door(door.path) as old:
            old_frames = old.frames()
            await anext(old_frames)
            await bench.log.until("uplink.connected")
            async with open_door(door.path) as new:
                await anext(new.frames())
                with pytest.raises(DoorClosed):
                    await anext(old_frames)
                await bench.log.until("uplink.connected", 2)
                assert door.uplink_connected
        await bench.log.until("uplink.lost", 2)


CAPTURED = request()
frames_of_uplink = st.one_of(
    st.builds(f.Published, id=st.integers(0, 50), ok=st.booleans(), code=st.integers(0, 255)),
    st.builds(f.KeyReceipt, recipient=st.sampled_from(["kms", "x"]), payload=st.binary(max_size=200)),
    st.builds(f.BrokerState, connected=st.booleans()),
    st.builds(f.PeerState, up=st.booleans(), link=st.integers(0, 3), why=st.text(max_size=20)),
    st.builds(f.ChannelData, link=st.integers(0, 3), data=st.binary(max_size=100)),
    st.builds(f.ChannelCredit, link=st.integers(0, 3), taken=st.integers(0, 100)),
    st.builds(f.Inbound, topic=st.just(TOPIC), payload=st.binary(max_size=300)),
    st.builds(
        f.Inbound,
        topic=st.sampled_from([TOPIC, TOPIC.replace("stop", "start")]),
        payload=st.binary(min_size=1, max_size=30).map(lambda b: CAPTURED.payload() + b),
    ),
    st.builds(
        lambda role: f.Inbound(
            topic=TOPIC,
            payload=CAPTURED.payload().replace(b"operator", role).replace(EPOCH.encode(), b"f" * 16),
        ),
        st.sampled_from([b"operator", b"security", b"maintainer"]),
    ),
)
anything = st.lists(st.one_of(frames_of_uplink.map(f.pack), st.binary(max_size=60)), max_size=12).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(data=anything)
async def test_a_taken_over_uplink_gets_no_key_and_moves_nothing(data: bytes) -> None:
    """Whatever uplink says: no handler runs, no key row leaves, no plaintext is in what core sends, core serves on."""
    bench = Bench()
    bench.outbox.put("keys/kms", b"SEALED", kind="key")
    core = bench.core()
    link = core.attach()
    core.feed(link, f.Hello())
    async with running(core.serve_requests()):
        try:
            for frame in f.Deframer(f.FROM_UPLINK).feed(data):
                core.feed(link, frame)
        except f.ProtocolError:
            core.detach(link, "dropped")
        await until(core._inbox.empty)
        await asyncio.sleep(0)
    assert bench.moved == []
    assert sum(n for kind, n in bench.outbox.counts().items() if kind.startswith("key")) == 1
    again = attach(core)
    sent = await take(core, again, 2)
    assert isinstance(sent[1], f.Publish | f.Answer | f.ChannelCredit)


async def test_the_same_on_the_socket(bench: Bench, tmp_path: Path) -> None:
    """A hostile client replays, forges and floods; then an honest uplink with an honest request is served as ever."""
    bench.outbox.put("keys/kms", b"SEALED", kind="key")
    good = request("stop").payload()
    forged = good.replace(b'"operator', b'"security')
    stale = request("stop", epoch="f" * 16).payload()
    retained = f.Inbound(topic=TOPIC, payload=good, retained=True)
    attack = [
        f.Hello(),
        f.BrokerState(connected=True),
        f.Inbound(topic=TOPIC, payload=forged.replace(b"stop", b"star")),
        f.Inbound(topic=TOPIC, payload=stale),
        retained,
        f.Published(id=1, ok=True, code=0),
        f.KeyReceipt(recipient="kms", payload=b"{}"),
        *[f.Inbound(topic=TOPIC, payload=b"{}")] * 200,
        *[f.ChannelCredit(link=0, taken=0)] * 2000,
    ]
    async with served(bench, tmp_path) as door, asyncio.timeout(20):
        said = await hostile(door.path, b"".join(map(f.pack, attack)))
        frames = list(f.Deframer(f.FROM_CORE).feed(said))
        assert {type(x) for x in frames} <= {f.Hello, f.Publish, f.Answer}
        assert not any(Reply.model_validate_json(x.payload).ok for x in frames if isinstance(x, f.Answer))
        await bench.log.until("uplink.lost")
        assert bench.moved == []
        assert bench.outbox.counts() in ({"key_waiting": 1}, {"key_sent": 1})
        async with open_door(door.path) as session:
            await _honest(session, bench, good)
    assert len(bench.moved) == 1


async def _honest(session: DoorSession, bench: Bench, payload: bytes) -> None:
    bench.clock.t += 2.0  # the flood used up what uplink may cost
    frames = session.frames()
    await anext(frames)
    await session.send(f.BrokerState(connected=True))
    await session.send(f.Inbound(topic=TOPIC, payload=payload, correlation=b"honest"))
    async for frame in frames:
        if isinstance(frame, f.Answer) and frame.correlation == b"honest":
            assert Reply.model_validate_json(frame.payload).ok
            return


@pytest.mark.parametrize(("shared", "mode"), [(False, 0o600), (True, 0o660)])
def test_who_may_use_the_socket(tmp_path: Path, shared: bool, mode: int) -> None:
    """A shared one is its group's, which the directory hands down."""
    group = next((g for g in os.getgroups() if g != tmp_path.stat().st_gid), tmp_path.stat().st_gid)
    os.chown(tmp_path, -1, group)
    tmp_path.chmod(0o2750)
    with closing(listen(tmp_path / "door.sock", shared)):
        found = (tmp_path / "door.sock").stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert found.st_gid == group
