"""The frames of MeCom, the protocol of Meerstetter's TEC controllers (protocol document 5117).

`#` AA SSSS payload CCCC CR: address 2 hex digits, sequence 4, CRC-16 (polynomial 0x1021, initial 0) over all before it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import IntEnum

from sim.chips.checksums import crc16_ccitt

_FRAME = re.compile(rb"#([0-9A-Fa-f]{2})([0-9A-Fa-f]{4})(.*)([0-9A-Fa-f]{4})", re.DOTALL)
MAX_FRAME = 256


class MecomError(IntEnum):
    COMMAND = 1
    BUSY = 2
    COMMUNICATION = 3
    FORMAT = 4
    PARAMETER = 5
    READ_ONLY = 6
    RANGE = 7
    INSTANCE = 8
    GENERAL = 9


class MecomRefusal(Exception):
    """A request that the device answers with an error code."""

    def __init__(self, code: MecomError) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(frozen=True)
class Request:
    address: int
    sequence: bytes
    payload: bytes
    crc: bytes


def parse_request(line: bytes) -> Request | None:
    """A frame without its CR; None for anything that is not one, or has a wrong checksum (both are passed over)."""
    match = _FRAME.fullmatch(line)
    if match is None or crc16_ccitt(line[:-4], 0) != int(match[4], 16):
        return None
    return Request(int(match[1], 16), match[2].upper(), match[3], match[4].upper())


def data_reply(request: Request, own_address: int, payload: bytes) -> bytes:
    """A reply that carries a value or an error."""
    head = b"!%02X%s%s" % (own_address, request.sequence, payload)
    return head + b"%04X\r" % crc16_ccitt(head, 0)


def acknowledgement(request: Request, own_address: int) -> bytes:
    """The answer to a set: empty, and instead of its own checksum it repeats the request's."""
    return b"!%02X%s%s\r" % (own_address, request.sequence, request.crc)


def encode(value: float, *, is_float: bool) -> bytes:
    """Eight hex digits: FLOAT32 or INT32, big-endian."""
    return (struct.pack(">f", value) if is_float else struct.pack(">i", int(value))).hex().upper().encode()


def decode(digits: bytes, *, is_float: bool) -> float:
    """Raises MecomRefusal(FORMAT) for anything but eight hex digits."""
    try:
        raw = bytes.fromhex(digits.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raw = b""
    if len(raw) != 4:
        raise MecomRefusal(MecomError.FORMAT)
    value: float
    (value,) = struct.unpack(">f" if is_float else ">i", raw)
    return value
