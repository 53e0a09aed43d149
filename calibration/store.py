"""Append-only history of calibration records with an active record per name.

Every change is one line of JSON, flushed to the disk before it is in force: a record, a renewal of its validity, a
rollback or an invalidation, with all that it makes invalid. A line cut short by a power failure is dropped when the
file is opened again; nothing before it is touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from calibration.record import Record, Renewal


class Kind(StrEnum):
    """What happened to a name."""

    RECORD = "record"
    RENEWED = "renewed"
    ROLLBACK = "rollback"
    INVALID = "invalid"


@dataclass(frozen=True)
class Change:
    """One change, told when it is durable; `record` is the active one after it, `why` is empty for a new record."""

    kind: Kind
    name: str
    record: Record | None
    why: str = ""


Listener = Callable[[Change], None]


class StoreDamaged(Exception):
    """A line inside the history cannot be read or is of a newer version: file and line number are named."""


class RecordStore:
    """History and active records. `path` None keeps everything in memory (tests, simulated time)."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises StoreDamaged."""
        self._path = path
        self._lines: list[str] = []
        self._history: dict[str, list[Record]] = {}
        self._active: dict[str, int] = {}
        self._invalid: dict[str, str] = {}
        self._renewals: dict[tuple[str, int], Renewal] = {}
        self._listeners: list[Listener] = []
        if path is not None and path.exists():
            self._load(path)

    def subscribe(self, listener: Listener) -> None:
        """Called after every change, once it is durable."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Raises ValueError when it was not subscribed."""
        self._listeners.remove(listener)

    def exchange(self, other: RecordStore) -> None:
        """Trade all records with another store (another module is in); listeners stay where they are, untold."""
        mine = (self._path, self._lines, self._history, self._active, self._invalid, self._renewals)
        self._path, self._lines, self._history = other._path, other._lines, other._history
        self._active, self._invalid, self._renewals = other._active, other._invalid, other._renewals
        other._path, other._lines, other._history, other._active, other._invalid, other._renewals = mine

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._history))

    def history(self, name: str) -> tuple[Record, ...]:
        """All records of a name, oldest first, rolled back ones included."""
        return tuple(self._history.get(name, ()))

    def active(self, name: str) -> Record | None:
        """The record in force, valid or not; None when there is none."""
        version = self._active.get(name, 0)
        return self._history[name][version - 1] if version else None

    def invalid_reason(self, name: str) -> str | None:
        """Why the active record may not be used without a new calibration; None when nothing was said against it."""
        return self._invalid.get(name)

    def renewal(self, name: str) -> Renewal | None:
        """The last renewal of the active record."""
        return self._renewals.get((name, self._active.get(name, 0)))

    def valid_until(self, name: str) -> datetime | None:
        """Of the active record, renewals counted; None when there is no record."""
        record, renewal = self.active(name), self.renewal(name)
        if record is None:
            return None
        return record.valid_until if renewal is None else max(record.valid_until, renewal.valid_until)

    def append(self, record: Record, invalidate: Mapping[str, str] | None = None) -> Record:
        """Store, make active, return the record with its version; `invalidate`: names that rested on the one before,
        and why they are out now (names without a record are passed over)."""
        stored = record.model_copy(update={"version": len(self._history.get(record.name, ())) + 1})
        out = self._known(invalidate or {}, stored.name)
        self._commit({"record": json.loads(stored.to_json()), **({"invalid": out} if out else {})})
        self._notify(Kind.RECORD, stored.name)
        self._notify_invalid(out)
        return stored

    def renew(self, renewal: Renewal) -> None:
        """Raises LookupError when it is not for the active record, or when that was said to be invalid."""
        active = self.active(renewal.name)
        if active is None or active.version != renewal.version or renewal.name in self._invalid:
            raise LookupError(
                f"{renewal.name} {renewal.version} is not a record in force: its validity cannot be renewed"
            )
        self._commit({"renewed": renewal.model_dump(mode="json")})
        self._notify(Kind.RENEWED, renewal.name, f"checked; valid until {renewal.valid_until:%Y-%m-%d %H:%M:%S} UTC")

    def rollback(self, name: str, why: str = "") -> Record | None:
        """Go back one step from the active record; what rests on the one that is left becomes invalid.

        Raises LookupError when there is nothing before it.
        """
        version = self._active.get(name, 0)
        if version < 2:
            raise LookupError(f"{name}: no record before the active one")
        reason = f"{name} was rolled back from version {version} to {version - 1}" + (f": {why}" if why else "")
        out = {child: reason for child in self.dependents(name) if child not in self._invalid}
        self._commit({"rollback": {"name": name, "version": version - 1, "why": why}, "invalid": out})
        self._notify(Kind.ROLLBACK, name, reason)
        self._notify_invalid(out)
        return self.active(name)

    def invalidate(self, name: str, why: str) -> None:
        """The active record stays readable but no calibration may rest on it (a parent was redone, a check failed)."""
        if out := self._known({name: why}):
            self._commit({"invalid": out})
            self._notify_invalid(out)

    def dependents(self, name: str) -> tuple[str, ...]:
        """Names whose active records rest on one of this name, directly or through others."""
        found = {name}
        while True:
            more = {n for n in self._active if n not in found and any(p in found for p in self._parents(n))}
            if not more:
                return tuple(sorted(found - {name}))
            found |= more

    def export(self) -> Iterator[str]:
        """Every record, one JSON object a line, by name and version."""
        for name in self.names():
            for record in self._history[name]:
                yield record.to_json()

    def export_changes(self) -> Iterator[str]:
        """The whole history as it happened, one JSON object a line: records, renewals, rollbacks, invalidations."""
        if self._path is None:
            yield from self._lines
        elif self._path.exists():
            with open(self._path, encoding="utf-8") as f:
                yield from (line.rstrip("\n") for line in f)

    def _parents(self, name: str) -> tuple[str, ...]:
        record = self.active(name)
        return tuple(record.parents) if record else ()

    def _known(self, invalidate: Mapping[str, str], but: str = "") -> dict[str, str]:
        """Those that have a record and that nothing was said against yet."""
        return {n: w for n, w in invalidate.items() if n in self._active and n not in self._invalid and n != but}

    def _commit(self, change: dict[str, Any]) -> None:
        line = json.dumps(change, separators=(",", ":"), sort_keys=True)
        if self._path is None:
            self._lines.append(line)
        else:
            _append_line(self._path, line)
        self._apply(change)

    def _apply(self, change: dict[str, Any]) -> None:
        """Raises KeyError, TypeError, ValueError or pydantic.ValidationError for a change that is not of this form."""
        foreign = sorted(set(change) - {"record", "renewed", "rollback", "invalid"})
        if foreign or not change:
            raise ValueError(f"unknown change {', '.join(foreign) or '(empty)'}: written by a newer version")
        if "record" in change:
            record = Record.model_validate_json(json.dumps(change["record"]))
            history = self._history.setdefault(record.name, [])
            if record.version != len(history) + 1:
                raise ValueError(f"{record.name} version {record.version} follows version {len(history)}")
            history.append(record)
            self._take(record.name, record.version)
        if "rollback" in change:
            self._take(change["rollback"]["name"], int(change["rollback"]["version"]))
        if "renewed" in change:
            renewal = Renewal.model_validate_json(json.dumps(change["renewed"]))
            self._renewals[renewal.name, renewal.version] = renewal
        if out := change.get("invalid"):
            # One name as {"name": .., "why": ..} is what an older version wrote.
            self._invalid |= {str(out["name"]): str(out["why"])} if set(out) == {"name", "why"} else dict(out)

    def _take(self, name: str, version: int) -> None:
        if not 1 <= version <= len(self._history[name]):
            raise ValueError(f"{name} has no version {version}")
        self._active[name] = version
        self._invalid.pop(name, None)

    def _notify(self, kind: Kind, name: str, why: str = "") -> None:
        change = Change(kind, name, self.active(name), why)
        for listener in tuple(self._listeners):
            listener(change)

    def _notify_invalid(self, out: Mapping[str, str]) -> None:
        for name, why in out.items():
            self._notify(Kind.INVALID, name, why)

    def _load(self, path: Path) -> None:
        raw = path.read_bytes()
        whole, _, torn = raw.rpartition(b"\n")
        if torn:
            # The only line without an end is the one that was being written when power went.
            _truncate(path, len(whole) + 1 if whole else 0)
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._apply(json.loads(line))
            except (AttributeError, ValueError, KeyError, TypeError, ValidationError) as e:
                raise StoreDamaged(f"{path} line {number}: {e}") from e


def _truncate(path: Path, size: int) -> None:
    with open(path, "r+b") as f:
        f.truncate(size)
        os.fsync(f.fileno())


def _append_line(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = path.stat().st_size if path.exists() else None
    try:
        with open(path, "ab") as f:
            f.write(line.encode() + b"\n")
            f.flush()
            os.fsync(f.fileno())
    except OSError:
        # A disk that is full keeps half a line, which the next one must not be glued to.
        if path.exists():
            _truncate(path, size or 0)
        raise
    if size is None:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
