"""LTC2672-16: five current sources for heaters, over SPI (Analog Devices LTC2672 data sheet; reference hardware A1, B).

Frames are 24 bits, `[command|channel][high][low]`; the first byte that comes back is the fault register as it stands
after the frame before. So every write is followed by a no-operation frame whose answer tells how the write fared.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from drivers.bus.pool import BusPool
from drivers.errors import BusFault
from drivers.options import DriverOptions, each, identify, wrong_device
from drivers.quantity import Limits, Quantity
from drivers.roles import Identity

WRITE, UPDATE, WRITE_UPDATE, SPAN, MUX, NOP = 0x00, 0x10, 0x30, 0x60, 0xB0, 0xF0
FAULT_LENGTH, FAULT_RESERVED, FAULT_HOT, FAULT_OPEN = 0x80, 0x40, 0x20, 0x1F
MUX_OFF, MUX_SUPPLY, MUX_REFERENCE, MUX_DIE, MUX_VOUT0 = 0x00, 0x06, 0x08, 0x0A, 0x18
REFERENCE_V = 1.25
# The multiplexer's die temperature: 1.4 V at 25 C, -3.7 mV/K.
DIE_V, DIE_C, DIE_V_PER_K = 1.4, 25.0, -3.7e-3
INTERNAL = {"supply": MUX_SUPPLY, "reference": MUX_REFERENCE, "die": MUX_DIE}
PATTERNS = (0x5AA5, 0xA55A)
CHANNELS = 5
_NOP = bytes([NOP, 0, 0])


class HeaterChannel(DriverOptions):
    """One output. A bare number in the configuration is its index."""

    index: int = Field(ge=0, lt=CHANNELS)
    max_current_a: float | None = Field(default=None, gt=0, description="A; default: the bank's")
    safe_a: float = Field(default=0.0, ge=0, description="A")
    slew_a_per_s: float | None = Field(default=None, gt=0, description="A/s; default: unbounded")


def _channel(value: Any) -> Any:
    return {"index": value} if isinstance(value, int) else value


class Ltc2672Options(DriverOptions):
    channels: dict[str, Annotated[HeaterChannel, BeforeValidator(_channel)]] = Field(min_length=1)
    max_current_a: float = Field(gt=0, description="A, of every channel that has no limit of its own")
    rfsadj_ohm: float = Field(default=20_000.0, ge=19_000, le=41_000)
    span: Literal[1, 2, 3, 4, 5, 6, 7, 15] = Field(default=5, description="1-7: 3.125 mA * 2^(span-1); 15: 300 mA")

    @property
    def full_scale_a(self) -> float:
        """FS = factor * 1.25 V / RFSADJ, A."""
        factor = 4800 if self.span == 15 else 50 * 2 ** (self.span - 1)
        return factor * 1.25 / self.rfsadj_ohm

    @model_validator(mode="after")
    def _consistent(self) -> Ltc2672Options:
        indices = [c.index for c in self.channels.values()]
        if len(set(indices)) != len(indices):
            raise ValueError("channels: two names share one index")
        for name, channel in self.channels.items():
            limit = channel.max_current_a or self.max_current_a
            if limit > self.full_scale_a:
                raise ValueError(
                    f"channels.{name}: limit {limit:g} A exceeds full scale {self.full_scale_a:g} A of span {self.span}"
                )
            if channel.safe_a > limit:
                raise ValueError(f"channels.{name}: safe value {channel.safe_a:g} A exceeds limit {limit:g} A")
        return self


class Ltc2672:
    """A bank of heaters (role HeaterBank)."""

    Options = Ltc2672Options

    def __init__(self, name: str, address: str, buses: BusPool, options: Ltc2672Options) -> None:
        self.name = name
        self.address = address
        self.channels = tuple(options.channels)
        self._options = options
        self._clock = buses.clock
        self._spi = buses.spi(address, name, mode=0, max_hz=5_000_000)
        self._index = {key: c.index for key, c in options.channels.items()}
        self._outputs = {
            key: Quantity(
                f"{name}.{key}", Limits("A", 0.0, c.max_current_a or options.max_current_a, c.safe_a, c.slew_a_per_s)
            )
            for key, c in options.channels.items()
        }
        self._turn = 0
        self.max_current_a = max(q.limits.high for q in self._outputs.values())

    async def open(self) -> Identity:
        """Check that a LTC2672 answers, set spans, bring every output to its safe value, unused ones to high impedance.

        Raises WrongDevice, BusFault, Timeout.
        """
        await self._identify()
        used = set(self._index.values())
        for index in range(CHANNELS):
            await self._command(SPAN | index, 0 if index not in used else self._options.span, prepare=index)
        await self.make_safe()
        await self.monitor(None)
        return Identity("ltc2672", self.address, "LTC2672-16")

    async def make_safe(self) -> None:
        """Write every channel's safe current, even if some fail; then raise the first error."""
        await each(self.channels, lambda key: self._write(key, self._outputs[key].limits.safe))

    async def close(self) -> None:
        await self._spi.close()

    async def set_current(self, channel: str, amperes: float) -> None:
        """Raises OutOfRange (nothing written), BusFault (fault register) or Timeout."""
        await self._write(channel, self.output(channel).admit(amperes, self._clock()))

    def current(self, channel: str) -> float:
        return self.output(channel).value

    async def open_circuits(self) -> frozenset[str]:
        _, answer = await self._spi.transfer(_NOP, _NOP, harmless=True)
        self._judge(answer[0])
        return frozenset(key for key, index in self._index.items() if answer[0] >> index & 1)

    async def monitor(self, channel: str | None) -> None:
        """Connect a channel's output voltage to the MUX pin."""
        code = MUX_OFF if channel is None else MUX_VOUT0 + self._index[channel]
        await self._command(MUX, code)

    async def monitor_internal(self, what: Literal["supply", "reference", "die"]) -> None:
        """Connect the part's own supply, its reference (`REFERENCE_V`) or the diode of its die (`die_celsius`) to the
        MUX pin; `monitor(None)` ends it. Raises BusFault, Timeout."""
        await self._command(MUX, INTERNAL[what])

    @staticmethod
    def die_celsius(volts: float) -> float:
        """Die temperature, C, of the voltage at the MUX pin while it shows "die"."""
        return DIE_C + (volts - DIE_V) / DIE_V_PER_K

    async def known_answer(self) -> bool:
        """See the role Probed. A 32-bit frame brings the fault register and then the frame before."""
        self._turn ^= 1
        return not await self._echo(PATTERNS[self._turn])

    async def check_registers(self) -> list[str]:
        """See the role Checked. No register can be read; what was clocked in comes out again, and a frame of a wrong
        length raises its flag."""
        wrong = [said for pattern in (0x0000, 0xFFFF, *PATTERNS) if (said := await self._echo(pattern))]
        _, flagged, cleared = await self._spi.transfer(_NOP[:2], _NOP, _NOP, harmless=True)
        lengths = [fault[0] & (FAULT_LENGTH | FAULT_RESERVED) for fault in (flagged, cleared)]
        if lengths != [FAULT_LENGTH, 0]:
            wrong.append(f"fault register 0x{flagged[0]:02x} after a wrong frame, 0x{cleared[0]:02x} after a right one")
        return wrong

    async def _echo(self, pattern: int) -> str:
        """What is wrong with the echo of a no-operation frame; empty for nothing."""
        mark = bytes([0, NOP, pattern >> 8, pattern & 0xFF])
        _, back = await self._spi.transfer(mark, b"\0" + _NOP, harmless=True)
        if back[1:] != mark[1:] or back[0] & (FAULT_LENGTH | FAULT_RESERVED | FAULT_HOT):
            return f"echo of {mark.hex()} is {back.hex()}"
        return ""

    async def _identify(self) -> None:
        # The part has no identity register. A frame of a wrong length is ignored by the part and raises a flag that
        # neither a line that is stuck low nor one that is stuck high can imitate.
        expected = "LTC2672 (a 16-bit frame raises fault bit 7 alone of bits 7, 6)"
        ask = self._spi.transfer(_NOP[:2], _NOP, _NOP, harmless=True)
        _, flagged, cleared = await identify(self.name, self.address, expected, ask)
        if flagged[0] & (FAULT_LENGTH | FAULT_RESERVED) != FAULT_LENGTH:
            raise wrong_device(self.name, self.address, expected, f"fault register 0x{flagged[0]:02x}")
        if cleared[0] & (FAULT_LENGTH | FAULT_RESERVED):
            raise wrong_device(self.name, self.address, expected, f"0x{cleared[0]:02x} after a right frame")

    async def _write(self, channel: str, amperes: float) -> None:
        lsb = self._options.full_scale_a / 65536
        code = min(65535, round(amperes / lsb))
        await self._command(WRITE_UPDATE | self._index[channel], code)
        self._outputs[channel].wrote(code * lsb, self._clock())

    async def _command(self, command: int, data: int, *, prepare: int | None = None) -> None:
        """One command and its verification. `prepare`: zero that channel's input first and update it after, so that a
        new span comes into force at zero current."""
        frames = [bytes([command, data >> 8, data & 0xFF])]
        if prepare is not None:
            frames = [bytes([WRITE | prepare, 0, 0]), *frames, bytes([UPDATE | prepare, 0, 0])]
        # Setting the same values twice does no harm.
        await self._spi.transfer(*frames, _NOP, harmless=True, check=self._judge_all)

    def _judge_all(self, answers: list[bytes]) -> None:
        # The first answer is about a frame sent before.
        for answer in answers[1:]:
            self._judge(answer[0])

    def _judge(self, fault: int) -> None:
        if fault & FAULT_RESERVED:
            raise BusFault(
                f"{self.name} at {self.address}: fault register reads 0x{fault:02x}: nothing drives the line"
            )
        if fault & FAULT_LENGTH:
            raise BusFault(f"{self.name} at {self.address}: a frame was refused for its length; nothing was written")
        if fault & FAULT_HOT:
            raise BusFault(f"{self.name} at {self.address}: LTC2672 is above 175 C and has switched its outputs off")

    def output(self, channel: str) -> Quantity:
        """Limits and last value of a channel. Raises KeyError naming the channels that there are."""
        try:
            return self._outputs[channel]
        except KeyError:
            raise KeyError(f"{self.name} has no channel {channel!r}, only {', '.join(self.channels)}") from None
