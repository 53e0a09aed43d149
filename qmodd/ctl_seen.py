"""What a watcher has heard of each module so far: the last of every topic, and short histories for the pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from qmodd.ctl_alarms import GRAVEST_FIRST, alarms_in
from qmodd.ctl_client import ModuleView, Views
from qmodd.messages import ROOT, Alarm, Kpi

WANTED = ("alive", "state", "alarm/+", "approval/+", "kpi", "telemetry/+", "event")
# Samples of telemetry, and events, that are kept for the pictures.
KEPT, EVENTS_KEPT = 600, 8
# Telemetry that is older than this is shown as old.
SILENT_S = 15.0


@dataclass
class Seen:
    """One module. Times are the watcher's monotonic seconds."""

    view: ModuleView
    qber_z: deque[float | None] = field(default_factory=lambda: deque(maxlen=KEPT))
    skr_bps: deque[float | None] = field(default_factory=lambda: deque(maxlen=KEPT))
    events: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    heard_s: float | None = None
    kpi: Kpi | None = None

    @property
    def serial(self) -> str:
        return self.view.serial

    @property
    def alarms(self) -> list[Alarm]:
        """The gravest first, shelved ones left out."""
        return [a for a in alarms_in(self.view.said) if a.shelved_until is None]

    def group(self, name: str) -> Mapping[str, Any]:
        found = self.view.said.get(f"telemetry/{name}")
        return found if isinstance(found, dict) else {}

    def field(self, name: str) -> tuple[str, str]:
        """Value and reason of one field of the state."""
        state = self.view.said.get("state")
        one = state.get(name, {}) if isinstance(state, dict) else {}
        return str(one.get("value", "unknown")), str(one.get("why", ""))

    @property
    def online(self) -> bool:
        alive = self.view.said.get("alive")
        return isinstance(alive, dict) and alive.get("state") == "online"

    @property
    def activity(self) -> str:
        return self.field("activity")[0] if self.online else "offline"

    @property
    def why(self) -> str:
        """The first thing to know about it."""
        if not self.online:
            return "offline"
        if self.alarms:
            return f"{self.alarms[0].id}: {self.alarms[0].why}"
        administrative, why = self.field("administrative")
        return f"locked: {why}" if administrative == "locked" else self.field("activity")[1]

    def silent_s(self, now_s: float) -> float | None:
        """How long there was no telemetry, where there should be."""
        if not self.online or self.heard_s is None or now_s - self.heard_s < SILENT_S:
            return None
        return now_s - self.heard_s

    @property
    def approvals(self) -> int:
        """Requests that wait for a second person."""
        return sum(t.startswith("approval/") for t in self.view.said)

    @property
    def badness(self) -> tuple[int, int, int, float, str]:
        """Smaller is worse: offline, gravest alarm, service, activity, availability."""
        alarms = self.alarms
        gravest = GRAVEST_FIRST.index(alarms[0].severity) if alarms else len(GRAVEST_FIRST)
        service = {"disabled": 0, "degraded": 1, "unknown": 1}.get(self.field("operational")[0], 2)
        available = self.kpi.last_24h.availability if self.kpi else None
        idle = 0 if self.activity != "keying" else 1
        return (gravest if self.online else -1, service, idle, 1.0 if available is None else available, self.serial)

    def hear(self, suffix: str, now_s: float) -> None:
        """Its view has just taken this topic."""
        body = self.view.said.get(suffix)
        if not isinstance(body, dict):
            return
        if suffix.startswith("telemetry/"):
            self.heard_s = now_s
        if suffix == "telemetry/keys":
            self.qber_z.append(number(body.get("qber_z")) or None)
            self.skr_bps.append(number(body.get("secret_rate_bps")))
        elif suffix == "event":
            self.events.append(body)


@dataclass
class Fleet:
    """All modules that were heard."""

    views: Views = field(default_factory=Views)
    modules: dict[str, Seen] = field(default_factory=dict)

    def hear(self, topic: str, payload: bytes, now_s: float) -> str | None:
        """Returns the module's serial number."""
        serial = self.views.take(topic, payload)
        if serial is None:
            return None
        seen = self.modules.setdefault(serial, Seen(self.views.modules[serial]))
        suffix = topic.removeprefix(f"{ROOT}/{serial}/")
        if suffix == "kpi":
            seen.kpi = read_kpi(payload)
        seen.hear(suffix, now_s)
        return serial

    def worst_first(self) -> list[Seen]:
        return sorted(self.modules.values(), key=lambda m: m.badness)


def read_kpi(payload: bytes) -> Kpi | None:
    """None for one of another version of qmodd."""
    try:
        return Kpi.model_validate_json(payload)
    except ValidationError:
        return None


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def receivers(modules: Iterable[Seen]) -> list[Seen]:
    """Those that hold a phase lock: one a link, so that its rate is counted once."""
    return [m for m in modules if m.group("phase") or (m.kpi is not None and m.kpi.last_24h.lock_uptime is not None)]
