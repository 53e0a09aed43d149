"""What a factory writes into a module's 24C64: IPMI FRU areas, and behind them the factory record in two slots.

Written from the specifications (Platform Management FRU Information Storage Definition 1.3; reference hardware A8),
not from the reader. Layout of the 8192 bytes: 0 to 1023 FRU; slot A from 1024, slot B from 4608, 3584 bytes each.

A slot is a 28-byte head and the record as zlib-deflated JSON (UTF-8, no spaces, sorted keys), all little-endian:
"QMFR", layout 1 (u8), schema of the record (u8), 2 bytes 0, sequence (u32), bytes deflated (u32), bytes inflated (u32),
CRC-32 of the inflated bytes (u32), CRC-32 of the head before it and the deflated bytes (u32).
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

from sim.individuals import AliceIndividual, BobIndividual, factory_record

SIZE = 8192
SLOT_A, SLOT_B, SLOT_BYTES = 1024, 4608, 3584
SCHEMA, HARDWARE_REVISION = 1, 1
FIRST_MINUTE = datetime(1996, 1, 1, tzinfo=UTC)
# When the emulated factory made a module: fixed, so that a seed always gives the same bytes.
MADE = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
EXAMPLE_ENTERPRISE = 32473


def fru_image(individual: AliceIndividual | BobIndividual, seed: int = 0) -> bytes:
    """All 8192 bytes; `seed` is the scenario's, as for `factory_record`. Slot A holds the record, slot B is blank."""
    record = factory_record(individual, seed)
    text = record_text(record)
    image = bytearray(b"\xff" * SIZE)
    fru = fru_areas(individual, hashlib.sha256(text).digest())
    image[: len(fru)] = fru
    slot = slot_bytes(text, schema=int(record["schema"]), sequence=1)
    image[SLOT_A : SLOT_A + len(slot)] = slot
    return bytes(image)


def record_text(record: dict[str, Any]) -> bytes:
    """The record as it is stored, and as the FRU's digest is over."""
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def slot_bytes(text: bytes, *, schema: int, sequence: int) -> bytes:
    """One slot. Raises ValueError when the record does not fit."""
    deflated = zlib.compress(text, 9)
    head = b"QMFR" + struct.pack("<BBHIIII", 1, schema, 0, sequence, len(deflated), len(text), zlib.crc32(text))
    out = head + struct.pack("<I", zlib.crc32(deflated, zlib.crc32(head))) + deflated
    if len(out) > SLOT_BYTES:
        raise ValueError(f"the factory record takes {len(out)} bytes; a slot has {SLOT_BYTES}")
    return out


def fru_areas(individual: AliceIndividual | BobIndividual, digest: bytes) -> bytes:
    """Common header, board, product and multirecord areas."""
    side = "transmitter" if isinstance(individual, AliceIndividual) else "receiver"
    letter = "T" if side == "transmitter" else "R"
    minutes = (MADE - FIRST_MINUTE) // timedelta(minutes=1)
    board = _info_area(
        bytes([25]) + minutes.to_bytes(3, "little"),
        ["Emulated Works", f"QKD {side} carrier", f"BD{individual.serial[2:]}", f"QM-{letter}-CARRIER", ""],
    )
    product = _info_area(
        bytes([25]),
        ["Emulated Works", f"QKD {side}", f"QM-{letter}-125", f"rev {HARDWARE_REVISION}", individual.serial, "", ""],
    )
    offsets = [0, 0, 1, 1 + len(board) // 8, 1 + (len(board) + len(product)) // 8, 0]
    return _closed(bytes([1, *offsets])) + board + product + _multirecord(digest)


def _info_area(head: bytes, texts: list[str]) -> bytes:
    fields = b"".join(bytes([0xC0 + len(t)]) + t.encode("ascii") if t else b"\x00" for t in texts)
    body = head + fields + b"\xc1"
    blocks = (2 + len(body) + 1 + 7) // 8
    return _closed((bytes([1, blocks]) + body).ljust(8 * blocks - 1, b"\x00"))


def _multirecord(digest: bytes) -> bytes:
    """The only record, of type 0xC0: enterprise, schema, hardware revision, count of writes, digest, CRC-32."""
    data = EXAMPLE_ENTERPRISE.to_bytes(3, "little") + struct.pack("<BBI", SCHEMA, HARDWARE_REVISION, 1) + digest
    data += struct.pack("<I", zlib.crc32(data))
    return _closed(bytes([0xC0, 0x82, len(data), -sum(data) % 256])) + data


def _closed(data: bytes) -> bytes:
    """With the byte that makes the sum zero."""
    return data + bytes([-sum(data) % 256])
