"""`qmodctl alarms`, and what shelving does to the status."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from qmodd import ctl
from qmodd.ctl import Ctl, Views
from qmodd.ctl_alarms import alarms_in, show_alarms
from qmodd.messages import Alarm
from tests.uplink_fakes import MODULE

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def alarm(id: str, **changes: Any) -> Alarm:
    then = NOW - timedelta(minutes=5)
    return Alarm.model_validate(
        {
            "id": id,
            "severity": "major",
            "event_type": "communicationsAlarm",
            "probable_cause": "lossOfSignal",
            "problem": "No light",
            "why": "no detections [in the gates]",
            "occurred": then,
            "raised": then,
            "last": then,
            "runbook": f"docs/runbook/{id}.md",
            **changes,
        }
    )


def said(*alarms: Alarm) -> dict[str, Any]:
    return {f"alarm/{a.id}": json.loads(a.payload()) for a in alarms}


def shown(*alarms: Alarm, as_json: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    status = show_alarms(list(alarms), as_json, Console(file=out, width=200), NOW)
    return status, out.getvalue()


def test_gravest_first_and_only_what_can_be_read() -> None:
    heard = said(alarm("b", severity="minor"), alarm("a"), alarm("c", severity="critical")) | {"alarm/los": {}}
    assert [a.id for a in alarms_in(heard)] == ["c", "a", "b"]


def test_shown_with_reason_page_and_who_cares() -> None:
    status, text = shown(alarm("no-light", acknowledged="ann"), alarm("phase-lost", shelved_until=NOW))
    assert status == 1
    for part in (
        "no-light",
        "major",
        "5",
        "ann",
        "[in the gates]",
        "docs/runbook/no-light.md",
        "shelved until 2026-01",
    ):
        assert part in text


def test_status_tells_whether_anything_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown() == (0, "no alarms\n")
    assert shown(alarm("no-light", shelved_until=NOW))[0] == 0
    assert shown(alarm("no-light"), as_json=True)[0] == 1
    assert json.loads(capsys.readouterr().out)["alarms"][0]["id"] == "no-light"


def test_a_shelved_alarm_is_not_in_the_status() -> None:
    views = Views()
    for a in (alarm("no-light"), alarm("phase-lost", shelved_until=NOW)):
        views.take(f"qmodd/v1/{MODULE}/alarm/{a.id}", a.payload())
    assert views.modules[MODULE].summary()["alarms"] == ["no-light"]


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def heard(_ctl: Ctl, module: str | None) -> Views:
        views = Views()
        views.take(f"qmodd/v1/{module}/alarm/no-light", alarm("no-light").payload())
        return views

    monkeypatch.setattr(Ctl, "_views", heard)
    assert ctl.main(["alarms", MODULE, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["alarms"][0]["runbook"] == "docs/runbook/no-light.md"
