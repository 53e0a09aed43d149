"""24C64: serial EEPROM over I2C, two address bytes, 32-byte pages (reference hardware A8, B)."""

from __future__ import annotations

import asyncio

from pydantic import Field

from drivers.bus.pool import BusPool
from drivers.errors import BusFault, Refused
from drivers.options import DriverOptions, identify
from drivers.roles import Identity

CHUNK = 32
HEAD = 8
# The data sheet's longest write is 5 ms, in which the part acknowledges nothing.
WRITE_S, POLL_S = 0.020, 0.002


class Eeprom24c64Options(DriverOptions):
    size: int = Field(default=8192, ge=256, le=65536, description="bytes")
    page: int = Field(default=32, ge=8, le=128, description="bytes of a page; a longer write would wrap within it")


class Eeprom24c64:
    """Bytes by address (role Memory)."""

    Options = Eeprom24c64Options

    def __init__(self, name: str, address: str, buses: BusPool, options: Eeprom24c64Options) -> None:
        self.name = name
        self.address = address
        self._options = options
        self._clock = buses.clock
        self._i2c = buses.i2c(address, name)
        self._head = b""

    @property
    def size(self) -> int:
        return self._options.size

    async def open(self) -> Identity:
        """An EEPROM has no identity of its own: a byte must be readable. Raises WrongDevice, BusFault, Timeout."""
        await identify(self.name, self.address, f"EEPROM of {self.size} bytes", self.read(0, 1))
        return Identity("eeprom24c64", self.address, "24C64")

    async def make_safe(self) -> None:
        """It has no outputs."""

    async def close(self) -> None:
        """The bus belongs to others as well."""

    async def read(self, start: int, length: int) -> bytes:
        """Raises ValueError outside the part, BusFault, Timeout."""
        self._within(start, length)
        out = b""
        while len(out) < length:
            at = start + len(out)
            out += await self._i2c.raw_read(at.to_bytes(2, "big"), min(CHUNK, length - len(out)))
        return out

    async def write(self, start: int, data: bytes) -> None:
        """Page by page, each read back: a write-protected part acknowledges and discards.

        Raises ValueError outside the part (nothing written), Refused, BusFault, Timeout.
        """
        self._within(start, len(data))
        self._head = b""
        at = start
        while at < start + len(data):
            end = min(start + len(data), at - at % self._options.page + self._options.page)
            piece = data[at - start : end - start]
            await self._i2c.raw_write(at.to_bytes(2, "big") + piece, harmless=True)
            back = await self._when_ready(at, len(piece))
            if back != piece:
                raise Refused(
                    f"{self.name} at {self.address}: bytes {at} to {end - 1} read {back.hex()} after writing "
                    f"{piece.hex()}: write-protected?"
                )
            at = end

    async def _when_ready(self, start: int, length: int) -> bytes:
        end = self._clock() + WRITE_S
        while True:
            await asyncio.sleep(POLL_S)
            try:
                return await self._i2c.raw_read(start.to_bytes(2, "big"), length)
            except BusFault:
                if self._clock() > end:
                    raise

    async def known_answer(self) -> bool:
        """See the role Probed: what the first bytes held before, which is the FRU's header."""
        found = await self.read(0, HEAD)
        self._head = self._head or found
        return found == self._head

    def _within(self, start: int, length: int) -> None:
        if not 0 <= start <= start + length <= self.size:
            raise ValueError(f"{self.name}: bytes {start} to {start + length} are not in 0 to {self.size}")
