"""ADS131M08: eight simultaneous 24-bit converters over SPI (Texas Instruments SBAS950; reference hardware A6, B).

A frame is ten 24-bit words: response, eight channels, CRC. The response to a command comes one frame later; to the
null command it is the status word. The converters fill a FIFO of two.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, model_validator

from drivers.bus.crc import crc16
from drivers.bus.pool import BusPool
from drivers.errors import BusFault, Refused, Stale, Timeout
from drivers.options import DriverOptions, identify, wrong_device
from drivers.roles import Identity

NULL, RESET = 0x0000, 0x0011
RREG, WREG, WREG_ACK = 0xA000, 0x6000, 0x4000
RESET_DONE = 0xFF28
ID, STATUS, MODE, CLOCK, GAIN1, THRESHOLD, CHANNEL0 = 0x00, 0x01, 0x02, 0x03, 0x04, 0x07, 0x09
STATUS_CRC, STATUS_RESET = 0x1000, 0x0400
MODE_CLEAR_RESET = 0x0110  # power-on value 0x0510 without the reset flag
WORDS = 10
CHANNELS = 8
SETTLE = 4  # conversions until the third-order filter has forgotten its input before a switch
PATIENCE_S = 0.1  # far beyond a conversion, and beyond what a busy host adds
REFERENCE_V = 1.2
PATTERNS = (0x5555, 0xAAAA)
OSR = (128, 256, 512, 1024, 2048, 4096, 8192, 16256)


def frame(*words: int) -> bytes:
    """Ten 24-bit words, 16-bit values left-aligned, the rest zero."""
    data = b"".join(word.to_bytes(2, "big") + b"\0" for word in words)
    return data.ljust(3 * WORDS, b"\0")


def unpack(answer: bytes) -> tuple[int, list[int]]:
    """(response, eight signed codes) of an incoming frame. Raises BusFault on a wrong CRC."""
    if crc16(answer[:-3], 0xFFFF) != int.from_bytes(answer[-3:-1], "big"):
        raise BusFault(f"ADS131M08: wrong CRC in {answer.hex()}")
    codes = [int.from_bytes(answer[i : i + 3], "big", signed=True) for i in range(3, 3 * (WORDS - 1), 3)]
    return int.from_bytes(answer[:2], "big"), codes


@dataclass(frozen=True)
class AdcSelfTest:
    """V per channel name with the input shorted, and with the internal test signal (about +-160 mV at gain 1).

    `noise`: rms of single conversions with the input shorted, V.
    """

    short: dict[str, float]
    positive: dict[str, float]
    negative: dict[str, float]
    noise: dict[str, float] = field(default_factory=dict)


class Ads131m08Options(DriverOptions):
    channels: dict[str, int] = Field(min_length=1, description="name to channel 0-7")
    gain: Literal[1, 2, 4, 8, 16, 32, 64, 128] = 1
    clock_hz: float = Field(default=8.192e6, gt=0)
    osr: Literal[128, 256, 512, 1024, 2048, 4096, 8192, 16256] = 1024

    @property
    def conversion_s(self) -> float:
        return 2 * self.osr / self.clock_hz

    @property
    def lsb_v(self) -> float:
        return REFERENCE_V / self.gain / 2**23

    @model_validator(mode="after")
    def _distinct(self) -> Ads131m08Options:
        indices = list(self.channels.values())
        if len(set(indices)) != len(indices) or not all(0 <= i < CHANNELS for i in indices):
            raise ValueError("channels: numbers must be distinct and 0 to 7")
        return self


class Ads131m08:
    """Photodiode amplifiers and monitors (role AnalogInputs)."""

    Options = Ads131m08Options

    def __init__(self, name: str, address: str, buses: BusPool, options: Ads131m08Options) -> None:
        self.name = name
        self.address = address
        self.channels = tuple(options.channels)
        self._options = options
        self._index = options.channels
        self._ready = sum(1 << i for i in options.channels.values())
        self._spi = buses.spi(address, name, mode=1, max_hz=8_000_000)
        self._lock = asyncio.Lock()

    async def open(self) -> Identity:
        """Reset, identify and set up. Raises WrongDevice, BusFault, Timeout."""
        expected = "ADS131M08 (0xFF28 after reset, ID 0x28xx)"
        async with self._lock:
            answer = await identify(self.name, self.address, expected, self._reset())
            if answer != RESET_DONE:
                raise wrong_device(self.name, self.address, expected, f"0x{answer:04x} after reset")
            found = await identify(self.name, self.address, expected, self._get(ID))
            if found >> 8 != 0x28:
                raise wrong_device(self.name, self.address, expected, f"ID 0x{found:04x}")
            await self._set_up()
        return Identity("ads131m08", self.address, "ADS131M08", firmware=f"0x{found:04x}")

    async def make_safe(self) -> None:
        """It has no outputs."""

    async def close(self) -> None:
        await self._spi.close()

    async def read_volts(self, samples: int = 1) -> dict[str, float]:
        """Mean of `samples` conversions that ended after the call.

        Raises Stale (part was reset; it is set up again), BusFault (CRC), Timeout (no conversions).
        """
        async with self._lock:
            return await self._means(samples)

    async def self_test(self, samples: int = 16) -> AdcSelfTest:
        """Measure with every input shorted, then on the positive and negative test signal; inputs are back afterwards.

        Raises BusFault, Timeout, Stale.
        """
        async with self._lock:
            try:
                runs = [await self._through(mux, samples) for mux in (1, 2, 3)]
            finally:
                await self._multiplex(0)
        short, positive, negative = [{k: math.fsum(v) / len(v) for k, v in run.items()} for run in runs]
        return AdcSelfTest(short, positive, negative, {k: _rms(v) for k, v in runs[0].items()})

    async def read_series(self, samples: int) -> dict[str, list[float]]:
        """Single conversions, one after another, V per channel name. Raises as `read_volts`."""
        async with self._lock:
            return await self._series(samples)

    async def known_answer(self) -> bool:
        """See the role Probed. Every frame has a CRC, so a wrong one is an error and no answer."""
        async with self._lock:
            return await self._get(ID) >> 8 == 0x28

    async def check_registers(self) -> list[str]:
        """See the role Checked. The current-detection threshold is not used."""
        wrong = []
        async with self._lock:
            for register, value in self._setting().items():
                if (found := await self._get(register)) != value:
                    wrong.append(f"register {register} reads 0x{found:04x}, not 0x{value:04x}")
            before = await self._get(THRESHOLD)
            for pattern in (*PATTERNS, before):
                try:
                    await self._put(THRESHOLD, pattern)
                except (Refused, BusFault) as error:
                    wrong.append(str(error))
        return wrong

    async def _through(self, mux: int, samples: int) -> dict[str, list[float]]:
        await self._multiplex(mux)
        return await self._series(samples)

    async def _series(self, samples: int) -> dict[str, list[float]]:
        await self._frames(2)  # what the FIFO kept is of an unknown age
        codes = [await self._next() for _ in range(samples)]
        return {key: [c[i] * self._options.lsb_v for c in codes] for key, i in self._index.items()}

    async def _means(self, samples: int) -> dict[str, float]:
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples}")
        await self._frames(2)  # what the FIFO kept is of an unknown age
        sums = [0] * CHANNELS
        for _ in range(samples):
            sums = [a + b for a, b in zip(sums, await self._next(), strict=True)]
        scale = self._options.lsb_v / samples
        return {key: sums[i] * scale for key, i in self._index.items()}

    async def _next(self) -> list[int]:
        """The next conversion of all channels in use."""
        patience = math.ceil(max(PATIENCE_S / self._options.conversion_s, 4 * SETTLE))
        for _ in range(patience):
            await asyncio.sleep(self._options.conversion_s)
            status, codes = (await self._frames(1))[0]
            if status & STATUS_RESET:
                await self._set_up()
                raise Stale(f"{self.name} at {self.address}: ADS131M08 was reset and is set up again; read anew")
            if status & self._ready == self._ready:
                return codes
        waited = patience * self._options.conversion_s
        raise Timeout(f"{self.name} at {self.address}: no conversion within {waited:.2g} s; is the ADC clock running?")

    async def _frames(self, count: int) -> list[tuple[int, list[int]]]:
        def check(answers: list[bytes]) -> None:
            for answer in answers:
                self._sound(answer)

        answers = await self._spi.transfer(*[frame(NULL)] * count, harmless=True, check=check)
        return [unpack(a) for a in answers]

    async def _reset(self) -> int:
        await self._spi.transfer(frame(RESET))
        await asyncio.sleep(1e-3)  # 5 us are enough
        return (await self._frames(1))[0][0]

    async def _set_up(self) -> None:
        for register, value in self._setting().items():
            await self._put(register, value)
        await self._multiplex(0)

    def _setting(self) -> dict[int, int]:
        """Register to value, of those that the driver sets once."""
        gain = 0x1111 * (self._options.gain.bit_length() - 1)
        clock = 0xFF02 | OSR.index(self._options.osr) << 2
        return {MODE: MODE_CLEAR_RESET, CLOCK: clock, GAIN1: gain, GAIN1 + 1: gain}

    async def _multiplex(self, mux: int) -> None:
        for index in self._index.values():
            await self._put(CHANNEL0 + 5 * index, mux)
        await asyncio.sleep(SETTLE * self._options.conversion_s)

    async def _get(self, register: int) -> int:
        answers = await self._spi.transfer(
            frame(RREG | register << 7), frame(NULL), harmless=True, check=lambda a: self._sound(a[1])
        )
        return unpack(answers[1])[0]

    async def _put(self, register: int, value: int) -> None:
        answers = await self._spi.transfer(
            frame(WREG | register << 7, value), frame(NULL), harmless=True, check=lambda a: self._sound(a[1])
        )
        said = unpack(answers[1])[0]
        if said != WREG_ACK | register << 7:
            raise Refused(f"{self.name} at {self.address}: write to register {register} answered with 0x{said:04x}")
        if (found := await self._get(register)) != value:
            raise BusFault(
                f"{self.name} at {self.address}: register {register} reads 0x{found:04x} after 0x{value:04x}"
            )

    def _sound(self, answer: bytes) -> None:
        try:
            unpack(answer)
        except BusFault as error:
            raise BusFault(f"{self.name} at {self.address}: {error}") from error


def _rms(volts: list[float]) -> float:
    """About the mean; 0 for less than two values."""
    mean = math.fsum(volts) / len(volts)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in volts) / max(1, len(volts) - 1))
