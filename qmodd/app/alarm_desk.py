"""Alarms as the NOC gets them: each change on disk first, then retained on `alarm/<id>`, then in the event log.

`alarms.json` in the state directory is replaced as a whole; after a restart the retained topics are brought in line
with it, so that nothing is lost and nothing is told twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qmodd.clock import Clock
from qmodd.durable import write_whole
from qmodd.events import EventLog
from qmodd.messages import Alarm as Message
from qmodd.monitoring.alarms import Alarm, Alarms, Change
from qmodd.monitoring.catalogue import CATALOGUE, RUNBOOK
from qmodd.outbox import Outbox

FILE = "alarms.json"
TOPIC = "alarm/"
# What a reason may be long; the same bound as everywhere else on MQTT.
MOST_WHY = 480


@dataclass
class AlarmDesk:
    """Keeps the engine, its file and what is published in step. Not for two threads."""

    path: Path
    clock: Clock
    outbox: Outbox
    events: EventLog
    alarms: Alarms = field(default_factory=lambda: Alarms(CATALOGUE))
    _told: dict[str, tuple[bool, str]] = field(default_factory=dict)
    _silent: dict[str, str] = field(default_factory=dict)
    _utc_s: float = 0.0
    _monotonic_s: float = 0.0
    _quiet_until: float = 0.0

    def __post_init__(self) -> None:
        self._utc_s, self._monotonic_s = self.clock.utc().timestamp(), self.clock.monotonic()

    def now(self) -> float:
        """UTC seconds that never go back, a restart and a clock that is set included."""
        utc, monotonic = self.clock.utc().timestamp(), self.clock.monotonic()
        self._utc_s = utc if utc >= self._utc_s else self._utc_s + monotonic - self._monotonic_s
        self._monotonic_s = monotonic
        return self._utc_s

    # over a restart

    def open(self) -> None:
        """Continue from the file. One that cannot be read is kept aside, told, and begun anew."""
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            self._restore(raw)
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            self.alarms = Alarms(CATALOGUE)
            self.path.replace(self.path.with_suffix(".damaged"))
            self.events.record("alarm.file_damaged", {"why": f"{self.path.name}: {type(e).__name__}: {e}"[:MOST_WHY]})
        self._reconcile()

    def _restore(self, raw: Mapping[str, Any]) -> None:
        self._utc_s = max(self._utc_s, float(raw["now"]))
        self._quiet_until = float(raw["alarms"]["quiet_until"])
        self.alarms.restore(raw["alarms"])
        self._silent = self.alarms.suppressed()

    def _reconcile(self) -> None:
        """Retained topics as the alarms are: the process may have ended between the file and the outbox."""
        wanted = {a.id: message(a).payload() for a in self.alarms.active()}
        there = {s.removeprefix(TOPIC): p for s, p in self.outbox.retained(TOPIC).items() if p}
        for id in sorted(there.keys() - wanted.keys()):
            self._publish(id, b"")
        for id, payload in wanted.items():
            if there.get(id) != payload:
                self._publish(id, payload)

    # what is seen

    def observe(self, seen: Mapping[str, str | None]) -> None:
        """One look at all conditions that can be judged now: the reason, or None where there is nothing wrong. An alarm
        that is not in `seen` stays; what was not an alarm yet begins anew when it is seen again."""
        now, changes = self.now(), list[Change]()
        unknown = [id for id, (on, _) in self._told.items() if on and id not in seen and not self.alarms.raised(id)]
        seen = {**seen, **dict.fromkeys(unknown)}
        for id, why in seen.items():
            told = (why is not None, (why or "")[:MOST_WHY])
            # What is well and was well needs no look; it is most of the catalogue most of the time.
            if told != self._told.get(id) or told[0]:
                self._told[id] = told
                changes += self.alarms.observe(id, told[0], now, told[1])
        self._take([*changes, *self.alarms.tick(now)])
        if self._silent or any(on for on, _ in self._told.values()):
            self._tell_silent()

    def _tell_silent(self) -> None:
        """Consequences that stay silent are on record with their root: nothing that was seen is lost."""
        silent = self.alarms.suppressed()
        for id, root in silent.items():
            if self._silent.get(id) != root:
                self._event("suppressed", id, by=root, why=self._told.get(id, (True, ""))[1])
        self._silent = silent

    # what people do

    def acknowledge(self, id: str, by: str) -> None:
        """Raises LookupError for an alarm that is not active."""
        self._take(self.alarms.acknowledge(id, by, self.now()))

    def shelve(self, id: str, by: str, seconds: float) -> None:
        """Raises LookupError for an unknown alarm, ValueError for a time that is not positive."""
        now = self.now()
        changes = self.alarms.shelve(id, by, now + seconds, now)
        if not changes:
            self._event("shelved", id, by=by, why=f"for {seconds:g} s, before it was raised")
        self._take(changes, save=True)

    def maintenance(self, by: str, seconds: float, why: str) -> None:
        """For so long nothing new is raised; 0 ends the window."""
        self._quiet_until = self.now() + seconds
        self.alarms.maintenance(self._quiet_until)
        self._save()
        self.events.record("alarm.maintenance", {"by": by, "seconds": seconds, "why": why[:MOST_WHY]})

    @property
    def maintenance_left_s(self) -> float:
        return max(0.0, self._quiet_until - self._utc_s)

    # what is told

    def active(self) -> list[Message]:
        """As published, the oldest first."""
        return [message(a) for a in sorted(self.alarms.active(), key=lambda a: a.raised)]

    def numbers(self) -> dict[str, int | float | bool]:
        """For telemetry; the means are there once there is one to take a mean over."""
        figures, active = self.alarms.figures(), self.alarms.active()
        means = {"mttd_s": figures.mttd_s, "mtta_s": figures.mtta_s, "mttr_s": figures.mttr_s}
        return {
            "active_count": sum(a.shelved_until is None for a in active),
            "shelved_count": sum(a.shelved_until is not None for a in active),
            "unacknowledged_count": sum(not a.acknowledged for a in active),
            "suppressed_count": len(self._silent),
            "raised_count": figures.raised,
            "maintenance": self.maintenance_left_s > 0.0,
            **{name: mean for name, mean in means.items() if mean is not None},
        }

    # inside

    def _take(self, changes: Iterable[Change], save: bool = False) -> None:
        changes = list(changes)
        if changes or save:
            self._save()
        active = {a.id: a for a in self.alarms.active()} if changes else {}
        for id in dict.fromkeys(c.alarm.id for c in changes):
            self._publish(id, message(active[id]).payload() if id in active else b"")
        for c in changes:
            # `suppressed` is told with all others that are silent; a reason that changes is told by the topic alone.
            if c.what not in ("changed", "suppressed"):
                took_s = None if c.after_s is None else round(c.after_s, 3)
                self._event(c.what, c.alarm.id, took_s, severity=c.alarm.severity, by=c.by, why=c.alarm.why)

    def _publish(self, id: str, payload: bytes) -> None:
        self.outbox.put(f"alarm/{id}", payload, kind="alarm", retain=True)

    def _event(self, what: str, id: str, after_s: float | None = None, **fields: str) -> None:
        shown: dict[str, str | float] = {name: value[:MOST_WHY] for name, value in fields.items() if value}
        if after_s is not None:
            shown["after_s"] = after_s
        self.events.record(f"alarm.{what}", {"alarm": id, **shown})

    def _save(self) -> None:
        """On disk as a whole when it returns."""
        body = {"now": self.now(), "alarms": self.alarms.snapshot()}
        write_whole(self.path, json.dumps(body, indent=1))


def message(alarm: Alarm) -> Message:
    """As it goes on the wire."""

    def at(utc_s: float | None) -> datetime | None:
        return None if utc_s is None else datetime.fromtimestamp(utc_s, UTC)

    return Message.model_validate(
        {
            "id": alarm.id,
            "severity": str(alarm.severity),
            "event_type": str(alarm.event_type),
            "probable_cause": alarm.probable_cause,
            "problem": alarm.problem,
            "why": alarm.why[:MOST_WHY],
            "occurred": at(alarm.occurred),
            "raised": at(alarm.raised),
            "last": at(alarm.last),
            "acknowledged": alarm.acknowledged,
            "acknowledged_at": at(alarm.acknowledged_at),
            "shelved_until": at(alarm.shelved_until),
            "latched": alarm.latched,
            "count": alarm.count,
            "runbook": RUNBOOK.format(id=alarm.id),
        }
    )


def read(payload: bytes) -> Message | None:
    """A retained alarm as a client reads it; None for an empty one, or one of another version of qmodd."""
    try:
        return Message.model_validate_json(payload)
    except ValidationError:
        return None
