"""What happened, in order: one line of JSON an event, written before it is told to anybody.

A line is with the kernel when `record` returns, so no crash of the daemon loses it; a thread brings it to the disk at
once, because a slow disk must not hold up the loops that report here.

No secret may be a field; `record` takes numbers, short strings and booleans only.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from qmodd.clock import Clock

Scalar = str | int | float | bool | None
RESERVED = frozenset({"seq", "t", "module", "event"})
Listener = Callable[[dict[str, Scalar]], None]


@dataclass
class EventLog:
    """Append-only; `path` None keeps events in memory only (simulated time)."""

    path: Path | None
    clock: Clock
    module: str
    listeners: list[Listener] = field(default_factory=list)
    entries: list[dict[str, Scalar]] = field(default_factory=list)
    _seq: int = 0
    _file: IO[str] | None = None
    _unsynced: threading.Event = field(default_factory=threading.Event)
    _closing: bool = False
    _syncer: threading.Thread | None = None

    def __post_init__(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._seq = _last_seq(self.path)
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - held for the life of the process
            self._syncer = threading.Thread(target=self._sync, name="event log", daemon=True)
            self._syncer.start()

    def record(self, name: str, fields: Mapping[str, Scalar] | None = None) -> None:
        """Raises ValueError for a field that would hide one of the log's own."""
        if fields and (taken := sorted(RESERVED & fields.keys())):
            raise ValueError(f"event {name}: field {taken[0]!r} is the log's own")
        self._seq += 1
        entry: dict[str, Scalar] = {
            "seq": self._seq,
            "t": self.clock.utc().isoformat(timespec="milliseconds"),
            "module": self.module,
            "event": name,
            **(fields or {}),
        }
        if self._file is None:
            self.entries.append(entry)
        else:
            self._file.write(json.dumps(entry, sort_keys=True) + "\n")
            self._file.flush()
            self._unsynced.set()
        for listener in self.listeners:
            listener(entry)

    def _sync(self) -> None:
        while not self._closing:
            self._unsynced.wait()
            self._unsynced.clear()
            if self._file is not None:
                os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Everything is on the disk when it returns."""
        self._closing = True
        self._unsynced.set()
        if self._syncer is not None:
            self._syncer.join()
        if self._file is not None:
            self._file.close()
            self._file = None


def _last_seq(path: Path) -> int:
    """Number of the last whole line; a line torn by a power cut is cut off so that the next one stands alone."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        with open(path, "r+b") as f:
            f.truncate(len(whole))
    if not whole:
        return 0
    return int(json.loads(whole.splitlines()[-1])["seq"])
