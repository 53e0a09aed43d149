"""Which photonic module is behind the buses: its serial, its factory record, and how both are known. Pure.

The controller has a name of its own (module.serial, also in MQTT topics); the module that it drives has its serial in
the EEPROM. The factory record travels with the module; the file beside the configuration stands in for a module that
brings none, and is compared with one that does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from calibration.factory import FactoryRecord
from drivers.chips.fru import Fru
from drivers.roles import Identity
from qmodd.field.eeprom import Contents, record_text

SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")


class NotIdentified(Exception):
    """It cannot be said which module this is, or there is no factory record of it: nothing may be switched on."""


@dataclass(frozen=True)
class Assembly:
    """`source`: eeprom or file, of the factory record. `notes`: what a person should know (about what, why)."""

    serial: str
    factory: FactoryRecord
    source: str
    fru: Fru | None = None
    factory_sha256: str = ""
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Replaced:
    """One device of a module has another serial number than when this module was last seen."""

    role: str
    old: str
    new: str


def identify(contents: Contents | None, file: Mapping[str, Any]) -> Assembly:
    """`contents` None: the module has no EEPROM by its configuration; then the file says which module it is.

    Raises NotIdentified.
    """
    notes = [("fru.damaged", fault) for fault in contents.faults] if contents else []
    brought = _brought(contents)
    serial = _serial(contents, brought, file)
    of_file = str(file.get("serial", ""))
    if brought is None:
        if of_file != serial:
            raise NotIdentified(
                f"module {serial} brings no factory record, and module.factory is that of {of_file or 'no module'}: "
                "write it with `qmodd fru write --factory FILE`"
            )
        if contents is not None:
            notes.append(("factory.from_file", f"module {serial} brings no factory record; the file's is used"))
    elif of_file != serial:
        notes.append(
            ("factory.file_of_another", f"module.factory is that of {of_file}; module {serial} brings its own")
        )
    elif record_text(brought) != record_text(file):
        notes.append(("factory.differs", f"module.factory differs from what module {serial} brings, which is used"))
    record = dict(file if brought is None else brought)
    return Assembly(
        serial=serial,
        factory=_factory(record),
        source="file" if brought is None else "eeprom",
        fru=contents.fru if contents else None,
        factory_sha256=hashlib.sha256(record_text(record)).hexdigest(),
        notes=tuple(notes),
    )


def _brought(contents: Contents | None) -> dict[str, Any] | None:
    try:
        return contents.factory_mapping() if contents else None
    except ValueError as e:
        raise NotIdentified(f"the factory record in the EEPROM: {e}") from e


def _serial(contents: Contents | None, brought: Mapping[str, Any] | None, file: Mapping[str, Any]) -> str:
    """The FRU's; without one the factory record's; a module without either is the one of the file."""
    of_fru = contents.serial if contents else ""
    of_record = str(brought.get("serial", "")) if brought is not None else ""
    if of_fru and of_record and of_fru != of_record:
        raise NotIdentified(f"the EEPROM contradicts itself: its FRU is of {of_fru}, its factory record of {of_record}")
    serial = of_fru or of_record or str(file.get("serial", ""))
    if not SERIAL.match(serial):
        raise NotIdentified(f"the module's serial {serial!r} must be 1 to 32 letters, digits, - or _")
    return serial


def _factory(record: Mapping[str, Any]) -> FactoryRecord:
    try:
        return FactoryRecord.from_mapping(record)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise NotIdentified(f"the factory record does not fit: {where}: {first['msg']}") from e


def replaced(before: Mapping[str, str], now: Mapping[str, Identity]) -> list[Replaced]:
    """Devices whose serial number has changed; one that tells none, now or before, cannot be compared."""
    return [
        Replaced(role, before[role], identity.serial)
        for role, identity in sorted(now.items())
        if before.get(role) and identity.serial and before[role] != identity.serial
    ]
