"""The factory record in a module's EEPROM: two slots behind the FRU areas, written in turn (hardware A8). Pure.

A slot has a 28-byte head, little-endian: magic "QMFR", layout, schema of the record, two bytes 0, sequence, bytes
deflated, bytes inflated, CRC-32 of the inflated bytes, CRC-32 of everything before it and of the deflated bytes. The
record follows as zlib-deflated JSON. The valid slot with the later sequence is in force; a new record goes into the
other one, so a write that is torn at any byte leaves what was in force.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

FRU_BYTES = 1024
SLOTS = {"A": 1024, "B": 4608}
SLOT_BYTES = 3584
MAGIC, LAYOUT = b"QMFR", 1
MOST_INFLATED = 65_536
_HEAD = struct.Struct("<4sBBHIIII")
HEAD_BYTES = _HEAD.size + 4
_HALF = 1 << 31


class SlotError(ValueError):
    """Bytes that are no valid slot, or a record that does not fit; the message says what is wrong."""


@dataclass(frozen=True)
class FactorySlot:
    """`text`: the record's JSON as it was stored; `sequence` counts writes, modulo 2**32."""

    slot: str
    schema: int
    sequence: int
    text: bytes


def encode_slot(text: bytes, schema: int, sequence: int) -> bytes:
    """Raises SlotError: schema, length or deflated length over its limit."""
    if not 0 <= schema <= 255:
        raise SlotError(f"schema {schema} is not in 0 to 255")
    if len(text) > MOST_INFLATED:
        raise SlotError(f"the factory record has {len(text)} bytes; {MOST_INFLATED} is the limit")
    packed = zlib.compress(text, 9)
    head = _HEAD.pack(MAGIC, LAYOUT, schema, 0, sequence % (1 << 32), len(packed), len(text), zlib.crc32(text))
    out = head + zlib.crc32(head + packed).to_bytes(4, "little") + packed
    if len(out) > SLOT_BYTES:
        raise SlotError(f"the factory record takes {len(out)} bytes deflated; a slot has {SLOT_BYTES}")
    return out


def decode_slot(name: str, data: bytes) -> FactorySlot:
    """Raises SlotError."""
    if len(data) < HEAD_BYTES or data[:4] != MAGIC:
        raise SlotError(f"slot {name}: blank or no factory record (starts with {data[:4].hex()})")
    _, layout, schema, _, sequence, packed_bytes, text_bytes, crc = _HEAD.unpack(data[: _HEAD.size])
    if layout != LAYOUT:
        raise SlotError(f"slot {name}: layout {layout}; this version reads {LAYOUT}")
    packed = data[HEAD_BYTES : HEAD_BYTES + packed_bytes]
    if HEAD_BYTES + packed_bytes > SLOT_BYTES or len(packed) < packed_bytes or text_bytes > MOST_INFLATED:
        raise SlotError(f"slot {name}: its lengths ({packed_bytes} and {text_bytes} bytes) do not fit")
    if zlib.crc32(data[: _HEAD.size] + packed) != int.from_bytes(data[_HEAD.size : HEAD_BYTES], "little"):
        raise SlotError(f"slot {name}: its CRC-32 is wrong")
    text = _inflate(name, packed, text_bytes)
    if zlib.crc32(text) != crc:
        raise SlotError(f"slot {name}: the CRC-32 of its record is wrong")
    return FactorySlot(name, schema, sequence, text)


def in_force(image: bytes) -> tuple[FactorySlot | None, tuple[str, ...]]:
    """The slot that counts, or None, and what is wrong with the others; `image` is the whole EEPROM."""
    found: list[FactorySlot] = []
    faults: list[str] = []
    for name, at in SLOTS.items():
        raw = image[at : at + SLOT_BYTES]
        try:
            found.append(decode_slot(name, raw))
        except SlotError as e:
            # A slot that was never written is as it should be.
            if raw.strip(b"\xff"):
                faults.append(str(e))
    if len(found) == 2 and later(found[1].sequence, found[0].sequence):
        found.reverse()
    return (found[0] if found else None), tuple(faults)


def next_slot(image: bytes) -> tuple[str, int]:
    """Where the next record goes, and its sequence: never into the slot that is in force."""
    now, _ = in_force(image)
    if now is None:
        return "A", 1
    return ("B" if now.slot == "A" else "A"), (now.sequence + 1) % (1 << 32)


def later(a: int, b: int) -> bool:
    """Whether sequence a was given after b, across the wrap at 2**32."""
    return 0 < (a - b) % (1 << 32) < _HALF


def _inflate(name: str, packed: bytes, text_bytes: int) -> bytes:
    """Never more than was promised: a broken length must not fill the memory."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(packed, text_bytes + 1)
    except zlib.error as e:
        raise SlotError(f"slot {name}: its record cannot be inflated: {e}") from e
    if len(text) != text_bytes:
        raise SlotError(f"slot {name}: its record has not the {text_bytes} bytes that it says")
    return text
