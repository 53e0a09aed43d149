"""Uplink against brokers that stop, freeze, send it away or do not want it: nothing is lost, nobody is hammered."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qmodd.broker import BrokerHandle, start_broker
from qmodd.broker_site import Site
from qmodd.clock import SystemClock
from qmodd.config import ConfigError
from qmodd.daemon import only_uplink
from qmodd.door import Door
from qmodd.door_core import AnswerSender
from qmodd.door_frames import Answer, Inbound, Telemetry
from qmodd.messages import MAX_REQUEST_BYTES
from qmodd.outbox import Outbox
from qmodd.randomness import SeededRandomness
from qmodd.uplink import app, patience
from qmodd.uplink.app import Uplink, UplinkSettings
from qmodd.uplink.mqtt_link import TAKEN_OVER, Backoff, BrokerSettings, LinkDown, open_link
from qmodd.uplink.patience import Patience
from tests.uplink.site import SecureSite
from tests.uplink_fakes import ALIVE, MODULE, Log, running, until

ROOT = f"qmodd/v1/{MODULE}/"


class Core:
    """A door with nothing behind it that keeps what is asked."""

    def __init__(self, directory: Path) -> None:
        self.log, self.asked = Log(), list[Inbound]()
        self.outbox = Outbox(directory / "outbox.db")
        self.door = Door(
            directory / "door",
            self.outbox,
            SystemClock(),
            self._request,
            lambda _recipient, _payload: None,
            alive=ALIVE,
            module=MODULE,
            report=self.log,
        )

    async def _request(self, inbound: Inbound, _answer: AnswerSender) -> None:
        self.asked.append(inbound)


@asynccontextmanager
async def core_and_uplink(directory: Path, url: str, **settings: Any) -> AsyncIterator[tuple[Core, Uplink, Log]]:
    core, log = Core(directory), Log()
    uplink = Uplink(
        UplinkSettings(
            serial=MODULE, door=core.door.path, broker=BrokerSettings(url=url), relay_listen="127.0.0.1:0", **settings
        ),
        SeededRandomness(1),
        log,
    )
    async with running(core.door.run(), uplink.run()):
        yield core, uplink, log
    core.outbox.close()


@pytest.mark.processes
async def test_a_request_in_a_short_outage_of_uplink_arrives(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    broker = BrokerSettings(url=mosquitto.url)
    async with core_and_uplink(tmp_path, mosquitto.url) as (core, _uplink, _log):
        await core.log.until("broker.connected")
    async with open_link(broker, "noc") as noc, asyncio.timeout(10):
        assert await noc.publish(f"{ROOT}command/stop", b"asked while it was away", expires_in_s=30) == 0
        async with core_and_uplink(tmp_path, mosquitto.url) as (core, _uplink, _log):
            await until(lambda: bool(core.asked))
            assert core.asked[0].payload == b"asked while it was away"
            assert not core.asked[0].retained


@pytest.mark.processes
async def test_what_is_too_large_reaches_core_as_that_and_no_more(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    async with core_and_uplink(tmp_path, mosquitto.url) as (core, uplink, log):
        await core.log.until("broker.connected")
        async with open_link(BrokerSettings(url=mosquitto.url), "noc") as noc:
            await noc.publish(f"{ROOT}command/stop", b"x" * 1_000_000)
            await until(lambda: bool(core.asked))
    assert len(core.asked[0].payload) == MAX_REQUEST_BYTES + 1
    assert "request.dropped" in log.names
    assert uplink.counts.requests_too_large == 1


@pytest.mark.processes
async def test_of_a_flood_core_sees_a_little_and_is_told_of_the_rest(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    async with core_and_uplink(tmp_path, mosquitto.url) as (core, uplink, _log), asyncio.timeout(20):
        await core.log.until("broker.connected")
        async with open_link(BrokerSettings(url=mosquitto.url), "noc") as noc:
            for _ in range(600):
                await noc.publish(f"{ROOT}command/stop", b"{}")
        await until(lambda: len(core.asked) + uplink.counts.requests_dropped == 600)
    assert len(core.asked) < 300
    told = [str(why) for name, why in core.log.entries if name == "request.dropped"]
    assert len(told) == uplink.counts.requests_dropped.bit_length()
    assert told[-1].startswith(("256 so far", "512 so far"))


@pytest.mark.processes
async def test_a_broker_that_freezes_is_given_up_and_costs_no_event(tmp_path: Path) -> None:
    """SIGSTOP: the connection stands, nothing is answered. Core goes on; its telemetry is bounded."""
    broker = await start_broker(tmp_path / "broker", embedded=False)
    async with core_and_uplink(tmp_path, broker.url, keep_alive_s=1) as (core, _uplink, log), asyncio.timeout(60):
        await core.log.until("broker.connected")
        broker.process.send_signal(signal.SIGSTOP)
        for n in range(200):
            core.outbox.put("event", json.dumps(n).encode(), kind="event")
            core.door.telemetry("thermal", {"die_c": float(n)})
        await log.until("broker.left")
        broker.process.send_signal(signal.SIGCONT)
        await core.log.until("broker.connected", 2)
        await until(lambda: not core.outbox.pending())
    broker.stop()


@pytest.mark.processes
async def test_two_of_the_same_name_do_not_fight_for_ever(
    tmp_path: Path, mosquitto: BrokerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mosquitto 2.0 closes the older connection without a word: it is sent away again and again, and stands back."""
    monkeypatch.setattr(patience, "SHORT_LIVES", 2)
    settings = BrokerSettings(url=mosquitto.url)
    async with core_and_uplink(tmp_path, mosquitto.url) as (core, uplink, log), asyncio.timeout(20):
        for n in (1, 2):
            await core.log.until("broker.connected", n)
            async with open_link(settings, f"qmodd-{MODULE}") as newer:
                await log.until("broker.left", n)
                await newer.publish("t", b"")
        await log.until("broker.down", 2)
        assert "another client" in str(log.entries[-1])
        assert uplink.counts.connects == 2


def waits(lived_s: float | None, code: int | None = None) -> list[float]:
    waiting = Patience(Backoff(SeededRandomness(1)))
    return [waiting.wait(lived_s, code)[0] for _ in range(8)]


def test_a_broker_that_hangs_up_at_once_is_not_hammered() -> None:
    assert 2.0 < waits(None)[-1] <= 5.0
    assert max(waits(patience.STEADY_S)) < 0.3
    short = waits(0.1)
    assert max(short[: patience.SHORT_LIVES - 1]) < 5.0
    assert min(short[patience.SHORT_LIVES - 1 :]) > patience.STAND_BACK_S
    assert min(waits(100.0, TAKEN_OVER)) > patience.STAND_BACK_S


async def test_what_is_dropped_is_counted() -> None:
    uplink = Uplink(
        UplinkSettings(serial=MODULE, door=Path("d"), relay_listen="127.0.0.1:0"), SeededRandomness(1), Log()
    )
    relay: Any = None
    for _ in range(app.TELEMETRY_KEPT + 3):
        uplink._from_core(Telemetry(group="g", payload=b"{}"), relay)
    for _ in range(app.ANSWERS_KEPT + 2):
        uplink._from_core(Answer(client="ann", payload=b"{}"), relay)
    assert uplink.counts.numbers() == {
        "connects_count": 0,
        "telemetry_dropped_count": 3,
        "answers_dropped_count": 2,
        "requests_dropped_count": 0,
        "requests_too_large_count": 0,
        "arrived_dropped_count": 0,
    }


@pytest.mark.processes
async def test_a_topic_that_the_broker_denies_is_named_once_and_holds_nothing_up(tmp_path: Path) -> None:
    site = SecureSite.make(tmp_path, Site(modules=[MODULE]))
    broker = await site.start()
    core, log = Core(tmp_path), Log()
    settings = UplinkSettings(
        serial=MODULE, door=core.door.path, broker=site.settings(MODULE, broker.url), relay_listen="127.0.0.1:0"
    )
    async with running(core.door.run(), Uplink(settings, SeededRandomness(1), log).run()), asyncio.timeout(20):
        await core.log.until("broker.connected")
        core.outbox.put("unheard-of", b"{}", kind="event")
        core.outbox.put("unheard-of", b"{}", kind="event")
        core.outbox.put("event", b"{}", kind="event")
        assert "unheard-of" in str(await log.until("publish.refused"))
        await until(lambda: [r.suffix for r in core.outbox.pending()] == ["unheard-of", "unheard-of"])
    assert log.names.count("publish.refused") == 1
    assert log.names.count("broker.connected") == 1
    core.outbox.close()
    broker.stop()


@pytest.mark.processes
async def test_uplink_tells_what_only_it_knows(
    tmp_path: Path, mosquitto: BrokerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "OWN_TELEMETRY_S", 0.01)
    noc_side = open_link(BrokerSettings(url=mosquitto.url), "noc")
    async with core_and_uplink(tmp_path, mosquitto.url), noc_side as noc, asyncio.timeout(10):
        await noc.subscribe(f"{ROOT}telemetry/uplink")
        flat = json.loads((await noc.next_message()).payload)
    assert set(flat) >= {"t", "seq", "connects_count", "telemetry_dropped_count"}
    assert flat["connects_count"] == 1


async def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "ca.pem"
    for text, why in ((None, "No such file"), ("not PEM", "cannot be used for TLS")):
        if text is not None:
            bad.write_text(text)
        with pytest.raises(LinkDown, match=why):
            async with open_link(BrokerSettings(url="mqtts://127.0.0.1:1", ca=bad), "x"):
                pass
    own = BrokerSettings(url="mqtts://127.0.0.1:1", certificate=bad, key=bad)
    with pytest.raises(LinkDown, match=r"ca\.pem with .*ca\.pem: cannot be used for TLS"):
        async with open_link(own, "x"):
            pass


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"certificate": Path("c")}, "key is missing"),
        ({"key": Path("k")}, "certificate is missing"),
        ({"url": "mqtt://h", "ca": Path("c")}, "write mqtts://"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        BrokerSettings(**{"url": "mqtts://h", **settings})


def test_files_are_relative_to_the_configuration() -> None:
    given = BrokerSettings(url="mqtts://h", ca=Path("ca.pem"), certificate=Path("/abs/c.pem"), key=Path("k.pem"))
    found = given.relative_to(Path("/etc/qmodd"))
    assert (found.ca, found.certificate, found.key) == (
        Path("/etc/qmodd/ca.pem"),
        Path("/abs/c.pem"),
        Path("/etc/qmodd/k.pem"),
    )


def test_a_second_uplink_of_a_module_does_not_start(tmp_path: Path) -> None:
    with only_uplink(tmp_path), pytest.raises(ConfigError, match="another uplink"), only_uplink(tmp_path):
        pass
    with only_uplink(tmp_path):
        pass
