"""The demo: its arguments and report, and one run of real processes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
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
        monkeypatch.setattr(command, "read_digests", lambda path: self.held[path.stem])


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
