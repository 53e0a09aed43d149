"""Alarms after ITU-T X.733: raised and cleared with hold-off, one root instead of its consequences, never lost. Pure.

A condition is told to `observe` as often as it is looked at; the engine decides when that makes an alarm. A consequence
of something that is itself wrong stays silent as long as its root lasts: `Kind.because_of` names the possible roots. A
root is often seen later than its consequences, so that a consequence waits `wait_for_root_s` before it is raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """X.733, 8.1.2.3."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    WARNING = "warning"
    INDETERMINATE = "indeterminate"
    CLEARED = "cleared"


class EventType(StrEnum):
    """X.733, 8.1.1."""

    COMMUNICATIONS = "communicationsAlarm"
    QUALITY_OF_SERVICE = "qualityOfServiceAlarm"
    PROCESSING_ERROR = "processingErrorAlarm"
    EQUIPMENT = "equipmentAlarm"
    ENVIRONMENTAL = "environmentalAlarm"


@dataclass(frozen=True)
class Kind:
    """One entry of the catalogue. Times in s: a condition must last `raise_after_s` to be raised, and be gone for
    `clear_after_s` to be cleared. `latched`: it stays until acknowledged by command, however long it is gone.
    `recover_s`: a consequence has so long to end by itself after its root has been cleared."""

    id: str
    severity: Severity
    event_type: EventType
    probable_cause: str
    problem: str
    because_of: tuple[str, ...] = ()
    raise_after_s: float = 0.0
    clear_after_s: float = 5.0
    latched: bool = False
    recover_s: float = 30.0


@dataclass(frozen=True)
class Alarm:
    """An alarm as published. Times are UTC seconds since 1970; `occurred` is when the condition began."""

    id: str
    severity: str
    event_type: str
    probable_cause: str
    problem: str
    why: str
    occurred: float
    raised: float
    last: float
    acknowledged: str = ""
    acknowledged_at: float | None = None
    shelved_until: float | None = None
    latched: bool = False
    count: int = 1


@dataclass(frozen=True)
class Change:
    """`what`: raised, changed, cleared, acknowledged, shelved, suppressed or released. `by`: root, or a person.
    `after_s`: how long that took; raised: since the condition began, acknowledged: since raised, cleared: how long the
    condition lasted."""

    what: str
    alarm: Alarm
    by: str = ""
    after_s: float | None = None


@dataclass(frozen=True)
class Figures:
    """Means over all alarms so far, s: detection (condition to raised), acknowledgement, repair (to cleared)."""

    raised: int
    mttd_s: float | None
    mtta_s: float | None
    mttr_s: float | None


@dataclass
class _Condition:
    active: bool = False
    why: str = ""
    since: float = 0.0
    gone_since: float | None = None
    alarm: Alarm | None = None
    suppressed_by: str = ""
    rooted_until: float | None = None


@dataclass
class _Sums:
    raised: int = 0
    detect_s: float = 0.0
    acknowledged: int = 0
    acknowledge_s: float = 0.0
    cleared: int = 0
    repair_s: float = 0.0


@dataclass
class Alarms:
    """The engine. All times `now` are UTC seconds, given by the caller and never going back."""

    catalogue: Mapping[str, Kind]
    wait_for_root_s: float = 2.0
    _conditions: dict[str, _Condition] = field(default_factory=dict)
    _shelved: dict[str, float] = field(default_factory=dict)
    _quiet_until: float = 0.0
    _sums: _Sums = field(default_factory=_Sums)

    def __post_init__(self) -> None:
        for kind in self.catalogue.values():
            for root in kind.because_of:
                if root not in self.catalogue:
                    raise ValueError(f"alarm {kind.id}: its root {root!r} is not in the catalogue")

    def observe(self, id: str, active: bool, now: float, why: str = "") -> list[Change]:
        """One look at a condition. Raises KeyError for an alarm that is not in the catalogue."""
        kind, c = self.catalogue[id], self._conditions.setdefault(id, _Condition())
        if active:
            if not c.active:
                c.active = True
                # What comes back before it was cleared is the same occurrence.
                if c.alarm is None:
                    c.since = now
                else:
                    c.alarm = replace(c.alarm, count=c.alarm.count + 1)
            c.gone_since = None
            if c.alarm is not None:
                changed = why != "" and why != c.alarm.why and not c.suppressed_by
                c.alarm = replace(c.alarm, last=now, why=why or c.alarm.why)
                c.why = why or c.why
                return self.tick(now) + ([Change("changed", c.alarm)] if changed else [])
            c.why = why or kind.problem
        elif c.active:
            c.active = False
            c.gone_since = now
        return self.tick(now)

    def tick(self, now: float) -> list[Change]:
        """What time alone brings about: hold-offs that end, roots that appear or go, shelves that end."""
        out: list[Change] = []
        for id, until in list(self._shelved.items()):
            if now >= until:
                del self._shelved[id]
                c = self._conditions.get(id)
                if c is not None and c.alarm is not None:
                    c.alarm = replace(c.alarm, shelved_until=None)
                    out.append(Change("released", c.alarm))
        stepped = self._step_all(now)
        if any(c.what == "raised" for c in stepped):
            # What was looked at before its root was raised steps back before that is told.
            stepped = self._step_all(now) + stepped
        return out + stepped

    def _step_all(self, now: float) -> list[Change]:
        return [change for id, c in self._conditions.items() for change in self._step(self.catalogue[id], c, now)]

    def _step(self, kind: Kind, c: _Condition, now: float) -> list[Change]:
        if c.alarm is not None and not c.active and self._may_clear(kind, c, now):
            return self._clear(c, now)
        root = self._root(kind)
        if root:
            c.rooted_until = now
        elif c.rooted_until is not None and (not c.active or now - c.rooted_until >= kind.recover_s):
            c.rooted_until = None
        recovering = root or ("" if c.rooted_until is None else c.suppressed_by)
        if c.alarm is not None:
            # A root that may never become an alarm (a start, a hold-off) changes nothing of one that people know.
            return self._suppress(c, recovering if not root or self.raised(root) else c.suppressed_by)
        waited = now - c.since
        patience = max(kind.raise_after_s, self.wait_for_root_s if kind.because_of else 0.0)
        if not c.active or waited < patience or c.rooted_until is not None or now < self._quiet_until:
            return []
        c.alarm = Alarm(
            id=kind.id,
            severity=kind.severity,
            event_type=kind.event_type,
            probable_cause=kind.probable_cause,
            problem=kind.problem,
            why=c.why,
            occurred=c.since,
            raised=now,
            last=now,
            shelved_until=self._shelved.get(kind.id),
            latched=kind.latched,
        )
        self._sums.raised += 1
        self._sums.detect_s += waited
        return [Change("raised", c.alarm, after_s=waited)]

    def _may_clear(self, kind: Kind, c: _Condition, now: float) -> bool:
        assert c.alarm is not None
        gone = c.gone_since is not None and now - c.gone_since >= kind.clear_after_s
        return gone and (not kind.latched or bool(c.alarm.acknowledged))

    def _clear(self, c: _Condition, now: float) -> list[Change]:
        assert c.alarm is not None
        gone = c.gone_since if c.gone_since is not None else now
        self._sums.cleared += 1
        self._sums.repair_s += gone - c.alarm.occurred
        cleared = replace(c.alarm, severity=Severity.CLEARED, last=now)
        c.alarm, c.suppressed_by = None, ""
        return [Change("cleared", cleared, after_s=gone - cleared.occurred)]

    def _suppress(self, c: _Condition, root: str) -> list[Change]:
        """A consequence that was raised first steps back when its root is raised, and returns if it outlives it."""
        assert c.alarm is not None
        if root == c.suppressed_by:
            return []
        before, c.suppressed_by = c.suppressed_by, root
        return [Change("suppressed", c.alarm, root)] if root else [Change("released", c.alarm, before)]

    def _root(self, kind: Kind) -> str:
        """The farthest condition behind this one that is active now, or raised and not yet cleared."""
        behind = self._behind(kind)
        wrong = [id for id in behind if self._is_wrong(id)]
        return next((id for id in wrong if not any(map(self._is_wrong, self._behind(self.catalogue[id])))), "")

    def _behind(self, kind: Kind) -> list[str]:
        """All possible roots, near ones first; a circle in the catalogue ends where it began."""
        found: list[str] = []
        todo = list(kind.because_of)
        while todo:
            id = todo.pop(0)
            if id not in found and id != kind.id:
                found.append(id)
                todo += self.catalogue[id].because_of
        return found

    def _is_wrong(self, id: str) -> bool:
        c = self._conditions.get(id)
        return c is not None and (c.active or c.alarm is not None)

    # what people do

    def acknowledge(self, id: str, by: str, now: float) -> list[Change]:
        """Raises LookupError for an alarm that is not active."""
        c = self._active(id)
        assert c.alarm is not None
        after_s: float | None = None
        if not c.alarm.acknowledged:
            after_s = now - c.alarm.raised
            self._sums.acknowledged += 1
            self._sums.acknowledge_s += after_s
            c.alarm = replace(c.alarm, acknowledged=by, acknowledged_at=now)
        return [Change("acknowledged", c.alarm, by, after_s), *self.tick(now)]

    def shelve(self, id: str, by: str, until: float, now: float) -> list[Change]:
        """Not announced until then, raised or not. Raises LookupError for an unknown alarm, ValueError for the past."""
        if id not in self.catalogue:
            raise LookupError(f"no alarm is called {id!r}")
        if until <= now:
            raise ValueError("the end of the shelving is in the past")
        self._shelved[id] = until
        c = self._conditions.get(id)
        if c is None or c.alarm is None:
            return []
        c.alarm = replace(c.alarm, shelved_until=until)
        return [Change("shelved", c.alarm, by)]

    def maintenance(self, until: float) -> None:
        """A window in which nothing new is raised; what still lasts at its end is."""
        self._quiet_until = until

    # what is told

    def active(self) -> list[Alarm]:
        """Raised and not suppressed, as they are to be published."""
        return [c.alarm for c in self._conditions.values() if c.alarm is not None and not c.suppressed_by]

    def raised(self, id: str) -> bool:
        """Raised and not yet cleared, suppressed or not."""
        c = self._conditions.get(id)
        return c is not None and c.alarm is not None

    def suppressed(self) -> dict[str, str]:
        """Conditions that stay silent because of a root: id and root."""
        out = {}
        for id, c in self._conditions.items():
            if c.active and (root := c.suppressed_by or (self._root(self.catalogue[id]) if c.alarm is None else "")):
                out[id] = root
        return out

    def figures(self) -> Figures:
        s = self._sums
        return Figures(
            s.raised,
            s.detect_s / s.raised if s.raised else None,
            s.acknowledge_s / s.acknowledged if s.acknowledged else None,
            s.repair_s / s.cleared if s.cleared else None,
        )

    # over a restart

    def snapshot(self) -> dict[str, Any]:
        """JSON-ready; `restore` continues from it."""
        return {
            "conditions": {id: asdict(c) for id, c in self._conditions.items() if c.alarm is not None},
            "shelved": dict(self._shelved),
            "quiet_until": self._quiet_until,
            "sums": asdict(self._sums),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Alarms of an older catalogue that this one does not know are dropped. Raises KeyError, TypeError."""
        for id, raw in snapshot["conditions"].items():
            if id in self.catalogue:
                self._conditions[id] = _Condition(**{**raw, "alarm": Alarm(**raw["alarm"])})
        self._shelved = {id: until for id, until in snapshot["shelved"].items() if id in self.catalogue}
        self._quiet_until = snapshot["quiet_until"]
        self._sums = _Sums(**snapshot["sums"])

    def _active(self, id: str) -> _Condition:
        c = self._conditions.get(id)
        if c is None or c.alarm is None:
            raise LookupError(f"alarm {id!r} is not active")
        return c


def catalogue(kinds: Iterable[Kind]) -> dict[str, Kind]:
    """By id. Raises ValueError for an id twice."""
    out: dict[str, Kind] = {}
    for kind in kinds:
        if kind.id in out:
            raise ValueError(f"two alarms are called {kind.id!r}")
        out[kind.id] = kind
    return out
