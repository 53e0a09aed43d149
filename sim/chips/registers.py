"""The manner of most I2C parts: the first byte written is a pointer, the rest is data, reads follow the pointer."""

from __future__ import annotations

from abc import ABC, abstractmethod


class PointerRegisters(ABC):
    """Big-endian registers behind a pointer that persists; a write shorter than its register is ignored by the part."""

    def __init__(self) -> None:
        self.pointer = 0

    def write(self, data: bytes) -> None:
        """I2C write: pointer, then one register's data."""
        if not data:
            return
        self.pointer = data[0]
        size = self._size(self.pointer)
        if len(data) > size:
            self._store(self.pointer, int.from_bytes(data[1 : 1 + size], "big"))

    def read(self, count: int) -> bytes:
        """I2C read of the register at the pointer; past its end the bus floats high."""
        if count == 0:
            return b""
        size = self._size(self.pointer)
        return self._load(self.pointer).to_bytes(size, "big").ljust(count, b"\xff")[:count]

    def _size(self, register: int) -> int:
        """Bytes of a register."""
        return 2

    @abstractmethod
    def _load(self, register: int) -> int:
        """Unsigned content of a register as read now."""

    @abstractmethod
    def _store(self, register: int, value: int) -> None:
        """A complete write to a register."""


def twos(value: int, bits: int) -> int:
    """Signed to two's complement of `bits`, limited to its range."""
    top = 1 << (bits - 1)
    return min(max(value, -top), top - 1) & ((1 << bits) - 1)


def signed(value: int, bits: int) -> int:
    """Two's complement of `bits` to signed."""
    return value - (1 << bits) if value >> (bits - 1) & 1 else value
