"""The command `qmodd receive` and its configuration; the receiver itself is tested in tests/receiver."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import stat
from pathlib import Path
from uuid import UUID

import pytest

from qmodd import receive
from qmodd.keys.store import StoreRefused
from qmodd.receive import Receiver, SettingsError, load_settings
from tests.receiver.build import ALICE, KMS, batch, key_of, notice, receiver_in
from tests.uplink_fakes import until

CONFIG = """
identity = "kms.key"
store = "kms"
broker = {url = "mqtts://127.0.0.1:1", ca = "ca.pem"}
[[sender]]
serial = "QM-A-0001"
public = "alice.pub"
[sink]
directory = "out"
"""


def test_settings_are_relative_to_their_file_and_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "kms.toml"
    path.write_text(CONFIG)
    settings = load_settings(path)
    assert settings.identity == tmp_path / "kms.key"
    assert settings.sender[0].public == tmp_path / "alice.pub"
    assert settings.broker.ca == tmp_path / "ca.pem"
    assert settings.sink is not None
    assert settings.sink.directory == tmp_path / "out"
    for text, why in (("x = 1", r"kms\.toml: identity: Field required"), ("=", "not TOML")):
        path.write_text(text)
        with pytest.raises(SettingsError, match=why):
            load_settings(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "none.toml")


def test_the_store_key_may_be_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kms.toml"
    path.write_text('store_key = "credential:kms"\n' + CONFIG)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(StoreRefused, match="CREDENTIALS_DIRECTORY"):
        load_settings(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    assert load_settings(path).store_key == "/run/credentials/x/kms"
    path.write_text('store_key = "kek"\n' + CONFIG)
    assert load_settings(path).store_key == str(tmp_path / "kek")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    KMS.save(tmp_path / "kms.key")
    ALICE.save_public(tmp_path / "alice.pub")
    path = tmp_path / "kms.toml"
    path.write_text(CONFIG)
    return path


def command(*arguments: str) -> int:
    top = argparse.ArgumentParser()
    receive.add_parser(top.add_subparsers())
    args = top.parse_args(["receive", *arguments])
    status: int = args.run(args)
    return status


def test_the_command_names_wrong_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kms.toml"
    assert command("--config", str(path), "--check") == 2
    path.write_text(CONFIG)
    assert command("--config", str(path), "--check") == 2
    assert "kms.key: cannot be read" in capsys.readouterr().err


def test_the_command_exports_once_and_tells_states(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--config", str(config), "--check") == 0
    receiver = receiver_in(config.parent / "kms")
    receiver.process(batch(1, 1, 2))
    receiver.notice(notice("usable", [1]))
    receiver.close()
    out = config.parent / "keys.json"
    for expected in ([{"key_ID": str(UUID(int=1)), "key": base64.b64encode(key_of(1)).decode()}], []):
        assert command("--config", str(config), "--export", str(out)) == 0
        assert json.loads(out.read_text()) == {"keys": expected}
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
    capsys.readouterr()
    assert command("--config", str(config), "--status", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["conserved"] is True
    assert {s: n for s, n in told["keys"].items() if n} == {"pending": 1, "handed_out": 1, "imported": 2}


def test_keys_that_are_not_conserved_are_a_fault(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    receiver = receiver_in(config.parent / "kms")
    receiver.process(batch(1, 1))
    receiver.table.count("pending", 1)
    receiver.close()
    assert command("--config", str(config), "--status") == 1
    assert "1 keys imported but 2 accounted for" in capsys.readouterr().err


def test_a_sink_that_cannot_be_written_ends_it_with_a_reason(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "out").write_text("a file where a directory should be")
    assert command("--config", str(config)) == 2
    assert "out" in capsys.readouterr().err


async def test_sigterm_ends_it(tmp_path: Path) -> None:
    receiver: Receiver = receiver_in(tmp_path / "kms")
    settings = receive.ReceiveSettings.model_validate(
        {
            "identity": tmp_path,
            "store": tmp_path,
            "broker": {"url": "mqtt://127.0.0.1:1"},
            "sender": [{"serial": "QM-A-0001", "public": tmp_path}],
        }
    )
    before = signal.getsignal(signal.SIGTERM)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        serving = group.create_task(receive._until_stopped(settings, receiver))
        await until(lambda: signal.getsignal(signal.SIGTERM) is not before)
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
    receiver.close()
