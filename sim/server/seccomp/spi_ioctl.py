"""An open /dev/spidevA.B: the ioctls of linux/spi/spidev.h, answered from the world."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass

from sim.server.busproto import Operation, Reply, Spi, SpiTransfer
from sim.server.seccomp.mem import Memory

MESSAGE, MODE, LSB_FIRST, BITS, SPEED, MODE32 = range(6)
BUFFER = 4096
"""spidev's default `bufsiz`: the most bytes of one message, in each direction."""
_TRANSFER = struct.Struct("<QQIIHBBBBBx")
_TYPE, _WRITE = 0x6B, 1

Send = Callable[[Operation], Reply]


@dataclass
class SpiFile:
    """State of one open file, as after the driver's probe: mode 0, 8 bits, 500 kHz."""

    mode: int = 0
    bits: int = 8
    hz: int = 500_000

    def ioctl(self, command: int, arg: int, memory: Memory, send: Send) -> int:
        """Value that the ioctl returns. Raises OSError."""
        direction, size, kind, number = command >> 30, command >> 16 & 0x3FFF, command >> 8 & 0xFF, command & 0xFF
        if kind != _TYPE:
            raise OSError(errno.ENOTTY, "not an ioctl of spidev")
        if number == MESSAGE:
            return self._message(memory.read(arg, size), memory, send)
        if number > MODE32 or size not in (1, 4):
            raise OSError(errno.ENOTTY, "not an ioctl of spidev")
        if direction == _WRITE:
            self._set(number, int.from_bytes(memory.read(arg, size), "little"))
        else:
            memory.write(arg, self._get(number).to_bytes(size, "little"))
        return 0

    def read(self, count: int, send: Send) -> bytes:
        """read(2): half duplex, zeros are clocked out."""
        if count > BUFFER:
            raise OSError(errno.EMSGSIZE, f"at most {BUFFER} bytes")
        return send(Spi(self.mode, (SpiTransfer(count, self.hz, bits=self.bits),))).payload

    def write(self, data: bytes, send: Send) -> int:
        """write(2): half duplex; returns the bytes written."""
        if len(data) > BUFFER:
            raise OSError(errno.EMSGSIZE, f"at most {BUFFER} bytes")
        send(Spi(self.mode, (SpiTransfer(len(data), self.hz, bits=self.bits, tx=data),)))
        return len(data)

    def _get(self, number: int) -> int:
        return {MODE: self.mode, MODE32: self.mode, BITS: self.bits, SPEED: self.hz}.get(number, 0)

    def _set(self, number: int, value: int) -> None:
        if number in (MODE, MODE32):
            if value > 3:
                raise OSError(errno.EINVAL, "the adapter does modes 0 to 3 only")
            self.mode = value
        elif number == BITS:
            if value not in (0, 8):
                raise OSError(errno.EINVAL, "the adapter does words of 8 bits only")
            self.bits = 8
        elif number == SPEED:
            if value == 0:
                raise OSError(errno.EINVAL, "speed of 0 Hz")
            self.hz = value
        elif value:
            raise OSError(errno.EINVAL, "the adapter sends the most significant bit first")

    def _message(self, table: bytes, memory: Memory, send: Send) -> int:
        if not table or len(table) % _TRANSFER.size:
            raise OSError(errno.EINVAL, "whole transfers expected")
        transfers, places, total = [], [], 0
        for tx, rx, length, hz, delay_us, bits, cs_change, *_ in _TRANSFER.iter_unpack(table):
            total += length
            if total > BUFFER:
                raise OSError(errno.EMSGSIZE, f"at most {BUFFER} bytes")
            if bits not in (0, 8):
                raise OSError(errno.EINVAL, "the adapter does words of 8 bits only")
            data = memory.read(tx, length) if tx else None
            transfers.append(SpiTransfer(length, hz or self.hz, delay_us, 8, bool(cs_change), data))
            places.append((rx, length))
        payload = send(Spi(self.mode, tuple(transfers))).payload
        if len(payload) != total:
            raise OSError(errno.EIO, "the world answered with another length")
        for rx, length in places:
            if rx:
                memory.write(rx, payload[:length])
            payload = payload[length:]
        return total
