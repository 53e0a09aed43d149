"""IPMI FRU information (Platform Management FRU Information Storage Definition 1.3): bytes of an EEPROM and back. Pure.

Common header (8 bytes), board area, product area, multirecord area; areas are multiples of 8 bytes and sum to zero.
The qmodd multirecord (OEM type 0xC0) holds: manufacturer id (3 bytes), schema, hardware revision, sequence, and the
SHA-256 of the calibration export that belongs to this module, with a CRC-32 over all of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zlib import crc32

EPOCH = datetime(1996, 1, 1, tzinfo=UTC)
ENGLISH = 25
END_OF_FIELDS = 0xC1
OEM_TYPE = 0xC0
# IANA private enterprise number reserved for documentation (RFC 5612), until one is assigned.
MANUFACTURER_ID = 32473
LAST, VERSION = 0x80, 0x02
MAX_TEXT = 63
_QMODD = struct.Struct("<3sBBI32sI")


class FruError(ValueError):
    """Bytes that are no FRU, or text that does not fit; says which area and what is wrong with it."""


@dataclass(frozen=True)
class QmoddRecord:
    """`sequence` counts writes; `calibration_sha256` is over the calibration export that belongs to the module."""

    schema: int
    hardware_revision: int
    sequence: int
    calibration_sha256: bytes = bytes(32)


@dataclass(frozen=True)
class Fru:
    """Board and product text, each at most 63 ASCII characters; `made` to the minute."""

    board_manufacturer: str = ""
    board_product: str = ""
    board_serial: str = ""
    board_part_number: str = ""
    made: datetime = EPOCH
    product_manufacturer: str = ""
    product_name: str = ""
    product_part_number: str = ""
    product_version: str = ""
    product_serial: str = ""
    asset_tag: str = ""
    record: QmoddRecord | None = field(default=None)


def encode(fru: Fru) -> bytes:
    """Raises FruError for text that does not fit."""
    minutes = max(0, min(0xFFFFFF, int((fru.made - EPOCH) / timedelta(minutes=1))))
    board = _area(
        bytes([1, 0, ENGLISH]) + minutes.to_bytes(3, "little"),
        [fru.board_manufacturer, fru.board_product, fru.board_serial, fru.board_part_number, ""],
    )
    product = _area(
        bytes([1, 0, ENGLISH]),
        [
            *(fru.product_manufacturer, fru.product_name, fru.product_part_number),
            *(fru.product_version, fru.product_serial, fru.asset_tag, ""),
        ],
    )
    multi = _multirecord(fru.record) if fru.record is not None else b""
    at_product = 8 + len(board)
    at_multi = (at_product + len(product)) // 8 if multi else 0
    header = bytes([1, 0, 0, 1, at_product // 8, at_multi, 0])
    return header + bytes([_zero_sum(header)]) + board + product + multi


def decode(data: bytes) -> Fru:
    """Raises FruError: wrong version or checksum, an area that does not fit, broken text."""
    if len(data) < 8 or data[0] & 0x0F != 1 or sum(data[:8]) & 0xFF:
        raise FruError("common header: not version 1 or its checksum is wrong")
    board_at, product_at, multi_at = (8 * data[i] for i in (3, 4, 5))
    made = EPOCH
    board: list[str] = []
    product: list[str] = []
    if board_at:
        area = _checked(data, board_at, "board area")
        made = EPOCH + timedelta(minutes=int.from_bytes(area[3:6], "little"))
        board = _fields(area[6:], "board area")
    if product_at:
        product = _fields(_checked(data, product_at, "product area")[3:], "product area")
    board += [""] * (4 - len(board))
    product += [""] * (6 - len(product))
    return Fru(
        *(board[0], board[1], board[2], board[3]),
        made,
        *(product[0], product[1], product[2], product[3], product[4], product[5]),
        record=_find_record(data, multi_at) if multi_at else None,
    )


def size(data: bytes) -> int:
    """Bytes that the FRU in `data` (at least its first 8) takes, multirecords not counted. Raises FruError."""
    if len(data) < 8 or sum(data[:8]) & 0xFF:
        raise FruError("common header: its checksum is wrong")
    return 8 * max(data[2:6])


def _area(head: bytes, texts: list[str]) -> bytes:
    body = head + b"".join(_text(t) for t in texts[:-1]) + bytes([END_OF_FIELDS])
    length = -(-(len(body) + 1) // 8) * 8
    body = body[:1] + bytes([length // 8]) + body[2:]
    body = body.ljust(length - 1, b"\0")
    return body + bytes([_zero_sum(body)])


def _text(text: str) -> bytes:
    try:
        raw = text.encode("ascii")
    except UnicodeEncodeError as e:
        raise FruError(f"{text!r}: only ASCII fits") from e
    if len(raw) > MAX_TEXT:
        raise FruError(f"{text!r} has {len(raw)} characters; {MAX_TEXT} is the limit")
    # One character alone would read as the end of the fields.
    if len(raw) == 1:
        raw += b" "
    return bytes([0xC0 | len(raw)]) + raw if raw else b"\x00"


def _checked(data: bytes, at: int, what: str) -> bytes:
    length = 8 * data[at + 1] if at + 1 < len(data) else 0
    area = data[at : at + length]
    if length < 8 or len(area) < length:
        raise FruError(f"{what}: {length} bytes at {at} do not fit")
    if sum(area) & 0xFF:
        raise FruError(f"{what}: its checksum is wrong")
    return area


def _fields(area: bytes, what: str) -> list[str]:
    out: list[str] = []
    at = 0
    while True:
        if at >= len(area):
            raise FruError(f"{what}: no end of its fields")
        kind = area[at]
        if kind == END_OF_FIELDS:
            return out
        length = kind & 0x3F
        raw = area[at + 1 : at + 1 + length]
        if len(raw) < length:
            raise FruError(f"{what}: field {len(out)} runs over its end")
        if length and kind >> 6 != 3:
            raise FruError(f"{what}: field {len(out)} is not 8-bit text (type {kind >> 6})")
        out.append(raw.decode("ascii", "replace").rstrip())
        at += 1 + length


def _multirecord(record: QmoddRecord) -> bytes:
    body = _QMODD.pack(
        MANUFACTURER_ID.to_bytes(3, "little"),
        record.schema,
        record.hardware_revision,
        record.sequence,
        record.calibration_sha256,
        0,
    )[:-4]
    body += crc32(body).to_bytes(4, "little")
    head = bytes([OEM_TYPE, LAST | VERSION, len(body), _zero_sum(body)])
    return head + bytes([_zero_sum(head)]) + body


def _find_record(data: bytes, at: int) -> QmoddRecord | None:
    while at + 5 <= len(data):
        head = data[at : at + 5]
        body = data[at + 5 : at + 5 + head[2]]
        if sum(head) & 0xFF or len(body) < head[2] or (sum(body) + head[3]) & 0xFF:
            raise FruError(f"multirecord at {at}: a checksum is wrong")
        if head[0] == OEM_TYPE and int.from_bytes(body[:3], "little") == MANUFACTURER_ID:
            return _own(body, at)
        if head[1] & LAST:
            return None
        at += 5 + head[2]
    raise FruError("multirecord area: no last record")


def _own(body: bytes, at: int) -> QmoddRecord:
    if len(body) != _QMODD.size:
        raise FruError(f"multirecord at {at}: {len(body)} bytes instead of {_QMODD.size}")
    _, schema, revision, sequence, sha, crc = _QMODD.unpack(body)
    if crc32(body[:-4]) != crc:
        raise FruError(f"multirecord at {at}: its CRC-32 is wrong")
    return QmoddRecord(schema, revision, sequence, sha)


def _zero_sum(data: bytes) -> int:
    return -sum(data) & 0xFF
