"""LTC2668-16: sixteen bias voltages over SPI (Analog Devices LTC2668 data sheet; reference hardware A1).

Frames are 32 bits, `[0][command|channel][high][low]`; what comes back is the frame before, which verifies the write.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from drivers.bus.pool import BusPool
from drivers.errors import BusFault
from drivers.options import DriverOptions, each, identify, wrong_device
from drivers.quantity import Limits, Quantity
from drivers.roles import Identity

WRITE, UPDATE, WRITE_UPDATE, SPAN, NOP = 0x00, 0x10, 0x30, 0x60, 0xF0
SPANS: dict[int, tuple[float, float]] = {
    0: (0.0, 5.0),
    1: (0.0, 10.0),
    2: (-5.0, 5.0),
    3: (-10.0, 10.0),
    4: (-2.5, 2.5),
}
"""Span code to (lowest, highest) output, V."""


PATTERNS = (0x5AA5, 0xA55A)


def _frame(command: int, data: int = 0) -> bytes:
    return bytes([0, command, data >> 8, data & 0xFF])


class BiasChannel(DriverOptions):
    index: int = Field(ge=0, lt=16)
    span: Literal[0, 1, 2, 3, 4] = Field(default=3, description="0: 0-5 V, 1: 0-10 V, 2: +-5 V, 3: +-10 V, 4: +-2.5 V")
    low_v: float | None = Field(default=None, description="V; default: the span's")
    high_v: float | None = Field(default=None, description="V; default: the span's")
    safe_v: float = Field(default=0.0, description="V")
    slew_v_per_s: float | None = Field(default=None, gt=0, description="V/s; default: unbounded")

    @property
    def limits(self) -> Limits:
        low, high = SPANS[self.span]
        low = low if self.low_v is None else self.low_v
        return Limits("V", low, high if self.high_v is None else self.high_v, self.safe_v, self.slew_v_per_s)

    @model_validator(mode="after")
    def _within_span(self) -> BiasChannel:
        low, high = SPANS[self.span]
        limits = self.limits  # refuses contradictions
        if limits.low < low or limits.high > high:
            raise ValueError(
                f"limits {limits.low:g} to {limits.high:g} V exceed span {self.span}, {low:g} to {high:g} V"
            )
        return self


class Ltc2668Options(DriverOptions):
    channels: dict[str, BiasChannel] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Ltc2668Options:
        indices = [c.index for c in self.channels.values()]
        if len(set(indices)) != len(indices):
            raise ValueError("channels: two names share one index")
        return self


class Ltc2668:
    """A bank of bias voltages (role VoltageBank)."""

    Options = Ltc2668Options

    def __init__(self, name: str, address: str, buses: BusPool, options: Ltc2668Options) -> None:
        self.name = name
        self.address = address
        self.channels = tuple(options.channels)
        self._options = options
        self._clock = buses.clock
        self._spi = buses.spi(address, name, mode=0, max_hz=5_000_000)
        self._outputs = {key: Quantity(f"{name}.{key}", c.limits) for key, c in options.channels.items()}
        self._turn = 0

    async def open(self) -> Identity:
        """Check that frames are echoed, set spans, bring every output to its safe value.

        Raises WrongDevice, BusFault, Timeout.
        """
        marks = (_frame(NOP, 0xA55A), _frame(NOP, 0x3CC3))
        expected = "LTC2668 (echo of each frame in the next)"
        ask = self._spi.transfer(*marks, _frame(NOP), harmless=True)
        _, first, second = await identify(self.name, self.address, expected, ask)
        if (first[1:], second[1:]) != (marks[0][1:], marks[1][1:]):
            raise wrong_device(self.name, self.address, expected, f"{first.hex()}, {second.hex()}")
        await each(self.channels, self._prepare)
        return Identity("ltc2668", self.address, "LTC2668-16")

    async def make_safe(self) -> None:
        """Write every channel's safe voltage, even if some fail; then raise the first error."""
        await each(self.channels, lambda key: self._write(key, self._outputs[key].limits.safe))

    async def close(self) -> None:
        await self._spi.close()

    async def set_voltage(self, channel: str, volts: float) -> None:
        """Raises OutOfRange (nothing written), BusFault (echo differs) or Timeout."""
        await self._write(channel, self.output(channel).admit(volts, self._clock()))

    def voltage(self, channel: str) -> float:
        return self.output(channel).value

    def limits(self, channel: str) -> tuple[float, float]:
        limits = self.output(channel).limits
        return limits.low, limits.high

    async def known_answer(self) -> bool:
        """See the role Probed."""
        self._turn ^= 1
        mark = _frame(NOP, PATTERNS[self._turn])
        _, back = await self._spi.transfer(mark, _frame(NOP), harmless=True)
        return back[1:] == mark[1:]

    async def check_registers(self) -> list[str]:
        """See the role Checked. No register can be read; what was clocked in comes out again."""
        wrong = []
        for pattern in (0x0000, 0xFFFF, *PATTERNS):
            _, back = await self._spi.transfer(_frame(NOP, pattern), _frame(NOP), harmless=True)
            if back[1:] != _frame(NOP, pattern)[1:]:
                wrong.append(f"echo of {_frame(NOP, pattern).hex()} is {back.hex()}")
        return wrong

    async def _prepare(self, channel: str) -> None:
        """New span and safe code come into force together, so that the output makes no detour."""
        c = self._options.channels[channel]
        code, volts = self._code(channel, c.safe_v)
        await self._send(_frame(WRITE | c.index, code), _frame(SPAN | c.index, c.span), _frame(UPDATE | c.index))
        self._outputs[channel].wrote(volts, self._clock())

    async def _write(self, channel: str, volts: float) -> None:
        code, really = self._code(channel, volts)
        await self._send(_frame(WRITE_UPDATE | self._options.channels[channel].index, code))
        self._outputs[channel].wrote(really, self._clock())

    def _code(self, channel: str, volts: float) -> tuple[int, float]:
        """(code, the voltage that it really is)."""
        low, high = SPANS[self._options.channels[channel].span]
        lsb = (high - low) / 65536
        code = min(65535, round((volts - low) / lsb))
        return code, low + code * lsb

    async def _send(self, *frames: bytes) -> None:
        def echoed(answers: list[bytes]) -> None:
            for sent, back in zip(frames, answers[1:], strict=True):
                if sent[1:] != back[1:]:
                    raise BusFault(f"{self.name} at {self.address}: sent {sent.hex()}, echo says {back.hex()}")

        await self._spi.transfer(*frames, _frame(NOP), harmless=True, check=echoed)

    def output(self, channel: str) -> Quantity:
        """Limits and last value of a channel. Raises KeyError naming the channels that there are."""
        try:
            return self._outputs[channel]
        except KeyError:
            raise KeyError(f"{self.name} has no channel {channel!r}, only {', '.join(self.channels)}") from None
