"""Calibration records and raw readings by module serial, behind two stores that the rest of the daemon holds on to.

state_dir/modules/<serial>/calibration.jsonl, raw/ and devices.json; state_dir/modules/current names the module that was
in last, so that its records can be shown before any bus is touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from calibration.raw import RawStore
from calibration.store import RecordStore
from qmodd.durable import write_whole
from qmodd.field.assembly import SERIAL

DIRECTORY, CURRENT, DEVICES = "modules", "current", "devices.json"
RECORDS, RAW = "calibration.jsonl", "raw"


class ModuleRecords:
    """`records` and `raw` stay the same objects, with their subscribers; what is in them changes with the module.

    `durable` False keeps every module's in memory. Raises calibration.store.StoreDamaged.
    """

    def __init__(self, state_dir: Path, *, durable: bool) -> None:
        self._root = state_dir / DIRECTORY
        self._state_dir = state_dir
        self._durable = durable
        self._parked: dict[str, tuple[RecordStore, RawStore]] = {}
        self._devices: dict[str, dict[str, str]] = {}
        self.serial = self._last()
        self.records, self.raw = self._open(self.serial)
        self.raw.needed = self._in_force

    def select(self, serial: str) -> bool:
        """Make these the stores of this module; whether that is another one than before. Records of a daemon that did
        not keep them by module are taken to be those of the first module seen.

        Raises StoreDamaged, OSError; the stores are then as they were.
        """
        if serial == self.serial:
            return False
        before = self.serial
        self._adopt(serial, before)
        fresh = self._parked.pop(serial, None) or self._open(serial)
        if before:
            self.records.exchange(fresh[0])
            self.raw.exchange(fresh[1])
            if not self._durable:
                self._parked[before] = fresh
        elif self._durable:
            self.records.exchange(fresh[0])
            self.raw.exchange(fresh[1])
        self.serial = serial
        self._remember()
        return bool(before)

    def devices(self) -> dict[str, str]:
        """Serial numbers by role as they were when the module that is in was last seen."""
        if not self._durable:
            return self._devices.get(self.serial, {})
        try:
            found = json.loads((self._directory(self.serial) / DEVICES).read_text())
            return {str(k): str(v) for k, v in found.items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def note_devices(self, serials: Mapping[str, str]) -> None:
        """Keep them for the next time. Raises OSError."""
        if self._durable:
            _write(self._directory(self.serial) / DEVICES, json.dumps(dict(serials), sort_keys=True))
        else:
            self._devices[self.serial] = dict(serials)

    def known(self) -> tuple[str, ...]:
        """Serials of all modules that have been in."""
        if not self._durable:
            return tuple(sorted({self.serial, *self._parked} - {""}))
        return tuple(sorted(p.name for p in self._root.glob("*") if p.is_dir()))

    def _in_force(self) -> set[str]:
        """Raw readings behind the active records."""
        return {r.raw_sha256 for n in self.records.names() if (r := self.records.active(n)) is not None}

    def _directory(self, serial: str) -> Path:
        return self._root / serial if serial else self._state_dir

    def _open(self, serial: str) -> tuple[RecordStore, RawStore]:
        if not self._durable:
            return RecordStore(None), RawStore(None)
        directory = self._directory(serial)
        return RecordStore(directory / RECORDS), RawStore(directory / RAW)

    def _last(self) -> str:
        if not self._durable:
            return ""
        try:
            found = (self._root / CURRENT).read_text().strip()
        except OSError:
            return ""
        return found if SERIAL.match(found) else ""

    def _adopt(self, serial: str, before: str) -> None:
        """Once: the records of a daemon that knew one module only."""
        if not self._durable:
            return
        target = self._directory(serial)
        target.mkdir(parents=True, exist_ok=True)
        if before:
            return
        for name in (RAW, RECORDS):
            old, new = self._state_dir / name, target / name
            if old.exists() and not new.exists():
                os.replace(old, new)

    def _remember(self) -> None:
        if self._durable:
            _write(self._root / CURRENT, self.serial + "\n")


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
