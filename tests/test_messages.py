"""Payload models."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from qmodd import messages as m

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_alive_comes_back_and_goes_offline() -> None:
    alive = m.Alive(state="online", epoch="0" * 16, version="0.1.0", since=NOW)
    assert m.Alive.model_validate_json(alive.payload()) == alive
    assert alive.offline().state == "offline"


@pytest.mark.parametrize(
    "payload",
    [
        b'{"state":"online","epoch":"0000000000000000","version":"1","since":"2026-01-01T00:00:00Z","x":1}',
        b'{"state":"asleep","epoch":"0000000000000000","version":"1","since":"2026-01-01T00:00:00Z"}',
        b'{"state":"online","epoch":"zz","version":"1","since":"2026-01-01T00:00:00Z"}',
        b'{"state":"online","epoch":"0000000000000000","version":1,"since":"2026-01-01T00:00:00Z"}',
        b'{"state":"online","epoch":"0000000000000000","version":"1","since":"2026-01-01T00:00:00"}',
        b"",
    ],
)
def test_what_does_not_fit_is_refused(payload: bytes) -> None:
    with pytest.raises(ValidationError):
        m.Alive.model_validate_json(payload)


def test_state_is_made_from_the_life_cycle_snapshot() -> None:
    field = {"value": "ready", "why": "started", "since": NOW.isoformat()}
    snapshot = dict.fromkeys(("administrative", "operational", "activity"), field)
    state = m.State.from_snapshot({**snapshot, "inhibited": [{"output": "laser", "why": "interlock"}]})
    assert state.activity.since == NOW
    assert state.inhibited[0].output == "laser"
    assert m.State.model_validate_json(state.payload()) == state


def test_an_event_keeps_its_own_fields_apart() -> None:
    event = m.Event.from_entry({"seq": 1, "t": NOW.isoformat(), "module": "QM-A-1", "event": "boot", "why": "power"})
    assert event.fields == {"why": "power"}


def test_telemetry_is_flat_and_leaves_out_what_is_not_finite() -> None:
    flat = m.telemetry(1.23456, 7, {"die_c": 30.0, "bad_v": float("nan"), "far_a": float("inf"), "n": 3})
    assert flat == {"t": 1.235, "seq": 7, "die_c": 30.0, "n": 3}


def test_self_test_and_calibration_reports_come_back() -> None:
    check = m.Check(name="rail", value=4.0, unit="V", low=3.9, high=4.1, ok=True)
    report = m.SelftestReport(level="power-on", passed=True, taken=NOW, checks=[check])
    assert m.SelftestReport.model_validate_json(report.payload()) == report
    record = m.CalibrationRecord(name="heater_iv", version=3, value={"r_ohm": 100.0}, taken=NOW)
    assert m.CalibrationRecord.model_validate_json(record.payload()) == record
