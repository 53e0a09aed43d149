"""PCA9535: sixteen lines over I2C (NXP PCA9535 data sheet; reference hardware A8, B).

Outputs are cleared before the direction is set: after power-on the output registers hold ones, so an active-high
enable would pulse.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import Field, model_validator

from drivers.bus.pool import BusPool
from drivers.errors import BusFault, Refused
from drivers.options import DriverOptions, identify, wrong_device
from drivers.roles import Identity

INPUT, OUTPUT, POLARITY, DIRECTION = 0x00, 0x02, 0x04, 0x06


class Line(DriverOptions):
    port: Literal[0, 1]
    bit: int = Field(ge=0, le=7)
    direction: Literal["in", "out"] = "in"
    active_low: bool = False
    safe: bool = Field(default=False, description="logical level of an output when its owner is gone")

    @property
    def mask(self) -> int:
        """In the 16 bits port 1, port 0."""
        return 1 << (8 * self.port + self.bit)


class Pca9535Options(DriverOptions):
    lines: dict[str, Line] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Pca9535Options:
        masks = [line.mask for line in self.lines.values()]
        if len(set(masks)) != len(masks):
            raise ValueError("lines: two names share one pin")
        return self


class Pca9535:
    """Named lines (role DigitalIO). Levels are logical: True is active."""

    Options = Pca9535Options

    def __init__(self, name: str, address: str, buses: BusPool, options: Pca9535Options) -> None:
        self.name = name
        self.address = address
        self.lines = tuple(options.lines)
        self._lines = options.lines
        self._i2c = buses.i2c(address, name)
        self._lock = asyncio.Lock()
        outputs = [line for line in options.lines.values() if line.direction == "out"]
        self._direction = 0xFFFF & ~sum(line.mask for line in outputs)  # ones are inputs
        self._safe = sum(line.mask for line in outputs if line.safe != line.active_low)
        self._out = self._safe

    async def open(self) -> Identity:
        """Bring outputs to their safe levels, then make them outputs. Raises WrongDevice, BusFault, Timeout."""
        expected = "PCA9535 (direction registers read back what was written)"
        async with self._lock:
            await identify(self.name, self.address, expected, self._pair(INPUT))
            found = await identify(self.name, self.address, expected, self._set_up())
        if found != (self._safe, self._direction):
            raise wrong_device(
                self.name, self.address, expected, f"outputs 0x{found[0]:04x}, direction 0x{found[1]:04x}"
            )
        return Identity("pca9535", self.address, "PCA9535")

    async def make_safe(self) -> None:
        """All outputs to their safe levels in one write."""
        async with self._lock:
            await self._apply(self._safe)

    async def close(self) -> None:
        """The bus belongs to others as well."""

    async def write(self, line: str, level: bool) -> None:
        """Set an output and read it back.

        Raises Refused for an input, BusFault if the part does not hold the level or was reset (its outputs are then
        safe), Timeout.
        """
        pin = self._line(line)
        if pin.direction != "out":
            raise Refused(f"{self.name}.{line} is an input")
        async with self._lock:
            await self._apply(self._out | pin.mask if level != pin.active_low else self._out & ~pin.mask)

    async def read(self, line: str) -> bool:
        """Level at the pin, of outputs too. Raises BusFault, Timeout."""
        pin = self._line(line)
        high = int.from_bytes(await self._i2c.read(INPUT + pin.port, 1), "little") << (8 * pin.port) & pin.mask
        return bool(high) != pin.active_low

    async def known_answer(self) -> bool:
        """See the role Probed."""
        return await self._pair(DIRECTION) == self._direction

    async def check_registers(self) -> list[str]:
        """See the role Checked. The output bits of pins that are inputs have no effect."""
        wrong = []
        async with self._lock:
            wanted = {OUTPUT: self._out, POLARITY: 0, DIRECTION: self._direction}
            for register, value in wanted.items():
                if (found := await self._pair(register)) != value:
                    wrong.append(f"register {register} reads 0x{found:04x}, not 0x{value:04x}")
            if wrong:
                return wrong  # with an unknown direction a pattern might reach a pin
            for pattern in (0x5555 & self._direction, 0xAAAA & self._direction, 0):
                await self._put(OUTPUT, self._out | pattern)
                if (found := await self._pair(OUTPUT)) != self._out | pattern:
                    wrong.append(f"outputs read 0x{found:04x} after 0x{self._out | pattern:04x}")
        return wrong

    async def _apply(self, levels: int) -> None:
        if await self._pair(DIRECTION) != self._direction:
            # A part that was reset has ones in its outputs: writing a direction first would switch everything on.
            await self._set_up()
            raise BusFault(f"{self.name} at {self.address}: PCA9535 was reset; all its outputs are at safe levels")
        await self._put(OUTPUT, levels)
        self._out = levels
        held = await self._pair(OUTPUT)
        if held != levels:
            raise BusFault(f"{self.name} at {self.address}: outputs read 0x{held:04x} after 0x{levels:04x}")

    async def _set_up(self) -> tuple[int, int]:
        """Returns what the output and direction registers hold afterwards."""
        await self._put(OUTPUT, self._safe)
        self._out = self._safe
        await self._put(POLARITY, 0)
        await self._put(DIRECTION, self._direction)
        return await self._pair(OUTPUT), await self._pair(DIRECTION)

    async def _pair(self, register: int) -> int:
        return int.from_bytes(await self._i2c.read(register, 2), "little")

    async def _put(self, register: int, value: int) -> None:
        await self._i2c.write(register, value.to_bytes(2, "little"), harmless=True)

    def _line(self, line: str) -> Line:
        try:
            return self._lines[line]
        except KeyError:
            raise KeyError(f"{self.name} has no line {line!r}, only {', '.join(self.lines)}") from None
