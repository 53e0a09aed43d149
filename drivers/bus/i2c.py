"""I2C over smbus2.SMBus: register reads and writes, with or without SMBus packet error code."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from smbus2 import i2c_msg

from drivers.bus.crc import crc8
from drivers.bus.lane import Lane
from drivers.bus.libraries import SmbusLike
from drivers.bus.port import Port, io_fault
from drivers.errors import BusFault, DriverError, Timeout

T = TypeVar("T")
DEADLINE_S = 0.25
"""The kernel's adapters give up after about 0.1 s or less a message."""
_NACK = (errno.ENXIO, errno.EREMOTEIO)


class I2cBus:
    """One adapter, shared by the devices on it."""

    def __init__(self, number: int, opener: Callable[[int], SmbusLike], lane: Lane) -> None:
        self.lane = lane
        self.port: Port[SmbusLike] = Port(lane, lambda: opener(number), (OSError,), self._classify)

    async def run(self, work: Callable[[SmbusLike], T], *, harmless: bool = False, deadline_s: float = DEADLINE_S) -> T:
        """Run `work(bus)` as one transaction: nothing else gets onto the bus in between."""
        return await self.port.run(work, deadline_s=deadline_s, harmless=harmless)

    async def close(self) -> None:
        await self.port.close()

    def _classify(self, error: Exception) -> tuple[DriverError, bool]:
        name = self.lane.name
        if isinstance(error, DriverError):
            return error, True
        code = error.errno if isinstance(error, OSError) else None
        if code in _NACK:
            return BusFault(f"{name}: no acknowledge"), True
        if code == errno.ETIMEDOUT or isinstance(error, TimeoutError):
            return Timeout(f"{name}: the bus timed out"), False
        return io_fault(name, error), False


class I2cDevice:
    """One address on a bus. Registers are 8 bits; data are bytes in the order of the wire.

    With `pec` every read and write carries a packet error code, computed and checked here, so that it does not depend
    on what the adapter's driver can do.
    """

    def __init__(self, bus: I2cBus, device: int, address: str, *, pec: bool = False) -> None:
        self.bus = bus
        self.device = device
        self.address = address
        self.pec = pec

    async def read(self, register: int, length: int, *, harmless: bool = True, unchecked: bool = False) -> bytes:
        """Read `length` bytes (1 to 32). Raises BusFault (no acknowledge, wrong PEC) or Timeout.

        `unchecked`: without packet error code, for the first byte of a block whose length is not known yet.
        """
        pec = self.pec and not unchecked
        return await self._named(lambda bus: self._read(bus, register, length, pec), harmless)

    async def raw_write(self, data: bytes, *, harmless: bool = False) -> None:
        """Bytes as they are, without packet error code: parts with another kind of address (EEPROM)."""
        await self._named(lambda bus: bus.i2c_rdwr(i2c_msg.write(self.device, list(data))), harmless)

    async def raw_read(self, head: bytes, length: int, *, harmless: bool = True) -> bytes:
        """Write `head`, repeated start, read `length` bytes; no packet error code."""

        def work(bus: SmbusLike) -> bytes:
            answer = i2c_msg.read(self.device, length)
            bus.i2c_rdwr(i2c_msg.write(self.device, list(head)), answer)
            return bytes(iter(answer))

        return await self._named(work, harmless)

    async def write(self, register: int, data: bytes, *, harmless: bool = False) -> None:
        """Write bytes to a register. Raises BusFault or Timeout. `harmless`: writing it twice does no harm."""
        await self._named(lambda bus: self._write(bus, register, data), harmless)

    async def _named(self, work: Callable[[SmbusLike], T], harmless: bool) -> T:
        try:
            return await self.bus.run(work, harmless=harmless)
        except BusFault as error:
            raise BusFault(f"{error} (0x{self.device:02x})") from error

    def _read(self, bus: SmbusLike, register: int, length: int, pec: bool) -> bytes:
        if not pec:
            return bytes(bus.read_i2c_block_data(self.device, register, length))
        answer = i2c_msg.read(self.device, length + 1)
        bus.i2c_rdwr(i2c_msg.write(self.device, [register]), answer)
        data = bytes(iter(answer))
        sent = bytes([self.device << 1, register, self.device << 1 | 1])
        if crc8(sent + data) != 0:
            raise BusFault(f"{self.bus.lane.name}: wrong packet error code in {data.hex()}")
        return data[:-1]

    def _write(self, bus: SmbusLike, register: int, data: bytes) -> None:
        if not self.pec:
            bus.write_i2c_block_data(self.device, register, list(data))
            return
        code = crc8(bytes([self.device << 1, register]) + data)
        bus.i2c_rdwr(i2c_msg.write(self.device, [register, *data, code]))
