"""The module's life cycle: three fields after ITU-T X.731, each with a reason an operator can act on.

The administrative state is persistent: a locked module stays dark over a restart.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from qmodd.clock import Clock
from qmodd.durable import write_whole

# Characters of a reason, of the 500 that a message has room for.
LONGEST_WHY = 480


class Administrative(StrEnum):
    UNLOCKED = "unlocked"
    LOCKED = "locked"


class Operational(StrEnum):
    ENABLED = "enabled"
    DEGRADED = "degraded"
    DISABLED = "disabled"


class Activity(StrEnum):
    BOOT = "boot"
    SELFTEST = "selftest"
    CALIBRATING = "calibrating"
    LOCKING = "locking"
    READY = "ready"
    KEYING = "keying"
    SAFE = "safe"


@dataclass(frozen=True)
class Field:
    value: str
    why: str
    since: datetime


Listener = Callable[[str, Field], None]


@dataclass
class LifeCycle:
    """Current state and its reasons. Every change reaches the listeners, in order, exactly once."""

    path: Path
    clock: Clock
    listeners: list[Listener] = field(default_factory=list)
    inhibited: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        now = self.clock.utc()
        value, why = _load(self.path)
        self._fields = {
            "administrative": Field(value, why, now),
            "operational": Field(Operational.DISABLED, "starting", now),
            "activity": Field(Activity.BOOT, "starting", now),
        }

    @property
    def administrative(self) -> Administrative:
        return Administrative(self._fields["administrative"].value)

    @property
    def operational(self) -> Operational:
        return Operational(self._fields["operational"].value)

    @property
    def activity(self) -> Activity:
        return Activity(self._fields["activity"].value)

    def why(self, name: str) -> str:
        return self._fields[name].why

    def set_administrative(self, value: Administrative, why: str) -> None:
        """Durable before it is in force."""
        _store(self.path, value, why)
        self._set("administrative", value, why)

    def set_operational(self, value: Operational, why: str) -> None:
        self._set("operational", value, why)

    def set_activity(self, value: Activity, why: str) -> None:
        self._set("activity", value, why)

    def inhibit(self, output: str, why: str) -> None:
        """Say why an output is off; told once per change of reason."""
        if self.inhibited.get(output) != why:
            self.inhibited[output] = why
            self._notify("inhibited", Field(output, why, self.clock.utc()))

    def allow(self, output: str) -> None:
        if self.inhibited.pop(output, None) is not None:
            self._notify("allowed", Field(output, "in use", self.clock.utc()))

    def snapshot(self) -> dict[str, Any]:
        """As published on `state`."""
        out: dict[str, Any] = {
            name: {"value": f.value, "why": f.why, "since": f.since.isoformat()} for name, f in self._fields.items()
        }
        out["inhibited"] = [{"output": o, "why": w} for o, w in sorted(self.inhibited.items())]
        return out

    def _set(self, name: str, value: str, why: str) -> None:
        # A reason may quote another module's, which quotes its own: what is published has room for so much.
        why = why[:LONGEST_WHY]
        old = self._fields[name]
        if (old.value, old.why) == (value, why):
            return
        since = old.since if old.value == value else self.clock.utc()
        self._fields[name] = Field(value, why, since)
        self._notify(name, self._fields[name])

    def _notify(self, name: str, value: Field) -> None:
        for listener in self.listeners:
            listener(name, value)


def _load(path: Path) -> tuple[Administrative, str]:
    try:
        raw = json.loads(path.read_text())
        return Administrative(raw["administrative"]), str(raw["why"])
    except FileNotFoundError:
        return Administrative.UNLOCKED, "never locked"
    except (ValueError, KeyError, TypeError):
        return Administrative.LOCKED, f"the stored state {path.name} is unreadable: unlock by command after a check"


def _store(path: Path, value: Administrative, why: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"administrative": value, "why": why}))
