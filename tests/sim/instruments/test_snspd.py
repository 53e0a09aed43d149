from __future__ import annotations

import json
from typing import Any

import pytest

from sim.clock import ManualClock
from sim.instruments.snspd import SnspdController
from tests.sim.fake_ports import FakeModule


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.port = FakeModule("bob", self.clock)
        self.device = SnspdController(self.clock, self.port)

    def ask(self, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        self.device.feed("".join(json.dumps(m) for m in messages).encode())
        return self.replies()

    def replies(self) -> list[dict[str, Any]]:
        parts = self.device.take().split(b"\x17")
        assert parts[-1] == b""
        return [json.loads(p) for p in parts[:-1]]


def test_label_properties_are_objects_with_value() -> None:
    replies = Bench().ask({"request": "labelProps", "value": "None"})
    labels = {r["label"]: r["value"] for r in replies}
    assert labels["NumberOfDetectors"]["value"] == 3
    assert labels["InptMeasurementPeriod"]["value"] == 100
    assert labels["BiasCurrent"]["value"] == [0.0, 0.0, 0.0]


def test_bias_reaches_the_detectors_once_enabled() -> None:
    bench = Bench()
    [reply] = bench.ask({"command": "SetAllBiasCurrents", "label": "BiasCurrent", "value": [15.0, 16, 30.5]})
    assert reply == {"label": "BiasCurrent", "value": [15.0, 16.0, 30.5]}
    assert bench.port.detector_bias == [0.0] * 3
    bench.ask({"command": "DetectorEnable", "value": True})
    assert bench.port.detector_bias == pytest.approx([15e-6, 16e-6, 30.5e-6])
    assert bench.ask({"request": "BiasVoltage"}) == [{"label": "BiasVoltage", "value": [0.0, 0.0, 0.25]}]
    bench.ask({"command": "DetectorEnable", "value": False})
    assert bench.port.detector_bias == [0.0] * 3


@pytest.mark.parametrize(
    "message",
    [
        {"command": "SetMeasurementPeriod", "value": 5},
        {"command": "SetMeasurementPeriod", "value": "x"},
        {"command": "SetMeasurementPeriod", "value": True},
        {"command": "SetAllBiasCurrents", "value": [1, 2]},
        {"command": "SetAllBiasCurrents", "value": [1, 2, 99]},
        {"command": "SetAllBiasCurrents", "value": "abc"},
        {"command": "DetectorEnable", "value": 1},
        {"command": "Explode"},
        {"request": "Nothing"},
        {"hello": 1},
    ],
)
def test_errors_carry_an_error_label(message: dict[str, Any]) -> None:
    [reply] = Bench().ask(message)
    assert "Error" in reply["label"]


def test_joined_and_broken_requests() -> None:
    bench = Bench()
    assert len(bench.ask({"request": "BiasVoltage"}, {"request": "BiasCurrent"})) == 2
    bench.device.feed(b'{"request": "Bias')
    assert bench.replies() == []
    bench.device.feed(b'Voltage"}')
    assert len(bench.replies()) == 1
    bench.device.feed(b"nonsense")
    assert bench.replies()[0]["label"] == "Error"
    bench.device.feed(b"[1]")
    assert bench.replies()[0]["label"] == "Error"
    assert bench.device.due is None


def test_counts_come_a_line_a_period() -> None:
    bench = Bench()
    assert bench.device.stream_lines(0.05) == b""
    assert bench.device.stream_lines(0.11) == b"0.100000,100,200,300\n"
    assert bench.device.stream_lines(0.35) == b"0.200000,100,200,300\n0.300000,100,200,300\n"
    assert bench.device.next_line == pytest.approx(0.4)
    assert len(bench.device.stream_lines(100.0).splitlines()) == 8
    assert bench.device.stream_lines(100.05) == b""


def test_period_and_trigger_level() -> None:
    bench = Bench()
    bench.clock.t = 1.0
    bench.ask({"command": "SetMeasurementPeriod", "label": "InptMeasurementPeriod", "value": 1000})
    assert bench.device.stream_lines(1.9) == b""
    bench.ask({"command": "SetAllTriggerLevels", "value": [100, 500, 100]})
    assert bench.device.stream_lines(2.0) == b"2.000000,1000,0,3000\n"
