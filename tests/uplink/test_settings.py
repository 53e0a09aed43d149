"""Settings over a real Mosquitto: retained topics, signed requests that set and undo, another life of core."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qmodd import ctl
from qmodd.app.setting_desk import SettingDesk
from qmodd.broker import BrokerHandle
from qmodd.clock import SystemClock
from qmodd.crypto.suites import SigningKey
from qmodd.ctl import Ctl
from qmodd.ctl_settings import settings_in
from qmodd.door import Door
from qmodd.events import EventLog
from qmodd.identity import ClientFiles, Signer
from qmodd.keys.conversation import Blocking
from qmodd.messages import Alive, Role
from qmodd.outbox import Outbox
from qmodd.randomness import SeededRandomness, SystemRandomness
from qmodd.requests import ROLES, Requests
from qmodd.settings.tree import tree
from qmodd.uplink.app import UplinkSettings, run_uplink
from qmodd.uplink.mqtt_link import BrokerSettings, open_link
from tests.settings.files import config
from tests.uplink.test_mqtt import Unjudged
from tests.uplink_fakes import EPOCH, START, TRUST, Log, certificate, running

MODULE = "QM-T-0001"
LIMIT, HOT = "keys.store_limit", "safety.submount_max_c"


def client(role: Role) -> ClientFiles:
    signer = Signer(f"an-{role}", SigningKey.generate())
    return ClientFiles(signer, certificate(role, signer))


class Module:
    """Core without devices, as the daemon composes settings and requests."""

    def __init__(self, directory: Path, broker: str) -> None:
        self.clock, self.log = Unjudged(), Log()
        self.outbox = Outbox(directory / "outbox.db")
        self.events = EventLog(None, SystemClock(), MODULE)
        self.desk = SettingDesk(config(directory), SystemClock(), Blocking(True))
        self.desk.follow(self.outbox, self.events)
        self.desk.open()
        self.requests = Requests(
            MODULE,
            EPOCH,
            self.clock,
            TRUST,
            {"undo": self.desk.undo, **self.desk.handlers()},
            self.events.record,
            {**ROLES, **self.desk.roles()},
            unknown_setting=self.desk.why_unknown,
        )
        alive = Alive(state="online", epoch=EPOCH, version="0.1.0", since=START)
        self.door = Door(
            directory / "door",
            self.outbox,
            self.clock,
            self.requests.handle,
            lambda *_: None,
            alive=alive,
            module=MODULE,
            report=self.log,
        )
        settings = BrokerSettings(url=broker)
        self.uplink = UplinkSettings(serial=MODULE, door=self.door.path, broker=settings, relay_listen="127.0.0.1:0")
        self.ctl = Ctl(settings, 5.0, self.clock, SystemRandomness())

    def close(self) -> None:
        self.outbox.close()
        self.events.close()


@asynccontextmanager
async def module(directory: Path, broker: str) -> AsyncIterator[Module]:
    made = Module(directory, broker)
    try:
        async with running(made.door.run(), run_uplink(made.uplink, SeededRandomness(1), Log())):
            await made.log.until("broker.connected")
            yield made
    finally:
        made.close()


async def retained(m: Module) -> dict[str, Any]:
    return settings_in((await m.ctl.retained(MODULE, "settings/#"))[MODULE])


@pytest.mark.processes
async def test_settings_from_end_to_end(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    operator, maintainer, viewer = client("operator"), client("maintainer"), client("viewer")
    async with module(tmp_path, mosquitto.url) as m:
        assert set(await retained(m)) == set(tree("alice"))
        reply = await m.ctl.set(operator, MODULE, LIMIT, 500)
        assert reply.ok
        assert reply.result is not None
        assert (reply.result["value"], reply.result["set_by"]) == (500, "an-operator")
        assert (await retained(m))[LIMIT].value == 500

        for who, path, value, code in (
            (viewer, LIMIT, 600, "not_allowed"),
            (operator, HOT, 50.0, "not_allowed"),
            (maintainer, HOT, 61.0, "out_of_range"),
            (maintainer, "keys.eps_sec", 1e-8, "file_only"),
            (operator, "keys.spin", 1, "unknown_setting"),
            (operator, LIMIT, "many", "bad_arguments"),
        ):
            reply = await m.ctl.set(who, MODULE, path, value)
            assert reply.error is not None
            assert reply.error.code == code, (path, reply)
        assert (await m.ctl.set(maintainer, MODULE, HOT, 55.0)).ok
        for who in (viewer, operator):
            assert not (await m.ctl.do(who, MODULE, "undo", {"setting": HOT})).ok
        said = await retained(m)
        assert {path for path, one in said.items() if one.origin == "set"} == {LIMIT, HOT}

    async with module(tmp_path, mosquitto.url) as m:  # another life of core, the same broker
        said = await retained(m)
        assert (said[LIMIT].value, said[HOT].value) == (500, 55.0)
        assert (await m.ctl.do(operator, MODULE, "undo", {"setting": LIMIT})).ok
        assert (await retained(m))[LIMIT].origin == "file"


@pytest.mark.processes
async def test_a_retained_request_sets_nothing(tmp_path: Path, mosquitto: BrokerHandle) -> None:
    async with module(tmp_path, mosquitto.url) as m:
        request = await m.ctl.sign(client("operator"), MODULE, f"set/{LIMIT}", {"value": 500})
        async with open_link(BrokerSettings(url=mosquitto.url), "eve") as eve:
            await eve.publish(f"qmodd/v1/{MODULE}/set/{LIMIT}", request.payload(), retain=True)
            await eve.publish(f"qmodd/v1/{MODULE}/set/{HOT}", request.payload())
            # An answer to a later request: both have been looked at.
            assert (await m.ctl.set(client("operator"), MODULE, "alarms.stalled_s", 40.0)).ok
            await eve.publish(f"qmodd/v1/{MODULE}/set/{LIMIT}", b"", retain=True)
        assert m.desk.in_force.keys.store_limit == 1_000_000
        refused = [e["code"] for e in m.events.entries if e["event"] == "request.refused"]
        assert "wrong_topic" in refused


@pytest.mark.processes
def test_get_of_a_module_that_nobody_knows(mosquitto: BrokerHandle, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["get", "QM-X-1", "--broker", mosquitto.url]) == 3
    assert "knows no module QM-X-1" in capsys.readouterr().err
