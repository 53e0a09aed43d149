"""The demo: its arguments and report, and one run of real processes."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qmodd.demo import command
from qmodd.demo.command import Demo, add_parser, process_age_s
from qmodd.demo.services import Service


def arguments(*argv: str) -> argparse.Namespace:
    top = argparse.ArgumentParser()
    add_parser(top.add_subparsers())
    return top.parse_args(["demo", *argv])


def test_arguments() -> None:
    plain = arguments()
    assert (plain.until_keys, plain.seconds, plain.speed, plain.json) == (None, None, 1.0, False)
    given = arguments("--until-keys", "5", "--seed", "7", "--json", "--speed", "2")
    assert (given.until_keys, given.seed, given.json, given.speed) == (5, 7, True, 2.0)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--until-keys", "0"],
        ["--until-keys", "x"],
        ["--seconds", "-1"],
        ["--speed", "inf"],
        ["--until-keys", "1", "--seconds", "3"],
    ],
)
def test_wrong_arguments_are_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        arguments(*wrong)
    assert e.value.code == 2
    assert wrong[-2] in capsys.readouterr().err


class Stores:
    """What the two receivers have decrypted: digests by key id."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: dict[str, dict[str, str]] = {"kms-a": {}, "kms-b": {}}
        monkeypatch.setattr(command, "read_digests", lambda path, states: self.held[path.stem])


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Stores:
    return Stores(monkeypatch)


def demo(tmp_path: Path, *argv: str) -> Demo:
    return Demo(arguments(*argv), tmp_path)


def test_keys_count_when_both_receivers_hold_them_equal(tmp_path: Path, stores: Stores) -> None:
    it = demo(tmp_path, "--until-keys", "2")
    stores.held = {"kms-a": {"1": "x", "2": "y", "3": "z"}, "kms-b": {"1": "x", "2": "y"}}
    it._look()
    report = it.report()
    assert (report["ok"], report["keys_match"], report["keys_delivered"]) == (True, True, 2)
    assert report["first_key_s"] is not None


@pytest.mark.parametrize(
    ("alice", "bob"),
    [
        ({}, {}),
        ({"1": "x"}, {"2": "x"}),
        ({"1": "x"}, {"1": "other"}),
        ({"1": "x", "2": "y"}, {"1": "x", "2": "other"}),
    ],
    ids=["none", "different ids", "different keys", "one of two differs"],
)
def test_anything_else_is_no_success(
    tmp_path: Path, stores: Stores, alice: dict[str, str], bob: dict[str, str]
) -> None:
    it = demo(tmp_path, "--until-keys", "1")
    stores.held = {"kms-a": alice, "kms-b": bob}
    it._look()
    assert (it.report()["ok"], it.report()["keys_match"]) == (False, False)


def test_too_few_keys_are_no_success(tmp_path: Path, stores: Stores) -> None:
    it = demo(tmp_path, "--until-keys", "5")
    stores.held = {"kms-a": {"1": "x"}, "kms-b": {"1": "x"}}
    it._look()
    assert (it.report()["ok"], it.report()["keys_match"]) == (False, True)


def test_report_is_json_without_nan_and_names_restarts(tmp_path: Path, stores: Stores) -> None:
    it = demo(tmp_path)
    it.services.add(Service("bob-core", ["x"], tmp_path / "log", starts=3))
    it.services.add(Service("sim", ["x"], tmp_path / "log", starts=1))
    it._look()
    report = json.loads(json.dumps(it.report(), allow_nan=False))
    assert report["restarts"] == {"bob-core": 2}
    wanted = {"ready_s", "first_key_s", "keys_delivered", "keys_match", "skr_bps", "qber_z", "qber_x"}
    assert wanted | {"phase_error_rms_deg", "final_states", "alarms"} <= report.keys()


def test_phase_error_comes_from_the_emulators_truth_while_keying(tmp_path: Path, stores: Stores) -> None:
    it = demo(tmp_path)
    (tmp_path / "truth.jsonl").write_text('{"phase_error_deg": 90.0}\n{"phase_error_deg": -3.0}\n')
    it._look_at_truth()
    assert it.report()["phase_error_rms_deg"] is None  # nobody was keying
    for module in it.view.modules.values():
        module.activity = "keying"
    it._look_at_truth()
    assert it.report()["phase_error_rms_deg"] == 3.0


def test_what_was_said_is_not_said_twice_in_a_row(
    tmp_path: Path, stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    it = demo(tmp_path)
    for text in ("one", "one", "two"):
        it.say(text)
    assert [line.split("] ")[1] for line in capsys.readouterr().err.splitlines()] == ["one", "two"]


def test_age_of_this_process_is_positive() -> None:
    assert 0.0 < process_age_s() < 36_000.0


# the whole command, with small stand-ins for its processes

STAND_IN = """
import json, os, signal, sys
name, run_dir = sys.argv[1:3]
if name == "sim":
    serial, visa = {"tec": "/x", "laser": "/y"}, {n: f"v-{n}" for n in ("source", "tagger", "counter", "cryostat")}
    side = {"serial": serial, "visa": visa, "tcp": {"snspd": "127.0.0.1:1", "snspd_counts": "127.0.0.1:2"}}
    os.makedirs(run_dir + "/sim", exist_ok=True)
    with open(run_dir + "/sim/new", "w") as f:
        json.dump({"alice": side, "bob": side, "factory": {"alice": "a.json", "bob": "b.json"}}, f)
    os.rename(run_dir + "/sim/new", run_dir + "/sim/endpoints.json")
if name == os.environ.get("QMODD_TEST_WRONG"):
    print("x.toml: no good")
    sys.exit(2)
signal.pause()
"""


class Link:
    """An MQTT link that brings one message and is then silent."""

    def __init__(self) -> None:
        self.messages = [SimpleNamespace(topic="qmodd/v1/QM-B-0001/state", payload=json.dumps(STATE).encode())]
        self.subscribed: list[str] = []

    async def subscribe(self, pattern: str) -> None:
        self.subscribed.append(pattern)

    async def next_message(self) -> Any:
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)

    @asynccontextmanager
    async def open(self, *_: object) -> AsyncIterator[Link]:
        yield self


FIELD = {"value": "keying", "why": "distilling keys"}
STATE = {"activity": FIELD, "operational": FIELD, "administrative": FIELD}


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Link:
    link = Link()

    def stand_in(self: Demo, name: str, *argv: str) -> Service:
        code = [sys.executable, "-I", "-S", "-c", STAND_IN, name, str(self.run_dir)]
        return Service(name, code, self.run_dir / "logs" / f"{name}.log", restart_s=0.001)

    monkeypatch.setattr(Demo, "_service", stand_in)
    monkeypatch.setattr(command, "open_link", link.open)
    monkeypatch.setattr(command, "LINE_S", 0.01)
    return link


def run(*argv: str) -> int:
    return command.command(arguments("--broker", "mqtt://127.0.0.1:1", *argv))


def test_ends_by_itself_with_one_json_line(
    tmp_path: Path, link: Link, stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    stores.held = {"kms-a": {"1": "x"}, "kms-b": {"1": "x"}}
    assert run("--until-keys", "1", "--json", "--run-dir", str(tmp_path)) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert said.out.count("\n") == 1
    assert report["ended"] == "1 keys at both sites"
    assert "qmodctl do --broker mqtt://127.0.0.1:1 --identity" in said.err
    configuration = (tmp_path / "bob" / "bob.toml").read_text()
    assert "mqtt://127.0.0.1:1" in configuration
    assert {p.stem for p in (tmp_path / "logs").iterdir()} >= {"sim", "kms-a", "kms-b", "alice-core", "bob-uplink"}


def test_ends_after_the_time_given_and_shows_what_came_over_mqtt(
    tmp_path: Path, link: Link, stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--seconds", "0.001", "--run-dir", str(tmp_path), "--seed", "3") == 1  # no keys
    assert "bob: keying - distilling keys" in capsys.readouterr().err
    assert link.subscribed == ["qmodd/v1/#"]


def test_gives_up_when_keys_do_not_come(
    tmp_path: Path, link: Link, stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--until-keys", "3", "--timeout", "0.001", "--json", "--run-dir", str(tmp_path)) == 1
    assert json.loads(capsys.readouterr().out)["ended"] == "no 3 keys within 0.001 s"


@pytest.mark.parametrize("name", ["sim", "alice-core"])
def test_process_with_a_wrong_configuration_ends_it_with_its_words(
    link: Link, stores: Stores, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QMODD_TEST_WRONG", name)
    assert run("--until-keys", "1", "--json") == 1
    ended = json.loads(capsys.readouterr().out)["ended"]
    assert f"{name} does not stay up" in ended
    assert "x.toml: no good" in ended


def test_ctrl_c_ends_it_in_order(
    tmp_path: Path,
    link: Link,
    stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Demo, "_look_at_truth", lambda self: os.kill(os.getpid(), signal.SIGINT))
    assert run("--json", "--run-dir", str(tmp_path)) == 1
    assert json.loads(capsys.readouterr().out)["ended"] == "ended by the user"


def test_own_run_directory_is_gone_afterwards(
    link: Link, stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("--seconds", "0.001") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_real_processes_reach_equal_keys(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "qmodd", "demo", "--until-keys", "1", "--json", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert report["keys_match"] is True
    assert report["keys_delivered"] >= 1
    assert report["first_key_s"] <= 90.0
    assert report["qber_z"] <= 0.02
    assert report["phase_error_rms_deg"] <= 5.0
    assert report["restarts"] == {}
    logs = {p.stem: p.read_text() for p in (tmp_path / "run" / "logs").iterdir()}
    for name in ("alice-core", "bob-core"):
        assert "Traceback" not in logs[name]
        assert "core.stopped" in logs[name]
    assert "self-test passed" in done.stderr
