"""24C64: 8 KiB serial EEPROM with two address bytes and 32-byte pages (reference hardware A8, B)."""

from __future__ import annotations

import errno

from sim.clock import SimClock
from sim.trouble import Trouble

SIZE, PAGE = 8192, 32
WRITE_S = 0.004


class Eeprom24c64:
    """`content` survives power-on; `protected`: the write-protect pin is high: data are acknowledged and discarded.

    While a page is being written the part acknowledges nothing (ENXIO). A write past the end of a page wraps within it.
    """

    def __init__(self, clock: SimClock, content: bytes = b"") -> None:
        self._clock = clock
        self.content = bytearray(content.ljust(SIZE, b"\xff")[:SIZE])
        self.protected = False
        self.trouble = Trouble()
        self._pointer = 0
        self._busy_until = 0.0

    def power_on_reset(self) -> None:
        self._pointer = 0
        self._busy_until = 0.0

    def _acknowledge(self) -> None:
        if self._clock.now() < self._busy_until:
            raise OSError(errno.ENXIO, "busy writing: no acknowledge")

    def write(self, data: bytes) -> None:
        self._acknowledge()
        if len(data) < 2:
            return
        self._pointer = int.from_bytes(data[:2], "big") % SIZE
        body = data[2:]
        if not body:
            return
        page = self._pointer - self._pointer % PAGE
        for k, byte in enumerate(body):
            at = page + (self._pointer + k - page) % PAGE
            if not (self.protected or self.trouble.has("protected")):
                self.content[at] = byte
        self._pointer = page + (self._pointer + len(body) - page) % PAGE
        self._busy_until = self._clock.now() + WRITE_S

    def read(self, count: int) -> bytes:
        self._acknowledge()
        out = bytes(self._byte((self._pointer + k) % SIZE) for k in range(count))
        self._pointer = (self._pointer + count) % SIZE
        return out

    def _byte(self, at: int) -> int:
        return self.content[at] ^ int(self.trouble.value("flipped", at, default=1.0))
