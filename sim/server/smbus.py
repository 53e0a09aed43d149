"""SMBus transactions as I2C messages, made as the kernel makes them (i2c_smbus_xfer_emulated, i2c-core-smbus.c).

A plain I2C adapter has no SMBus engine; the kernel builds the messages and, when asked, the packet error code. Doing
the same here lets a simulated chip see exactly the bytes that a real one would see.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from sim.server.busproto import I2C_M_RD, I2cMessage, Smbus

QUICK, BYTE, BYTE_DATA, WORD_DATA, PROC_CALL, BLOCK_DATA, I2C_BLOCK_BROKEN, BLOCK_PROC_CALL, I2C_BLOCK_DATA = range(9)
BLOCK_MAX = 32
FUNCTIONS = 0x0EFF0009
"""I2C_FUNCS: I2C, PEC, quick, byte, byte data, word data, process call, write block, I2C block read and write.

Not offered, as on most controllers: SMBus block read, whose length comes from the slave.
"""


def crc8(data: bytes, crc: int = 0) -> int:
    """SMBus packet error code: CRC-8, polynomial x^8+x^2+x+1 (SMBus 3.2, 6.4.1.1)."""
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x107) if crc & 0x80 else crc << 1
    return crc


def _write(address: int, data: bytes) -> I2cMessage:
    return I2cMessage(address, 0, len(data), data)


def _read(address: int, count: int) -> I2cMessage:
    return I2cMessage(address, I2C_M_RD, count)


def _block(data: bytes) -> bytes:
    count = data[0] if data else 0
    if not 1 <= count <= BLOCK_MAX or len(data) < count + 1:
        raise OSError(errno.EINVAL, "block of 1 to 32 bytes expected")
    return data[1 : 1 + count]


def _plain(q: Smbus, size: int) -> list[I2cMessage]:
    """The messages without packet error code. Raises OSError(EOPNOTSUPP) for what the adapter cannot do."""
    command, fixed = bytes([q.command]), {BYTE_DATA: 1, WORD_DATA: 2}.get(size)
    if size == QUICK:
        return [_read(q.address, 0) if q.read else _write(q.address, b"")]
    if size == BYTE:
        return [_read(q.address, 1) if q.read else _write(q.address, command)]
    if fixed is not None:
        if q.read:
            return [_write(q.address, command), _read(q.address, fixed)]
        return [_write(q.address, command + q.data[:fixed])]
    if size == PROC_CALL:
        return [_write(q.address, command + q.data[:2]), _read(q.address, 2)]
    if size == BLOCK_DATA and not q.read:
        data = _block(q.data)
        return [_write(q.address, command + bytes([len(data)]) + data)]
    if size == I2C_BLOCK_DATA:
        if not q.read:
            return [_write(q.address, command + _block(q.data))]
        count = q.data[0] if q.data else 0
        if not 1 <= count <= BLOCK_MAX:
            raise OSError(errno.EINVAL, "block of 1 to 32 bytes expected")
        return [_write(q.address, command), _read(q.address, count)]
    raise OSError(errno.EOPNOTSUPP, f"SMBus size {size} is not supported")


def _as_sent(message: I2cMessage) -> bytes:
    """What the packet error code covers: address byte and data."""
    return bytes([message.address << 1 & 0xFF | message.is_read]) + message.data


def messages(q: Smbus) -> list[I2cMessage]:
    """The I2C messages of a transaction, with room for or with its packet error code.

    Raises OSError: EINVAL for a wrong block length, EOPNOTSUPP for a size that a plain adapter cannot do.
    """
    size = I2C_BLOCK_DATA if q.size == I2C_BLOCK_BROKEN else q.size
    plain = _plain(q, size)
    if not q.pec or size in (QUICK, I2C_BLOCK_DATA):  # the kernel leaves these two without
        return plain
    last = plain[-1]
    if last.is_read:
        return [*plain[:-1], _read(last.address, last.length + 1)]
    return [*plain[:-1], _write(last.address, last.data + bytes([crc8(_as_sent(last))]))]


def result(q: Smbus, sent: Sequence[I2cMessage], received: bytes) -> bytes:
    """Union i2c_smbus_data after the transaction; b"" where nothing was read.

    Raises OSError(EBADMSG) when the packet error code is wrong.
    """
    if not sent[-1].is_read:
        return b""
    size = I2C_BLOCK_DATA if q.size == I2C_BLOCK_BROKEN else q.size
    if q.pec and size not in (QUICK, I2C_BLOCK_DATA):
        if crc8(b"".join(map(_as_sent, sent)) + received) != 0:
            raise OSError(errno.EBADMSG, "wrong packet error code")
        received = received[:-1]
    return bytes([len(received)]) + received if size == I2C_BLOCK_DATA else received


def execute(q: Smbus, transfer: Callable[[Sequence[I2cMessage]], bytes]) -> bytes:
    """Run a transaction over `transfer`, which takes messages and returns the bytes read. Raises OSError."""
    sent = messages(q)
    return result(q, sent, transfer(sent))
