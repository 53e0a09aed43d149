"""The reference receiver without MQTT; with MQTT it is tested in tests/uplink/test_mqtt.py."""

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
from hypothesis import given
from hypothesis import strategies as st

from qmodd import receive
from qmodd.crypto.suites import OpeningKey, SigningKey
from qmodd.identity import KEY_ACK_CONTEXT, Recipient, Signer
from qmodd.keys import envelope as e
from qmodd.messages import KeyAck, KeyAckBody
from qmodd.receive import NotBelieved, Receiver, SettingsError, Window, load_settings, read_digests
from tests.uplink_fakes import START, HandClock, until

ALICE = Signer("alice", SigningKey.generate())
KMS = Recipient("kms", OpeningKey.generate(), SigningKey.generate())
NOW = e.unix(START)


def envelope(seq: int, keys: dict[int, bytes], **changes: object) -> bytes:
    fields: dict[str, object] = {
        "sender_kid": ALICE.key.public.kid,
        "recipient_kid": KMS.opening.public.kid,
        "epoch": "0" * 16,
        "seq": seq,
        "batch_uuid": UUID(int=1000 + seq).bytes,
        "link_id": "link-1",
        "key_size": 8 * len(next(iter(keys.values()))),
        "key_IDs": [UUID(int=i).bytes for i in keys],
        "not_before": NOW,
        "not_after": NOW + 100,
        "purge_by": NOW + 200,
        "provenance": [],
    }
    header = e.Header.model_validate({**fields, **changes})
    return e.seal(header, list(keys.values()), ALICE.key, KMS.opening.public).to_bytes()


@pytest.fixture
def receiver(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Receiver(tmp_path / "kms", KMS, {"alice": ALICE.key.public}, HandClock())
    yield made
    made.close()


def status(ack: bytes) -> list[str]:
    message = KeyAck.model_validate_json(ack)
    KMS.public.verifying.verify(message.body.encode(), base64.b64decode(message.signature), KEY_ACK_CONTEXT)
    return list(KeyAckBody.model_validate_json(message.body).status.values())


def test_keys_are_stored_and_can_be_compared_without_being_shown(receiver: Receiver) -> None:
    assert status(receiver.process(envelope(1, {1: b"a" * 32, 2: b"b" * 32}))) == ["imported", "imported"]
    digests = read_digests(receiver.store)
    assert digests == receiver.digests()
    assert list(digests) == [str(UUID(int=1)), str(UUID(int=2))]
    assert receiver.counts["imported"] == 2
    assert stat.S_IMODE((receiver.store / receive.STORE_FILE).stat().st_mode) == 0o600


def test_the_container_is_etsi_s(receiver: Receiver) -> None:
    receiver.process(envelope(1, {1: b"a" * 32}))
    assert json.loads(receiver.container()) == {
        "keys": [{"key_ID": str(UUID(int=1)), "key": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="}]
    }


def test_a_known_batch_gets_its_first_acknowledgement_again_whatever_the_time(receiver: Receiver) -> None:
    data = envelope(1, {1: b"a" * 32})
    first = receiver.process(data)
    receiver.clock = HandClock(t=10_000.0)
    assert receiver.process(data) == first
    assert len(receiver.digests()) == 1


def test_refusals_name_their_reason(receiver: Receiver) -> None:
    key = {1: b"a" * 32}
    assert status(receiver.process(envelope(1, key, recipient_kid=bytes(16)))) == ["wrong_recipient"]
    assert status(receiver.process(envelope(2, key, suite="rot13"))) == ["wrong_suite"]
    assert status(receiver.process(envelope(3, key, not_before=0, not_after=NOW - 1))) == ["expired"]
    assert status(receiver.process(envelope(4, key))) == ["imported"]
    assert status(receiver.process(envelope(4, {2: b"b" * 32}, batch_uuid=bytes(16)))) == ["replayed"]
    assert status(receiver.process(envelope(5, {1: b"x" * 32, 3: b"c" * 32}))) == ["id_conflict", "imported"]
    assert status(receiver.process(envelope(6, {1: b"a" * 32}))) == ["imported"]  # the same key again is no conflict
    assert len(receiver.digests()) == 2


def test_what_cannot_be_opened_is_acknowledged_as_such(receiver: Receiver) -> None:
    header = e.Envelope.from_bytes(envelope(1, {1: b"a" * 32})).header
    other = e.seal(header, [b"a" * 32], ALICE.key, OpeningKey.generate().public)
    assert status(receiver.process(other.to_bytes())) == ["cannot_open"]
    header = header.model_copy(update={"seq": 2, "batch_uuid": bytes(16)})
    raw = e.cbor.encode(header.model_dump())
    sealed = KMS.opening.public.seal(b"short", e.LABEL + raw)
    unsigned = e.Envelope(header, raw, sealed, b"")
    short = e.Envelope(header, raw, sealed, ALICE.key.sign(unsigned.signed, e.LABEL))
    assert status(receiver.process(short.to_bytes())) == ["wrong_key_size"]


def test_an_unsynchronised_clock_judges_no_lifetime(receiver: Receiver) -> None:
    receiver.clock = HandClock(t=10_000.0, synchronised=False)
    assert status(receiver.process(envelope(1, {1: b"a" * 32}))) == ["imported"]


def test_bytes_of_nobody_we_know_are_not_acknowledged(receiver: Receiver) -> None:
    with pytest.raises(NotBelieved, match="malformed"):
        receiver.process(b"x")
    with pytest.raises(NotBelieved, match="unknown sender"):
        receiver.process(envelope(1, {1: b"a" * 32}, sender_kid=bytes(16)))
    good = e.Envelope.from_bytes(envelope(1, {1: b"a" * 32}))
    with pytest.raises(NotBelieved, match="Ed25519"):
        receiver.process(e.Envelope(good.header, good.raw_header, good.sealed, bytes(3373)).to_bytes())
    assert receiver.digests() == {}


def test_the_store_lives_on(tmp_path: Path) -> None:
    data = envelope(70, {1: b"a" * 32})
    for _ in range(2):
        receiver = Receiver(tmp_path, KMS, {"alice": ALICE.key.public}, HandClock())
        assert status(receiver.process(data)) == ["imported"]
        receiver.close()
    assert len(read_digests(tmp_path)) == 1


def test_a_store_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert read_digests(tmp_path) == {}
    (tmp_path / receive.STORE_FILE).touch()
    assert read_digests(tmp_path) == {}


@given(seqs=st.lists(st.integers(1, 200), max_size=60))
def test_the_window_accepts_each_number_once_and_none_older_than_64(seqs: list[int]) -> None:
    window, seen = Window(), set[int]()
    for seq in seqs:
        after = window.accept(seq)
        fresh = seq not in seen and (not seen or seq > max(seen) - 64)
        assert (after is not None) == fresh
        if after is not None:
            window = after
            seen.add(seq)


CONFIG = """
identity = "kms.key"
store = "kms"
broker = {url = "mqtt://127.0.0.1:1"}
[[sender]]
serial = "QM-A-0001"
public = "alice.pub"
"""


def test_settings_are_relative_to_their_file_and_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "kms.toml"
    path.write_text(CONFIG)
    settings = load_settings(path)
    assert settings.identity == tmp_path / "kms.key"
    assert settings.sender[0].public == tmp_path / "alice.pub"
    for text, why in (("x = 1", r"kms\.toml: identity: Field required"), ("=", "not TOML")):
        path.write_text(text)
        with pytest.raises(SettingsError, match=why):
            load_settings(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "none.toml")


def test_the_command_names_wrong_configuration_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top = argparse.ArgumentParser()
    receive.add_parser(top.add_subparsers())
    path = tmp_path / "kms.toml"
    arguments = top.parse_args(["receive", "--config", str(path), "--export", str(tmp_path / "keys.json"), "--json"])
    assert arguments.run(arguments) == 2
    path.write_text(CONFIG)
    assert arguments.run(arguments) == 2
    KMS.save(tmp_path / "kms.key")
    ALICE.save_public(tmp_path / "alice.pub")
    assert arguments.run(arguments) == 0
    assert json.loads((tmp_path / "keys.json").read_text()) == {"keys": []}
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    out = capsys.readouterr()
    assert out.out == "{}\n"
    assert "kms.key: cannot be read" in out.err


async def test_sigterm_ends_it(tmp_path: Path, receiver: Receiver) -> None:
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
