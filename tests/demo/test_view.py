"""The demo's view of two modules, from nothing but their messages."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from qmodd.demo.view import ModuleView, View

ALICE, BOB = "QM-A-0001", "QM-B-0001"


class Screen:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.t = 0.0
        self.view = View({ALICE: "alice", BOB: "bob"}, lambda: self.t, self.said.append)

    def tell(self, serial: str, suffix: str, body: Any) -> None:
        self.view.message(serial, suffix, json.dumps(body).encode())

    def state(self, serial: str, activity: str, why: str = "because") -> None:
        fields = {"operational": "enabled", "administrative": "unlocked", "activity": activity}
        self.tell(serial, "state", {k: {"value": v, "why": why} for k, v in fields.items()})

    def event(self, serial: str, name: str, **fields: Any) -> None:
        self.tell(serial, "event", {"event": name, "fields": fields})

    def block(self, n_z: int, qber_z: float, key_bits: int, seconds: float) -> None:
        fields = {"n_z": n_z, "n_x": n_z // 20, "qber_z": qber_z, "qber_x": 2 * qber_z, "key_bits": key_bits}
        for serial in (ALICE, BOB):
            self.event(serial, "block.kept", **fields, seconds=seconds)


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_each_stage_is_said_once_as_it_passes(screen: Screen) -> None:
    for activity, why in [("boot", "a"), ("selftest", "b"), ("selftest", "c"), ("ready", "d"), ("keying", "e")]:
        screen.state(ALICE, activity, why)
    assert screen.said == ["alice: boot - a", "alice: selftest - b", "alice: ready - d", "alice: keying - e"]
    assert screen.view.modules["alice"].describe() == "keying: e"
    assert screen.view.modules["alice"].administrative == "unlocked"


def test_ready_is_when_the_later_module_is_ready_for_the_first_time(screen: Screen) -> None:
    assert screen.view.report()["ready_s"] is None
    for t, serial, activity in [(5.0, ALICE, "ready"), (9.0, BOB, "ready"), (12.0, BOB, "keying")]:
        screen.t = t
        screen.state(serial, activity)
    assert screen.view.report()["ready_s"] == 9.0


@pytest.mark.parametrize("payload", [b"", b"not json", b"\xff\x00"])
def test_what_is_no_message_is_ignored(screen: Screen, payload: bytes) -> None:
    screen.view.message(ALICE, "state", payload)
    screen.view.message("QM-C-0009", "state", b"{}")
    assert screen.said == []


def test_self_test_and_calibrations_are_told(screen: Screen) -> None:
    screen.tell(ALICE, "selftest", {"passed": True, "checks": [{"name": "rail", "ok": True}]})
    screen.tell(
        BOB, "selftest", {"passed": False, "checks": [{"name": "rail", "ok": False}, {"name": "adc", "ok": True}]}
    )
    screen.tell(ALICE, "calibration/mean_photon", {"value": {"mu": 0.54, "a": 1, "b": 2.0, "c": 3, "note": "x"}})
    assert screen.said == [
        "alice: self-test passed",
        "bob: self-test FAILED: rail",
        "alice: calibrated mean_photon: mu 0.54, a 1, b 2, ...",
    ]


def test_blocks_give_rate_and_weighted_error(screen: Screen) -> None:
    screen.block(1_000_000, 0.01, 200_000, 1.0)
    screen.block(3_000_000, 0.02, 400_000, 2.0)
    report = screen.view.report()
    assert report["blocks"] == 2
    assert report["skr_bps"] == 200_000
    assert report["qber_z"] == pytest.approx(0.0175)
    assert report["qber_x"] == pytest.approx(0.035)
    assert len([s for s in screen.said if s.startswith("block ")]) == 2  # told once, not once a side
    assert screen.said[0] == "block 1: n_Z 1,000,000, QBER Z 1.00% X 2.00%, 200,000 secret bits"
    assert screen.view.last("qber_z") == 0.02


def test_failures_and_alarms_are_told(screen: Screen) -> None:
    screen.event(BOB, "session.failed", why="tec: no reply")
    screen.event(ALICE, "block.aborted", why="verification failed")
    screen.event(ALICE, "engine.phase", why="not told")
    screen.tell(BOB, "alarm/tec", {"why": "too warm"})
    assert screen.said == ["bob: session.failed: tec: no reply", "alice: block.aborted: verification failed"]
    assert screen.view.report()["alarms"] == ["bob: tec: too warm"]


def test_report_without_a_block_has_nulls_not_nans(screen: Screen) -> None:
    report = screen.view.report()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["skr_bps"], report["qber_z"], report["blocks"]) == (None, None, 0)
    assert report["final_states"] == {"alice": "?", "bob": "?"}


def test_line_shows_dashes_before_and_numbers_after(screen: Screen) -> None:
    for serial in (ALICE, BOB):
        screen.state(serial, "keying")
    empty = screen.view.line(0)
    assert "nan" not in empty
    assert "keys 0" in empty
    screen.tell(BOB, "telemetry/link", {"sifted_rate_per_s": 1_520_000.0})
    screen.tell(BOB, "telemetry/phase", {"locked": 1, "error_deg": -1.25})
    screen.block(1_000_000, 0.0072, 231_909, 1.0)
    line = screen.view.line(42)
    for part in ("alice keying", "bob keying", "QBER Z 0.72%", "1.52 M", "231.91 k", "-1.2°", "keys 42"):
        assert part in line


def test_line_has_a_bar_while_a_calibration_runs(screen: Screen) -> None:
    screen.state(ALICE, "calibrating", "heater_iv: never calibrated")
    screen.state(BOB, "calibrating", "temperature 25 C on its way to 30.0 C")
    screen.tell(ALICE, "telemetry/progress", {"fraction": 0.4})
    line = screen.view.line(0)
    assert "[####......] heater_iv" in line
    assert "temperature 25 C" in line
    assert ModuleView("x", activity="calibrating", why="laser").doing() == "laser"


def test_unknown_telemetry_is_nan(screen: Screen) -> None:
    assert math.isnan(screen.view.modules["bob"].get("link", "nothing"))
