"""Append-only history of calibration records with an active record per name.

Every change is one line of JSON, flushed to the disk before it is in force: a record, a rollback or an invalidation.
A line cut short by a power failure is dropped when the file is opened again; nothing before it is touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from calibration.record import Record

Listener = Callable[[str, Record | None], None]


class StoreDamaged(Exception):
    """A line inside the history cannot be read: file and line number are named."""


class RecordStore:
    """History and active records. `path` None keeps everything in memory (tests, simulated time)."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._history: dict[str, list[Record]] = {}
        self._active: dict[str, int] = {}
        self._invalid: dict[str, str] = {}
        self._listeners: list[Listener] = []
        if path is not None and path.exists():
            self._load(path)

    def subscribe(self, listener: Listener) -> None:
        """Called with (name, active record or None) after every change, once it is durable."""
        self._listeners.append(listener)

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

    def append(self, record: Record) -> Record:
        """Store, make active, return the record with its version."""
        stored = record.model_copy(update={"version": len(self._history.get(record.name, ())) + 1})
        self._commit({"record": json.loads(stored.to_json())})
        self._notify(stored.name)
        return stored

    def rollback(self, name: str) -> Record | None:
        """Go back one step from the active record. Raises LookupError when there is nothing before it."""
        version = self._active.get(name, 0)
        if version < 2:
            raise LookupError(f"{name}: no record before the active one")
        self._commit({"rollback": {"name": name, "version": version - 1}})
        self._notify(name)
        return self.active(name)

    def invalidate(self, name: str, why: str) -> None:
        """The active record stays readable but no calibration may rest on it (a parent was redone)."""
        if name in self._active and name not in self._invalid:
            self._commit({"invalid": {"name": name, "why": why}})
            self._notify(name)

    def export(self) -> Iterator[str]:
        """The whole history, one JSON record a line, by name and version."""
        for name in self.names():
            for record in self._history[name]:
                yield record.to_json()

    def _commit(self, change: dict[str, Any]) -> None:
        if self._path is not None:
            _append_line(self._path, json.dumps(change, separators=(",", ":"), sort_keys=True))
        self._apply(change)

    def _apply(self, change: dict[str, Any]) -> None:
        if "record" in change:
            record = Record.model_validate_json(json.dumps(change["record"]))
            self._history.setdefault(record.name, []).append(record)
            self._active[record.name] = record.version
            self._invalid.pop(record.name, None)
        elif "rollback" in change:
            name = change["rollback"]["name"]
            self._active[name] = int(change["rollback"]["version"])
            self._invalid.pop(name, None)
        else:
            self._invalid[change["invalid"]["name"]] = str(change["invalid"]["why"])

    def _notify(self, name: str) -> None:
        for listener in self._listeners:
            listener(name, self.active(name))

    def _load(self, path: Path) -> None:
        raw = path.read_bytes()
        whole, _, torn = raw.rpartition(b"\n")
        if torn:
            # The only line without an end is the one that was being written when power went.
            with open(path, "r+b") as f:
                f.truncate(len(whole) + 1 if whole else 0)
                os.fsync(f.fileno())
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError, ValidationError) as e:
                raise StoreDamaged(f"{path} line {number}: {e}") from e


def _append_line(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open(path, "ab") as f:
        f.write(line.encode() + b"\n")
        f.flush()
        os.fsync(f.fileno())
    if new:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
