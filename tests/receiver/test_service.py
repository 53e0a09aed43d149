"""The receiver over a real broker: batch, notice, container; what cannot be stored comes again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from qmodd.broker import BrokerHandle, start_broker
from qmodd.receive import Receiver, ReceiveSettings, SenderSettings, SinkSettings, read_states, run
from qmodd.receiver.service import SWEEP_EVERY_S, _Service
from qmodd.uplink.mqtt_link import BrokerSettings, Link, open_link
from tests.receiver.build import OTHER_SERIAL, SERIAL, batch, key_of, notice, said, status
from tests.receiver.test_sink import keys_in
from tests.uplink_fakes import HandClock, Log, running

KEYS = f"qmodd/v1/{SERIAL}/keys/kms"


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerHandle]:
    handle = asyncio.run(start_broker(tmp_path_factory.mktemp("mosquitto"), embedded=False))
    yield handle
    handle.stop()


def settings(receiver: Receiver, url: str, out: Path | None = None) -> ReceiveSettings:
    return ReceiveSettings(
        identity=Path("-"),
        store=receiver.store,
        broker=BrokerSettings(url=url),
        sender=[SenderSettings(serial=s, public=Path("-")) for s in (SERIAL, OTHER_SERIAL)],
        sink=SinkSettings(directory=out) if out else None,
    )


async def ask(module: Link, suffix: str, payload: bytes) -> bytes:
    await module.publish(f"{KEYS}{suffix}", payload)
    async with asyncio.timeout(10):
        return (await module.next_message()).payload


@pytest.mark.processes
async def test_batch_notice_and_container(tmp_path: Path, receiver: Receiver, mosquitto: BrokerHandle) -> None:
    log, out = Log(), tmp_path / "out"
    serving = run(settings(receiver, mosquitto.url, out), receiver, lambda line: log(line.split(":")[1][:9], line))
    async with running(serving), open_link(BrokerSettings(url=mosquitto.url), "module") as module:
        await log.until(" listening"[:9])
        await module.subscribe(f"{KEYS}/ack")
        assert status(await ask(module, "", batch(1, 1, 2, 3))) == ["imported"] * 3
        assert said(await ask(module, "/revoke", notice("revoke", [3]))) == ["revoked"]
        assert said(await ask(module, "/usable", notice("usable", [1, 3], 2))) == ["usable", "revoked"]
        await module.publish(f"{KEYS}/usable", b"nonsense")
        await module.publish(f"{KEYS}/usable", notice("revoke", [1], 3))
        assert said(await ask(module, "/usable", notice("usable", [2], 4))) == ["usable"]
        assert said(await ask(module, "/usable", notice("usable", [2], 5))) == ["usable"]
    assert keys_in(out) == [(1, key_of(1)), (2, key_of(2))]
    assert receiver.counts["not_believed"] == 2
    assert not any(key_of(1) in str(line).encode() for _, line in log.entries)


async def test_what_cannot_be_stored_is_not_acknowledged(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(suffix: str, payload: bytes) -> bytes:
        raise sqlite3.OperationalError("database or disk is full")

    said_lines: list[str] = []
    monkeypatch.setattr(receiver, "handle", full)
    service = _Service(settings(receiver, "mqtt://x:1"), receiver, None, said_lines.append, None)  # type: ignore[arg-type]
    await service.one(SimpleNamespace(publish=None), SimpleNamespace(topic=KEYS, payload=b""))  # type: ignore[arg-type]
    assert said_lines == [f"kms: {KEYS}: not stored: database or disk is full"]
    assert receiver.counts["not_stored"] == 1


async def test_lifetimes_end_without_any_message(receiver: Receiver) -> None:
    receiver.process(batch(1, 1))
    receiver.clock = clock = HandClock(101.0)
    receiver.hand_out = type(receiver.hand_out)(receiver.table, clock)
    lines: list[str] = []
    service = _Service(settings(receiver, "mqtt://x:1"), receiver, None, lines.append, None)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await service.sweep()
    assert lines == ["kms: 1 expired"]
    assert SWEEP_EVERY_S <= 60.0
    assert set(read_states(receiver.store).values()) == {"expired"}
