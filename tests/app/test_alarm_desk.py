"""What the NOC gets of alarms: topics, events, the file, and what people do; on a clock that the tests move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from qmodd.app.alarm_desk import AlarmDesk, read
from qmodd.events import EventLog
from qmodd.messages import Alarm
from qmodd.outbox import Outbox

BEGIN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@dataclass
class Hands:
    """A clock that is set by hand; `ahead` moves UTC only."""

    seconds: float = 0.0
    ahead: float = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def utc(self) -> datetime:
        return datetime.fromtimestamp(BEGIN + self.seconds + self.ahead, UTC)

    def utc_synchronised(self) -> bool:
        return True


class Site:
    """A desk, its outbox and its event log in one directory; `restart` leaves only what is on disk."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.clock = directory, Hands()
        self._begin()

    def _begin(self) -> None:
        self.outbox = Outbox(self.directory / "outbox.db")
        self.events = EventLog(None, self.clock, "QM-B-0001")
        self.desk = AlarmDesk(self.directory / "alarms.json", self.clock, self.outbox, self.events)
        self.desk.open()

    def restart(self) -> None:
        self.outbox.close()
        self._begin()

    def see(self, seconds: float, **seen: str | None) -> None:
        """One look, so long after the last."""
        self.clock.seconds += seconds
        self.desk.observe({id.replace("_", "-"): why for id, why in seen.items()})

    @property
    def retained(self) -> dict[str, Alarm]:
        found = {s.removeprefix("alarm/"): read(p) for s, p in self.outbox.retained("alarm/").items() if p}
        return {id: alarm for id, alarm in found.items() if alarm is not None}

    def shelved(self, id: str) -> bool:
        return self.retained[id].shelved_until is not None

    def told(self) -> list[tuple[str, Any]]:
        return [(str(e["event"]).removeprefix("alarm."), e.get("alarm")) for e in self.events.entries]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.outbox.close()


def test_raised_is_retained_and_cleared_is_empty(site: Site) -> None:
    site.see(1.0, no_light="no detections")
    assert site.retained == {}
    site.see(10.0, no_light="no detections")
    alarm = site.retained["no-light"]
    assert (alarm.severity, alarm.probable_cause, alarm.why) == ("critical", "lossOfSignal", "no detections")
    assert (alarm.raised - alarm.occurred).total_seconds() == 10.0
    assert alarm.runbook == "docs/runbook/no-light.md"
    site.see(1.0, no_light=None)
    assert "no-light" in site.retained
    site.see(5.0, no_light=None)
    assert site.retained == {}
    assert site.outbox.retained("alarm/") == {"alarm/no-light": b""}
    assert site.told() == [("raised", "no-light"), ("cleared", "no-light")]
    numbers = site.desk.numbers()
    assert (numbers["raised_count"], numbers["mttd_s"], numbers["mttr_s"]) == (1, 10.0, 11.0)
    assert (numbers["active_count"], "mtta_s" in numbers) == (0, False)


def test_an_empty_topic_leaves_the_outbox_once_it_is_published(site: Site) -> None:
    site.see(0.0, internal_error="KeyError")
    site.see(0.0, internal_error=None)
    site.see(20.0, internal_error=None)
    for row in site.outbox.pending():
        site.outbox.published(row.id)
    assert site.outbox.retained("alarm/") == {}


def test_consequences_are_on_record_with_their_root(site: Site) -> None:
    for _ in range(60):
        site.see(1.0, no_light="dark", phase_lost="the lock is degraded", no_keys="waiting")
    assert list(site.retained) == ["no-light"]
    suppressed = [(e["alarm"], e["by"]) for e in site.events.entries if e["event"] == "alarm.suppressed"]
    assert suppressed == [("phase-lost", "no-light"), ("no-keys", "no-light")]
    assert site.desk.numbers()["suppressed_count"] == 2


def test_a_consequence_that_came_first_leaves_its_topic_to_the_root(site: Site) -> None:
    site.see(0.0, broker_away="down")
    site.see(10.0, broker_away="down")
    assert list(site.retained) == ["broker-away"]
    site.see(1.0, broker_away="down", uplink_away="gone")
    assert list(site.retained) == ["broker-away"], "its root may never become an alarm"
    site.see(1.0, broker_away="down", uplink_away=None)
    site.see(1.0, broker_away="down", uplink_away="gone")
    assert site.told() == [("raised", "broker-away")]
    site.see(10.0, broker_away="down", uplink_away="gone")
    assert list(site.retained) == ["uplink-away"]
    for _ in range(40):
        site.see(1.0, broker_away="down", uplink_away=None)
    assert list(site.retained) == ["broker-away"]
    assert site.told() == [
        ("raised", "broker-away"),
        ("raised", "uplink-away"),
        ("suppressed", "broker-away"),
        ("cleared", "uplink-away"),
        ("released", "broker-away"),
    ]


def test_what_cannot_be_judged_stays_an_alarm_but_does_not_become_one(site: Site) -> None:
    site.see(1.0, no_light="dark")
    site.see(60.0)
    site.see(1.0, no_light="dark")
    assert site.retained == {}, "not seen for a minute: its time begins anew"
    site.see(10.0, no_light="dark")
    site.see(600.0)
    assert list(site.retained) == ["no-light"]


def test_a_restart_neither_loses_nor_repeats(site: Site) -> None:
    site.see(0.0, no_light="dark")
    site.see(10.0, no_light="dark")
    site.desk.acknowledge("no-light", "ann")
    before = site.retained
    assert before["no-light"].acknowledged == "ann"
    site.restart()
    assert site.retained == before
    site.see(5.0)
    site.see(1.0, no_light="dark")
    assert site.told() == []
    assert site.retained["no-light"].acknowledged == "ann"
    site.see(1.0, no_light=None)
    site.restart()
    site.see(3.0, no_light=None)
    site.see(5.0, no_light=None)
    assert site.told() == [("cleared", "no-light")]
    assert site.retained == {}
    assert site.desk.numbers()["mtta_s"] == 0.0


def test_topics_follow_the_file_after_a_crash_between_the_two(site: Site) -> None:
    site.see(0.0, internal_error="KeyError")
    site.outbox.put("alarm/internal-error", b"", kind="alarm", retain=True)
    site.outbox.put("alarm/no-light", b"{}", kind="alarm", retain=True)
    site.restart()
    assert list(site.retained) == ["internal-error"]
    assert site.outbox.retained("alarm/")["alarm/no-light"] == b""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"now": 1}', '{"now": 1, "alarms": {"quiet_until": 0}}'])
def test_a_damaged_file_is_kept_and_told(site: Site, text: str) -> None:
    site.desk.path.write_text(text)
    site.restart()
    assert site.told() == [("file_damaged", None)]
    assert site.desk.path.with_suffix(".damaged").read_text() == text
    site.see(0.0, internal_error="KeyError")
    assert list(site.retained) == ["internal-error"]


def test_acknowledged_twice_counts_once(site: Site) -> None:
    with pytest.raises(LookupError, match="not active"):
        site.desk.acknowledge("no-light", "ann")
    site.see(0.0, internal_error="KeyError")
    site.clock.seconds += 7.0
    site.desk.acknowledge("internal-error", "ann")
    site.clock.seconds += 7.0
    site.desk.acknowledge("internal-error", "bob")
    assert site.retained["internal-error"].acknowledged == "ann"
    numbers = site.desk.numbers()
    assert (numbers["mtta_s"], numbers["unacknowledged_count"]) == (7.0, 0)


def test_shelved_before_it_is_raised_and_after(site: Site) -> None:
    site.desk.shelve("internal-error", "ann", 100.0)
    site.restart()
    site.see(1.0, internal_error="KeyError")
    assert site.shelved("internal-error")
    assert (site.desk.numbers()["active_count"], site.desk.numbers()["shelved_count"]) == (0, 1)
    site.see(100.0, internal_error="KeyError")
    assert not site.shelved("internal-error")
    site.desk.shelve("internal-error", "ann", 50.0)
    assert site.shelved("internal-error")
    assert site.told() == [("raised", "internal-error"), ("released", "internal-error"), ("shelved", "internal-error")]
    with pytest.raises(LookupError, match="no alarm is called"):
        site.desk.shelve("no-such", "ann", 1.0)


def test_maintenance_outlives_a_restart_and_ends(site: Site) -> None:
    site.desk.maintenance("ann", 60.0, "fibre work")
    site.restart()
    assert site.desk.numbers()["maintenance"] is True
    site.see(1.0, internal_error="KeyError")
    assert site.retained == {}
    site.see(60.0, internal_error="KeyError")
    assert list(site.retained) == ["internal-error"]
    site.desk.maintenance("ann", 60.0, "")
    site.desk.maintenance("ann", 0.0, "")
    site.see(1.0, device_fault="tec")
    assert "device-fault" not in site.retained  # it waits for its root, a supply that has failed
    site.see(2.0, device_fault="tec")
    assert "device-fault" in site.retained


def test_time_does_not_go_back_when_the_clock_does(site: Site) -> None:
    site.clock.ahead = 3600.0
    site.see(0.0, no_light="dark")
    site.clock.ahead = -3600.0
    site.see(10.0, no_light="dark")
    assert list(site.retained) == ["no-light"]
    alarm = site.retained["no-light"]
    assert (alarm.raised - alarm.occurred).total_seconds() == pytest.approx(10.0)
    site.restart()
    site.see(1.0, no_light=None)
    site.see(5.0, no_light=None)
    assert site.retained == {}
    assert float(site.desk.numbers()["mttr_s"]) > 0.0


def test_a_reason_that_changes_is_told_by_the_topic_alone(site: Site) -> None:
    site.see(0.0, internal_error="KeyError")
    site.see(1.0, internal_error="ValueError " + 600 * "x")
    assert site.retained["internal-error"].why.startswith("ValueError")
    assert site.told() == [("raised", "internal-error")]


def test_what_is_no_alarm_is_not_read() -> None:
    assert read(b"") is None
    assert read(b'{"id": "x"}') is None
