"""Checksums of the buses."""

from __future__ import annotations

import binascii


def _crc8_table(polynomial: int) -> bytes:
    table = bytearray(256)
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = (crc << 1) ^ polynomial if crc & 0x80 else crc << 1
            crc &= 0xFF
        table[value] = crc
    return bytes(table)


_CRC8 = _crc8_table(0x07)


def crc8(data: bytes) -> int:
    """SMBus packet error code: polynomial 0x07, start 0, over all bytes including both addresses (SMBus 3.2, 6.4.1)."""
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def crc16(data: bytes, start: int = 0) -> int:
    """Polynomial 0x1021, most significant bit first; start 0 (XMODEM, MeCom) or 0xFFFF (ADS131M08)."""
    return binascii.crc_hqx(data, start)
