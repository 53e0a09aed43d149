"""PCA9535: 16-bit port expander (data sheet PCA9535), no pull-ups inside."""

from __future__ import annotations

from collections.abc import Callable

from sim.trouble import Trouble

INPUT, OUTPUT, POLARITY, DIRECTION = 0, 2, 4, 6


class Pca9535:
    """`inputs()` gives the levels that the board puts on the 16 pins while they are inputs (pull-downs included);
    `on_levels(levels)` hears of every change of the pins. Bit 0-7 port 0, 8-15 port 1."""

    def __init__(self, inputs: Callable[[], int], on_levels: Callable[[int], None]) -> None:
        self._inputs = inputs
        self._on_levels = on_levels
        self._pointer = 0
        self._levels = -1
        self.trouble = Trouble(self._changed)
        self.power_on_reset()

    def power_on_reset(self) -> None:
        """Outputs registers 0xFF, all pins inputs."""
        self._pointer = 0
        self._registers = [0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF]
        self._changed()

    def levels(self) -> int:
        """Levels of the 16 pins."""
        output = self._registers[OUTPUT] | self._registers[OUTPUT + 1] << 8
        is_input = self._registers[DIRECTION] | self._registers[DIRECTION + 1] << 8 | self._pins("floating")
        levels = output & ~is_input & 0xFFFF | self._inputs() & is_input
        return (levels | self._pins("high")) & ~self._pins("low")

    def _pins(self, kind: str) -> int:
        """Mask of the pins that have a fault."""
        return sum(1 << int(place) for place in self.trouble.places(kind))

    def _changed(self) -> None:
        levels = self.levels()
        if levels != self._levels:
            self._levels = levels
            self._on_levels(levels)

    def write(self, data: bytes) -> None:
        """Command byte, then data alternating between the two registers of the pair."""
        if not data:
            return
        self._pointer = register = data[0] & 7
        for value in data[1:]:
            if register >= OUTPUT:
                self._registers[register] = value
                self._changed()
            register ^= 1

    def read(self, count: int) -> bytes:
        """Starts at the register of the last command byte and alternates within its pair."""
        return bytes(self._read(self._pointer ^ (i & 1)) for i in range(count))

    def _read(self, register: int) -> int:
        if register >= OUTPUT:
            return self._registers[register]
        polarity = self._registers[POLARITY + register]
        return (self.levels() >> 8 * register & 0xFF) ^ polarity
