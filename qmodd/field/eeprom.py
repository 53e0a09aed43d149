"""A module's EEPROM as a whole: the FRU areas and the factory record behind them, read and written by their codecs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from drivers.chips import factory_slots, fru
from drivers.chips.factory_slots import FRU_BYTES, HEAD_BYTES, SLOT_BYTES, SLOTS, FactorySlot
from drivers.chips.fru import Fru, FruError, QmoddRecord

SIZE = 8192


class Memory(Protocol):
    """Bytes by address (drivers.chips.eeprom24c64)."""

    name: str

    async def read(self, start: int, length: int) -> bytes: ...
    async def write(self, start: int, data: bytes) -> None: ...


@dataclass(frozen=True)
class Contents:
    """What the EEPROM says; `faults` names every part that is not in order, and is empty for a good or a blank one."""

    fru: Fru | None
    factory: FactorySlot | None
    faults: tuple[str, ...] = ()

    @property
    def serial(self) -> str:
        """The module's, from the product area; "" without one."""
        return self.fru.product_serial if self.fru is not None else ""

    def factory_mapping(self) -> dict[str, Any] | None:
        """The factory record, parsed; None where there is none. Raises ValueError when it is no JSON object."""
        if self.factory is None:
            return None
        found = json.loads(self.factory.text)
        if not isinstance(found, dict):
            raise ValueError("the factory record in the EEPROM is no JSON object")
        return found


async def read_eeprom(memory: Memory) -> Contents:
    """FRU areas and slots, only as far as they are used. Raises drivers.errors.DriverError."""
    image = bytearray(b"\xff" * SIZE)
    image[:FRU_BYTES] = await memory.read(0, FRU_BYTES)
    for at in SLOTS.values():
        head = await memory.read(at, HEAD_BYTES)
        image[at : at + HEAD_BYTES] = head
        if head.startswith(factory_slots.MAGIC):
            rest = min(int.from_bytes(head[12:16], "little"), SLOT_BYTES - HEAD_BYTES)
            image[at + HEAD_BYTES : at + HEAD_BYTES + rest] = await memory.read(at + HEAD_BYTES, rest)
    return parse(bytes(image))


def parse(image: bytes) -> Contents:
    """From all the bytes."""
    factory, faults = factory_slots.in_force(image)
    raw = image[:FRU_BYTES]
    if not raw.strip(b"\xff"):
        return Contents(None, factory, faults)
    try:
        found = fru.decode(raw)
    except FruError as e:
        return Contents(None, factory, (f"FRU: {e}", *faults))
    return Contents(found, factory, (*faults, *_contradictions(found, factory)))


def _contradictions(found: Fru, factory: FactorySlot | None) -> list[str]:
    """The multirecord's digest is over the factory record that belongs to the module."""
    if found.record is None or factory is None or not any(found.record.calibration_sha256):
        return []
    if found.record.calibration_sha256 == hashlib.sha256(factory.text).digest():
        return []
    return ["FRU: its calibration digest is not that of the factory record in the EEPROM"]


async def write_fru(memory: Memory, wanted: Fru) -> Fru:
    """Write the FRU areas, the common header last, so that a torn write cannot be taken for a whole one; then read them
    back. `wanted.record` gets the next sequence. Returns what is there now.

    Raises FruError (a text does not fit), drivers.errors.Refused (write-protected), DriverError.
    """
    before = await read_eeprom(memory)
    if wanted.record is not None:
        old = before.fru.record if before.fru is not None else None
        wanted = replace(wanted, record=replace(wanted.record, sequence=_after(old)))
    data = fru.encode(wanted)
    if len(data) > FRU_BYTES:
        raise FruError(f"the FRU takes {len(data)} bytes; {FRU_BYTES} is the limit")
    await memory.write(0, b"\xff" * 8)
    await memory.write(8, data[8:].ljust(FRU_BYTES - 8, b"\xff"))
    await memory.write(0, data[:8])
    return fru.decode(await memory.read(0, FRU_BYTES))


async def write_factory(memory: Memory, record: Mapping[str, Any], schema: int = 1) -> FactorySlot:
    """The record into the slot that is not in force, then its digest into the FRU's multirecord where there is one.

    Raises factory_slots.SlotError (too large), drivers.errors.Refused (write-protected), DriverError.
    """
    text = record_text(record)
    image = await memory.read(0, SIZE)
    name, sequence = factory_slots.next_slot(image)
    data = factory_slots.encode_slot(text, schema, sequence)
    await memory.write(SLOTS[name], data)
    back = factory_slots.decode_slot(name, await memory.read(SLOTS[name], len(data)))
    found = parse(image).fru
    if found is not None and found.record is not None:
        digest = hashlib.sha256(text).digest()
        await write_fru(memory, replace(found, record=replace(found.record, calibration_sha256=digest)))
    return back


def record_text(record: Mapping[str, Any]) -> bytes:
    """A factory record as it is stored and digested: JSON without spaces, keys in order."""
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def new_record(hardware_revision: int, factory: FactorySlot | None) -> QmoddRecord:
    """The qmodd multirecord for a FRU that has none yet."""
    digest = hashlib.sha256(factory.text).digest() if factory is not None else bytes(32)
    return QmoddRecord(1, hardware_revision, 0, digest)


def _after(old: QmoddRecord | None) -> int:
    return 1 if old is None else (old.sequence + 1) % (1 << 32)
