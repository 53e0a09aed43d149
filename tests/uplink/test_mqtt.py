"""Core, uplink, a real Mosquitto, receiver and operator together; few and fast."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qmodd.broker import BrokerHandle, start_broker
from qmodd.clock import SystemClock
from qmodd.crypto.suites import OpeningKey, SigningKey
from qmodd.ctl import Ctl, CtlError, Views
from qmodd.door import Door
from qmodd.identity import ClientFiles, Recipient, Signer
from qmodd.keys.delivery import KeyDelivery
from qmodd.messages import Alive, Progress
from qmodd.outbox import Outbox
from qmodd.randomness import SeededRandomness, SystemRandomness
from qmodd.receive import Receiver, ReceiveSettings, SenderSettings
from qmodd.receive import run as run_receiver
from qmodd.requests import Requests, report_progress
from qmodd.uplink.app import Uplink, UplinkSettings, run_uplink
from qmodd.uplink.mqtt_link import Backoff, BrokerSettings, Link, LinkDown, Will, keep_link, open_link
from tests.keys.test_delivery import Keys, facts
from tests.uplink_fakes import CLIENT, EPOCH, MODULE, START, TRUST, Log, certificate, running, until

ROOT = f"qmodd/v1/{MODULE}/"
ALIVE = Alive(state="online", epoch=EPOCH, version="0.1.0", since=START)
SENDER = Signer(MODULE, SigningKey.generate())
KMS = Recipient("kms", OpeningKey.generate(), SigningKey.generate())


class Unjudged(SystemClock):
    """Real time that says of itself that it is not synchronised, whatever machine the test runs on."""

    def utc_synchronised(self) -> bool:
        return False


class Site:
    """A core without devices, the way the daemon composes it."""

    def __init__(self, tmp_path: Path, broker: str) -> None:
        self.tmp_path = tmp_path
        self.broker = BrokerSettings(url=broker)
        self.log, self.uplink_log, self.said = Log(), Log(), Log()
        self.clock = Unjudged()
        self.keys = Keys(tell=self.log)
        self.outbox = Outbox(tmp_path / "outbox.sqlite")
        handlers = {"stop": self.stop}
        self.requests = Requests(MODULE, EPOCH, self.clock, TRUST, handlers, self.log)
        self.delivery = KeyDelivery(
            self.keys, self.outbox, SENDER, {"kms": KMS.public}, "link-1", EPOCH, SystemRandomness(), facts, self.log
        )
        self.door = Door(
            tmp_path / "door",
            self.outbox,
            self.clock,
            self.requests.handle,
            self.delivery.on_key_ack,
            alive=ALIVE,
            module=MODULE,
            report=self.log,
        )
        self.settings = UplinkSettings(
            serial=MODULE, door=self.door.path, broker=self.broker, relay_listen="127.0.0.1:0"
        )
        self.receiver = Receiver(tmp_path / "kms", KMS, {MODULE: SENDER.key.public}, self.clock)
        self.ctl = Ctl(self.broker, 5.0, self.clock, SystemRandomness(), self.progress.append)

    progress: list[Progress] = []

    async def stop(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        report_progress(0.5, "dimming")
        return {"activity": "safe", **arguments}

    @property
    def client(self) -> ClientFiles:
        return ClientFiles(CLIENT, certificate())

    def uplink(self) -> Any:
        return run_uplink(self.settings, SeededRandomness(1), self.uplink_log)

    def kms(self) -> Any:
        settings = ReceiveSettings(
            identity=Path("-"),
            store=self.receiver.store,
            broker=self.broker,
            sender=[SenderSettings(serial=MODULE, public=Path("-"))],
        )
        return run_receiver(settings, self.receiver, lambda line: self.said(line, line))

    async def published(self) -> None:
        async with asyncio.timeout(10):
            await until(lambda: not self.outbox.pending())

    def close(self) -> None:
        self.outbox.close()
        self.receiver.close()


@asynccontextmanager
async def site(tmp_path: Path, broker: str) -> AsyncIterator[Site]:
    made = Site(tmp_path, broker)
    made.progress.clear()
    try:
        yield made
    finally:
        made.close()


async def retained(link: Link, topic: str) -> bytes:
    await link.subscribe(topic)
    async with asyncio.timeout(5):
        return (await link.next_message()).payload


@pytest.mark.processes
async def test_state_command_and_keys_from_end_to_end(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    async with site(tmp_path, mosquitto.url) as s, running(s.door.run(), s.uplink(), s.kms()):
        await s.said.until(f"kms: listening at {mosquitto.url}")
        await s.log.until("broker.connected")
        s.outbox.put("state", b'{"operational":{"value":"enabled","why":""}}', kind="state", retain=True)
        s.keys.distil(5)
        s.delivery.deliver()
        await s.log.until("key.acknowledged")
        await s.published()
        assert s.receiver.counts["imported"] == 5
        assert s.keys.count("acknowledged") == 5

        status = await s.ctl.status(MODULE)
        assert (status[0]["alive"], status[0]["operational"]) == ("online", "enabled")
        reply = await s.ctl.do(s.client, MODULE, "stop", {"gently": True})
        assert (reply.ok, reply.result) == (True, {"activity": "safe", "gently": True})
        assert [p.text for p in s.progress] == ["dimming"]
        reply = await s.ctl.do(s.client, MODULE, "explode", {})
        assert reply.error is not None
        assert reply.error.code == "unknown_command"
        request = await s.ctl.sign(s.client, MODULE, "stop", {})
        assert EPOCH in request.body

        async with open_link(s.broker, "eve") as eve:  # retained although nobody was there to see it arrive
            await eve.publish(f"{ROOT}command/stop", request.payload(), retain=True)
            await s.log.until("request.refused", 2)
            await eve.publish(f"{ROOT}command/stop", b"x" * 70_000)
            await s.uplink_log.until("request.dropped")
            await eve.publish(f"{ROOT}command/stop", b"", retain=True)
        assert "'code': 'retained'" in str(s.log.entries)


@pytest.mark.processes
async def test_alive_tells_of_core_and_uplink(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    async with site(tmp_path, mosquitto.url) as s, running() as group:
        uplink = group.create_task(s.uplink())
        core = group.create_task(s.door.run())
        await s.log.until("broker.connected")
        async with open_link(s.broker, "watcher") as watcher, asyncio.timeout(10):
            states = [Alive.model_validate_json(await retained(watcher, f"{ROOT}alive")).state]
            core.cancel()  # core stops
            states.append(Alive.model_validate_json((await watcher.next_message()).payload).state)
            core = group.create_task(s.door.run())  # and comes back
            states.append(Alive.model_validate_json((await watcher.next_message()).payload).state)
            uplink.cancel()  # uplink stops
            states.append(Alive.model_validate_json((await watcher.next_message()).payload).state)
            core.cancel()
        assert states == ["online", "offline", "online", "offline"]


@pytest.mark.processes
async def test_a_broker_that_is_away_costs_no_event_and_no_key(tmp_path: Path) -> None:
    broker = await start_broker(tmp_path / "broker", embedded=False)
    async with site(tmp_path, broker.url) as s, running(s.door.run(), s.uplink()) as group:
        await s.log.until("broker.connected")
        broker.process.kill()
        broker.stop()
        await s.log.until("broker.lost")
        s.keys.distil(3)
        s.delivery.deliver()
        for n in range(20):
            s.outbox.put("event", json.dumps(n).encode(), kind="event")
        s.door.telemetry("thermal", {"die_c": 30.0})
        again = await start_broker(tmp_path / "broker", broker.plan.port, embedded=False)
        async with open_link(s.broker, "noc") as noc, asyncio.timeout(15):
            await noc.subscribe(f"{ROOT}event", f"{ROOT}telemetry/+")
            kms = group.create_task(s.kms())
            await s.log.until("broker.connected", 2)
            events = [await noc.next_message() for _ in range(20)]
            assert [json.loads(m.payload) for m in events if m.topic.endswith("event")][:3] == [0, 1, 2]
            await s.log.until("key.acknowledged")
            kms.cancel()
        assert s.receiver.counts["imported"] == 3
        again.stop()


@pytest.mark.processes
async def test_a_key_that_nobody_subscribes_to_is_undelivered(tmp_path: Path) -> None:
    broker = await start_broker(tmp_path / "broker", embedded=False)
    async with site(tmp_path, broker.url) as s, running(s.door.run(), s.uplink()):
        await s.log.until("broker.connected")
        s.keys.distil(1)
        s.delivery.deliver()
        await until(lambda: bool(s.door._attempts))
        assert s.outbox.counts() == {"key_waiting": 1}
    broker.stop()


@pytest.mark.processes
async def test_watch_and_errors_of_the_operator_s_tool(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    async with site(tmp_path, mosquitto.url) as s:
        with pytest.raises(CtlError, match="knows no module QM-NONE"):
            await s.ctl.status("QM-NONE")
        s.ctl.timeout_s = 0.05
        with pytest.raises(CtlError, match="knows no module QM-NONE"):
            await s.ctl.do(s.client, "QM-NONE", "stop", {})
        async with open_link(s.broker, "fake") as fake:
            for payload, why in ((b"?", "nothing intelligible"), (ALIVE.offline().payload(), "is offline")):
                await fake.publish(f"{ROOT}alive", payload, retain=True)
                s.ctl.timeout_s = 5.0
                with pytest.raises(CtlError, match=why):
                    await s.ctl.do(s.client, MODULE, "stop", {})
            await fake.publish(f"{ROOT}alive", ALIVE.payload(), retain=True)
            async with open_link(s.broker, f"qmodd-{MODULE}"):
                pass  # ends the session that an uplink has left there for a while
            with pytest.raises(CtlError, match="does not listen"):
                await s.ctl.do(s.client, MODULE, "stop", {})
            await fake.subscribe(f"{ROOT}command/+")
            s.ctl.timeout_s = 0.2
            with pytest.raises(CtlError, match="no answer within"):
                await s.ctl.do(s.client, MODULE, "stop", {})
            seen: asyncio.Queue[str] = asyncio.Queue()
            views = Views()

            def show(topic: str, payload: bytes) -> None:
                serial = views.take(topic, payload)
                seen.put_nowait(views.modules[serial or ""].summary()["alive"])

            async with running(s.ctl.watch((MODULE,), ("alive",), show)), asyncio.timeout(5):
                assert await seen.get() == "online"
            await fake.publish(f"{ROOT}alive", b"", retain=True)


async def test_a_receiver_says_whom_it_does_not_believe(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    async with site(tmp_path, mosquitto.url) as s, running(s.kms()):
        await s.said.until(f"kms: listening at {mosquitto.url}")
        async with open_link(s.broker, "eve") as eve:
            await eve.publish(f"{ROOT}keys/kms", b"x")
            await s.said.until(f"kms: {ROOT}keys/kms: not believed: malformed: not acceptable CBOR: CBORDecodeEOF")


# the link itself


async def test_properties_and_reason_codes_pass(mosquitto: BrokerHandle) -> None:
    broker = BrokerSettings(url=mosquitto.url)
    async with open_link(broker, "a") as a, open_link(broker, "b") as b, asyncio.timeout(10):
        assert await a.publish("nobody/listens", b"x") == 0x10
        await b.subscribe("t/#")
        code = await a.publish("t/1", b"x", correlation=b"c", response_topic="r", expires_in_s=5)
        message = await b.next_message()
        assert (code, message.topic, message.correlation, message.response_topic) == (0, "t/1", b"c", "r")
        assert (message.retained, message.duplicate, b.dropped) == (False, False, 0)


async def test_more_than_is_taken_is_dropped_and_counted(mosquitto: BrokerHandle) -> None:
    broker = BrokerSettings(url=mosquitto.url)
    async with open_link(broker, "a") as a, open_link(broker, "b") as b, asyncio.timeout(10):
        await b.subscribe("t/#")
        for n in range(300):
            await a.publish("t/1", str(n).encode())
        await until(lambda: b.dropped == 44)


async def test_a_lost_connection_ends_whatever_waits_and_the_will_speaks(tmp_path: Path) -> None:
    handle = await start_broker(tmp_path, embedded=False)
    broker = BrokerSettings(url=handle.url)
    async with open_link(broker, "a", will=Will("w", b"gone")) as a:
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(_down(call)) for call in (a.next_message(), a.watch())]
            await asyncio.sleep(0)
            handle.stop()
        assert all("broker" in t.result() for t in waiting)
        with pytest.raises(LinkDown):
            await a.publish("t", b"")
        with pytest.raises(LinkDown):
            await a.next_message()
        with pytest.raises(LinkDown):
            await a.subscribe("t")


async def _down(call: Any) -> str:
    try:
        await call
    except LinkDown as e:
        return str(e)
    return ""


async def test_no_broker_is_reported_and_tried_again() -> None:
    downs: list[str] = []
    enough = asyncio.Event()

    def down(why: str) -> None:
        downs.append(why)
        if len(downs) == 2:
            enough.set()

    async def serve(_: Link) -> None:
        return None

    backoff = Backoff(SeededRandomness(1), first_s=0.0)
    keeping = keep_link(BrokerSettings(url="mqtt://127.0.0.1:1"), "x", serve, backoff, down)
    async with running(keeping), asyncio.timeout(10):
        await enough.wait()
    assert "no connection to mqtt://127.0.0.1:1" in downs[0]


async def test_serving_ends_when_it_returns(mosquitto: BrokerHandle) -> None:
    served: list[Link] = []

    async def serve(link: Link) -> None:
        served.append(link)

    fails: Callable[[str], None] = pytest.fail
    await keep_link(BrokerSettings(url=mosquitto.url), "x", serve, Backoff(SeededRandomness(1)), fails)
    assert len(served) == 1


def test_waiting_grows_and_starts_anew() -> None:
    backoff = Backoff(SeededRandomness(1), first_s=1.0, most_s=4.0)
    waits = [backoff.next_s() for _ in range(6)]
    assert all(0.5 * m <= w <= m for w, m in zip(waits, (1, 2, 4, 4, 4, 4), strict=True))
    backoff.reset()
    assert backoff.next_s() <= 1.0


def test_broker_addresses() -> None:
    assert BrokerSettings(url="mqtt://h").endpoint() == ("h", 1883)
    assert BrokerSettings(url="mqtts://h").endpoint() == ("h", 8883)
    assert BrokerSettings(url="mqtts://h:1").endpoint() == ("h", 1)
    assert BrokerSettings(url="mqtt://h").tls() is None
    assert BrokerSettings(url="mqtts://h").tls() is not None


def test_uplink_needs_exactly_one_relay_address() -> None:
    for addresses in ({}, {"relay_listen": "a:1", "relay_connect": "b:1"}, {"relay_listen": "a"}):
        with pytest.raises(ValueError, match=r"relay_listen|HOST:PORT"):
            UplinkSettings(serial=MODULE, door=Path("d"), **addresses)


# the relay needs no broker


async def test_the_service_channel_runs_without_a_broker(tmp_path: Path) -> None:
    nobody = "mqtt://127.0.0.1:1"
    (tmp_path / "b").mkdir()
    async with site(tmp_path, nobody) as a, site(tmp_path / "b", nobody) as b:
        alice = Uplink(a.settings, SeededRandomness(1), a.uplink_log)
        async with running(a.door.run(), alice.run()) as group, asyncio.timeout(10):
            await until(lambda: alice.relay_port is not None)
            settings = UplinkSettings(
                serial=MODULE, door=b.door.path, broker=b.broker, relay_connect=f"127.0.0.1:{alice.relay_port}"
            )
            group_b = [group.create_task(b.door.run()), group.create_task(run_uplink(settings, SeededRandomness(2)))]
            assert await a.door.channel.wait_connected() == 1
            await b.door.channel.wait_connected()
            await a.door.channel.send(b"to bob" * 100_000)
            assert await b.door.channel.receive() == b"to bob" * 100_000
            await b.door.channel.send(b"to alice")
            assert await a.door.channel.receive() == b"to alice"
            group_b[0].cancel()  # bob's core dies: the channel is not up without a core behind it
            await a.log.until("peer.lost")
            group_b[1].cancel()
            await a.uplink_log.until("broker.down")


async def test_an_uplink_of_another_module_does_not_serve_this_core(tmp_path: Path) -> None:
    async with site(tmp_path, "mqtt://127.0.0.1:1") as s:
        settings = s.settings.model_copy(update={"serial": "QM-X-0001"})
        async with running(s.door.run(), run_uplink(settings, SeededRandomness(1), s.uplink_log)):
            async with asyncio.timeout(10):
                count = 1
                while "core is module" not in str(await s.uplink_log.until("door.down", count)):
                    count += 1
