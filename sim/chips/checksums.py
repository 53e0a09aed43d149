"""Checksums of the emulated parts, written from their data sheets."""

from __future__ import annotations

import binascii


def _crc8_table() -> bytes:
    table = bytearray(256)
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
        table[value] = crc
    return bytes(table)


_CRC8 = _crc8_table()


def smbus_pec(data: bytes) -> int:
    """SMBus packet error code: CRC-8, polynomial 0x07, initial value 0 (SMBus 3.2, 6.4.1.1)."""
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def crc16_ccitt(data: bytes, seed: int = 0xFFFF) -> int:
    """CRC-16, polynomial 0x1021, not reflected: ADS131M08 (seed 0xFFFF) and MeCom (seed 0)."""
    return binascii.crc_hqx(data, seed)


def crc16_ansi(data: bytes, seed: int = 0xFFFF) -> int:
    """CRC-16, polynomial 0x8005, not reflected: the ADS131M08's other choice."""
    crc = seed
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005) & 0xFFFF if crc & 0x8000 else crc << 1 & 0xFFFF
    return crc
