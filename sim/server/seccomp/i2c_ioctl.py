"""An open /dev/i2c-N: the ioctls of linux/i2c-dev.h, answered from the world."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass

from sim.server.busproto import I2cMessage, Operation, Rdwr, Reply, Smbus
from sim.server.seccomp.mem import Memory

RETRIES, TIMEOUT, SLAVE, TENBIT, FUNCS, SLAVE_FORCE, RDWR, PEC, SMBUS = (
    0x0701, 0x0702, 0x0703, 0x0704, 0x0705, 0x0706, 0x0707, 0x0708, 0x0720,
)  # fmt: skip
FUNCTIONS = 0x0CFF0009
"""I2C_FUNCS: I2C, PEC, quick, byte, byte data, word data, process call, I2C block read and write. As on most
controllers there is no SMBus block transfer, whose length comes from the slave."""
QUICK, BYTE, BYTE_DATA, WORD_DATA, PROC_CALL = range(5)
MAX_MESSAGES = 42
MAX_LENGTH = 8192
_UNION = 34  # length, 32 bytes, packet error code
_SMBUS_ARGS = struct.Struct("<BBxxIQ")
_RDWR_ARGS = struct.Struct("<QI")
_MESSAGE = struct.Struct("<HHHxxQ")

Send = Callable[[Operation], Reply]
"""Ask the world; raises OSError with the errno that the system call is to return."""


@dataclass
class I2cFile:
    """State of one open file: the address set by I2C_SLAVE, and whether SMBus calls carry an error code."""

    address: int = 0
    pec: bool = False

    def ioctl(self, command: int, arg: int, memory: Memory, send: Send) -> int:
        """Value that the ioctl returns. Raises OSError."""
        match command:
            case 0x0703 | 0x0706:  # SLAVE, SLAVE_FORCE
                if arg > 0x7F:
                    raise OSError(errno.EINVAL, "7-bit address expected")
                self.address = arg
            case 0x0708:  # PEC
                self.pec = bool(arg)
            case 0x0705:  # FUNCS
                memory.write(arg, FUNCTIONS.to_bytes(8, "little"))
            case 0x0720:  # SMBUS
                self._smbus(arg, memory, send)
            case 0x0707:  # RDWR
                return _rdwr(arg, memory, send)
            case 0x0704 if arg:  # TENBIT
                raise OSError(errno.EINVAL, "no ten-bit addresses on this adapter")
            case 0x0701 | 0x0702 | 0x0704:  # RETRIES, TIMEOUT: the adapter's business
                return 0
            case _:
                raise OSError(errno.ENOTTY, "not an ioctl of i2c-dev")
        return 0

    def read(self, count: int, send: Send) -> bytes:
        """read(2): one message from the address set."""
        count = min(count, MAX_LENGTH)
        return send(Rdwr((I2cMessage(self.address, 1, count),))).payload

    def write(self, data: bytes, send: Send) -> int:
        """write(2): one message to the address set; returns the bytes written."""
        data = data[:MAX_LENGTH]
        send(Rdwr((I2cMessage(self.address, 0, len(data), data),)))
        return len(data)

    def _smbus(self, arg: int, memory: Memory, send: Send) -> None:
        read, command, size, pointer = _SMBUS_ARGS.unpack(memory.read(arg, _SMBUS_ARGS.size))
        if size > 8 or read > 1:
            raise OSError(errno.EINVAL, "no such SMBus transaction")
        without = size == QUICK or (size == BYTE and not read)
        if not pointer and not without:
            raise OSError(errno.EINVAL, "data expected")
        width = {BYTE: 1, BYTE_DATA: 1, WORD_DATA: 2}.get(size, _UNION)
        data = b"" if without else memory.read(pointer, width)
        reply = send(Smbus(self.address, bool(read), command, size, data, self.pec))
        if (read and not without) or size == PROC_CALL:
            memory.write(pointer, reply.payload[:width])


def _rdwr(arg: int, memory: Memory, send: Send) -> int:
    pointer: int
    count: int
    pointer, count = _RDWR_ARGS.unpack(memory.read(arg, _RDWR_ARGS.size))
    if not pointer or not 1 <= count <= MAX_MESSAGES:
        raise OSError(errno.EINVAL, f"1 to {MAX_MESSAGES} messages expected")
    table = memory.read(pointer, _MESSAGE.size * count)
    messages, reads = [], []
    for address, flags, length, place in _MESSAGE.iter_unpack(table):
        if length > MAX_LENGTH:
            raise OSError(errno.EINVAL, f"message longer than {MAX_LENGTH} bytes")
        message = I2cMessage(address, flags, length, b"" if flags & 1 else memory.read(place, length))
        messages.append(message)
        if message.is_read:
            reads.append((place, length))
    payload = send(Rdwr(tuple(messages))).payload
    if len(payload) != sum(length for _, length in reads):
        raise OSError(errno.EIO, "the world answered with another length")
    for place, length in reads:
        memory.write(place, payload[:length])
        payload = payload[length:]
    return count
