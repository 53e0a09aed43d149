"""Layout of the symbol source's binary blocks (reference pair B1)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.errors import BusFault

HEADER = struct.Struct("<4sHHQIIII")
"""'QSY1', header length, flags (1: some slots not valid), first slot, count, run id, reserved, CRC-32 of the 28 bytes
before it and the nibbles."""
MAX_GAP = 2**32 - 1


@dataclass(frozen=True)
class SymbolBlock:
    """`nibbles` uint8, shape (count,): bit0 basis (1 X), bit1 value, bit2 decoy, bit3 not valid."""

    nibbles: npt.NDArray[np.uint8]
    first: int
    run: int


def pack_slots(slots: npt.NDArray[np.int64]) -> bytes:
    """Request: first slot as u64, then gaps as u32. `slots` int64, strictly ascending, gaps below 2^32, not empty.

    Raises ValueError otherwise.
    """
    gaps = np.diff(slots)
    if len(slots) == 0 or slots[0] < 0 or (len(gaps) and (gaps.min() < 1 or gaps.max() > MAX_GAP)):
        raise ValueError("slots must be ascending, not negative, and less than 2^32 apart")
    return struct.pack("<Q", int(slots[0])) + gaps.astype("<u4").tobytes()


def unpack_symbols(data: bytes, name: str) -> SymbolBlock:
    """Raises BusFault when the block is not whole."""
    if len(data) < HEADER.size:
        raise BusFault(f"{name}: symbol block of {len(data)} bytes")
    magic, length, _flags, first, count, run, _reserved, crc = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    if magic != b"QSY1" or length != HEADER.size or len(body) != (count + 1) // 2:
        raise BusFault(f"{name}: not a symbol block: {magic!r}, {length}, {count} slots in {len(body)} bytes")
    if zlib.crc32(body, zlib.crc32(data[: HEADER.size - 4])) != crc:
        raise BusFault(f"{name}: wrong CRC-32 in a symbol block of {count} slots")
    packed = np.frombuffer(body, np.uint8)
    nibbles = np.empty(2 * len(packed), np.uint8)
    nibbles[0::2] = packed & 15
    nibbles[1::2] = packed >> 4
    return SymbolBlock(nibbles[:count], first, run)
