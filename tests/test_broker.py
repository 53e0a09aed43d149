"""Brokers for demo and laboratory."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from qmodd import broker
from qmodd.uplink.mqtt_link import BrokerSettings, open_link


@pytest.mark.processes
@pytest.mark.parametrize("embedded", [False, True])
async def test_it_serves_and_starts_again_on_its_port(tmp_path: Path, embedded: bool) -> None:
    handle = await broker.start_broker(tmp_path, embedded=embedded)
    assert handle.plan.kind == ("embedded" if embedded else "mosquitto")
    async with (
        open_link(BrokerSettings(url=handle.url), "a") as a,
        open_link(BrokerSettings(url=handle.url), "b") as b,
        asyncio.timeout(10),
    ):
        await a.subscribe("t/+")
        assert await b.publish("t/1", b"x" * 100_000, correlation=b"c") == 0
        message = await a.next_message()
        assert (len(message.payload), message.correlation) == (100_000, b"c")
        await b.publish("r", b"kept", retain=True)
        await a.subscribe("r")
        assert (await a.next_message()).payload == b"kept"
    handle.stop()
    handle.stop()
    again = await broker.start_broker(tmp_path, handle.plan.port, embedded=embedded)
    assert again.url == handle.url
    again.stop()


async def test_a_broker_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    taken = await broker.start_broker(tmp_path / "a", embedded=False)

    async def nobody(_port: int) -> bool:
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker, "accepts", nobody)
        with pytest.raises(broker.BrokerFailed, match="mosquitto ended with status 1"):
            await broker.start_broker(tmp_path / "b", taken.plan.port, embedded=False)
        patch.setattr(broker, "READY_WITHIN_S", 0.01)
        with pytest.raises(broker.BrokerFailed, match=r"takes no connections|ended"):
            await broker.start_broker(tmp_path / "c", embedded=False)
    taken.stop()


def test_without_mosquitto_the_embedded_one_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "find_mosquitto", lambda: None)
    plan = broker.plan_broker(tmp_path, 1234)
    assert plan.argv[:3] == [sys.executable, "-m", "qmodd.broker"]
    assert plan.url == "mqtt://127.0.0.1:1234"
    with pytest.raises(broker.BrokerFailed, match="not installed"):
        broker.plan_broker(tmp_path, embedded=False)


@pytest.mark.parametrize(("values", "said"), [({"cafile": "x"}, "0 times"), ({"log_type": "x"}, "2 times")])
def test_an_option_that_cannot_be_set_is_named(tmp_path: Path, values: dict[str, str], said: str) -> None:
    text = "listener 1\npersistence_location /x/\nlog_type error\nlog_type warning\n"
    with pytest.raises(broker.BrokerFailed, match=said):
        broker.plan_configured(tmp_path, text, values)
    plan = broker.plan_configured(tmp_path, text, {}, 1234)
    assert plan.url == "mqtt://127.0.0.1:1234"
    assert "listener 1234 127.0.0.1" in (tmp_path / "mosquitto.conf").read_text()


async def test_nobody_takes_connections_on_a_free_port() -> None:
    assert not await broker.accepts(broker.free_port())


def test_the_embedded_entry_names_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert broker.main([]) == 2
    assert broker.main(["/nowhere"]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_embedded_entry_runs_what_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    class Embedded:
        def __init__(self, config_path: str) -> None:
            self.config_path = config_path

        def run_forever(self) -> None:
            ran.append(self.config_path)

    import iotcore

    monkeypatch.setattr(iotcore, "IotCoreBroker", Embedded)
    config = tmp_path / "c.toml"
    config.touch()
    assert broker.main([str(config)]) == 0
    assert ran == [str(config)]
    monkeypatch.setitem(sys.modules, "iotcore", None)
    assert broker.main([str(config)]) == 2
