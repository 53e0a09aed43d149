from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import registry
from drivers.bus.crc import crc16
from drivers.chips.ads131m08 import Ads131m08, frame, unpack
from drivers.errors import BusFault, Refused, Stale, Timeout, WrongDevice
from tests.drivers.fakes import Clock, Spi, make_pool


class Converter:
    """Ten-word frames, answers one frame later, a FIFO of two; converts by the test's clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.reset()
        self.answer = 0x0500
        self.volts = [0.1 * i for i in range(8)]
        self.corrupt = 0
        self.stopped = False
        self.id = 0x2800
        self.no_write = False

    def reset(self) -> None:
        self.registers = {0: 0x2800, 2: 0x0510, 3: 0xFF0E, 4: 0, 5: 0} | {9 + 5 * i: 0 for i in range(8)}
        self.was_reset = True
        self.seen = -1
        self.fifo: list[list[float]] = []

    def _convert(self) -> list[float]:
        mux = [self.registers[9 + 5 * i] & 3 for i in range(8)]
        return [(v, 0.0, 0.16, -0.16)[m] for v, m in zip(self.volts, mux, strict=True)]

    def __call__(self, sent: bytes) -> bytes:
        now = int(self.clock.t / 250e-6)
        fresh = now > self.seen and not self.stopped
        if fresh:
            self.seen = now
            self.fifo = [*self.fifo, self._convert()][-2:]
        ready = 0xFF if self.fifo else 0
        values = self.fifo.pop(0) if self.fifo else [0.0] * 8
        status = 0x0100 | (0x0400 if self.was_reset else 0) | ready
        response = status if self.answer == -1 else self.answer
        words = response.to_bytes(2, "big") + b"\0"
        for v in values:
            words += round(v / 1.2 * 2**23).to_bytes(3, "big", signed=True)
        out = words + crc16(words, 0xFFFF).to_bytes(2, "big") + b"\0"
        if self.corrupt:
            self.corrupt -= 1
            out = bytes([out[0] ^ 0x80]) + out[1:]
        self._command(sent)
        return out

    def _command(self, sent: bytes) -> None:
        command, register = int.from_bytes(sent[:2], "big"), sent[0] << 8 & 0x1F00 | sent[1] & 0x80
        register >>= 7
        self.answer = -1
        if command == 0x0011:
            self.reset()
            self.answer = 0xFF28
        elif command & 0xE000 == 0xA000:
            self.answer = self.id if register == 0 else self.registers[register]
        elif command & 0xE000 == 0x6000:
            self.answer = 0x4000 | register << 7
            if not self.no_write:
                self.registers[register] = int.from_bytes(sent[3:5], "big")
            if register == 2 and not self.registers[2] & 0x0400:
                self.was_reset = False


OPTIONS = {"channels": {"PA0": 0, "PA1": 1, "short": 7}}


def inputs(clock: Clock, chip: Converter, **options: object) -> Ads131m08:
    pool = make_pool(clock, spi=lambda b, s: Spi(chip))
    device = registry.create("ads131m08", "adc", "spi:1.0", pool, OPTIONS | options)
    assert isinstance(device, Ads131m08)
    return device


@given(st.binary(min_size=30, max_size=30), st.integers(0, 215), st.data())
def test_no_single_flipped_bit_passes(data: bytes, bit: int, draw: st.DataObject) -> None:
    words = data[:27]
    good = words + crc16(words, 0xFFFF).to_bytes(2, "big") + b"\0"
    response, codes = unpack(good)
    assert response == int.from_bytes(data[:2], "big")
    assert codes[0] == int.from_bytes(data[3:6], "big", signed=True)
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BusFault, match="wrong CRC"):
        unpack(bytes(bad))


def test_frame_layout() -> None:
    assert frame(0x0011) == b"\x00\x11\x00" + bytes(27)
    assert frame(0x6000 | 3 << 7, 0xFF0E)[:6] == b"\x61\x80\x00\xff\x0e\x00"


async def test_volts_are_of_conversions_after_the_call(clock: Clock) -> None:
    chip = Converter(clock)
    adc = inputs(clock, chip)
    assert (await adc.open()).firmware == "0x2800"
    assert chip.registers[3] == 0xFF0E
    assert chip.registers[2] == 0x0110
    await adc.read_volts()
    chip.fifo = [[0.9] * 8, [0.9] * 8]  # of long ago
    volts = await adc.read_volts(4)
    assert volts == pytest.approx({"PA0": 0.0, "PA1": 0.1, "short": 0.7}, abs=1e-6)
    chip.corrupt = 1
    assert (await adc.read_volts())["PA1"] == pytest.approx(0.1, abs=1e-6)
    chip.corrupt = 99
    with pytest.raises(BusFault, match="wrong CRC"):
        await adc.read_volts()
    chip.corrupt = 0
    with pytest.raises(ValueError, match="samples"):
        await adc.read_volts(0)
    await adc.make_safe()
    await adc.close()


async def test_self_test_restores_the_inputs(clock: Clock) -> None:
    chip = Converter(clock)
    adc = inputs(clock, chip)
    await adc.open()
    result = await adc.self_test(2)
    assert result.short == pytest.approx({"PA0": 0.0, "PA1": 0.0, "short": 0.0}, abs=1e-6)
    assert result.positive["PA1"] == pytest.approx(0.16, abs=1e-6)
    assert result.negative["PA1"] == pytest.approx(-0.16, abs=1e-6)
    assert (await adc.read_volts())["PA1"] == pytest.approx(0.1, abs=1e-6)


async def test_a_converter_that_was_reset_or_stands_still(clock: Clock) -> None:
    chip = Converter(clock)
    adc = inputs(clock, chip, osr=4096, gain=1)
    await adc.open()
    chip.reset()
    with pytest.raises(Stale, match=r"adc at spi:1.0: ADS131M08 was reset"):
        await adc.read_volts()
    assert chip.registers[3] == 0xFF02 | 5 << 2
    await adc.read_volts()
    chip.stopped = True
    with pytest.raises(Timeout, match="is the ADC clock running"):
        await adc.read_volts()


async def test_wrong_converter(clock: Clock) -> None:
    chip = Converter(clock)
    chip.id = 0x2400
    with pytest.raises(WrongDevice, match=r"adc at spi:1.0: expected ADS131M08 .*found ID 0x2400"):
        await inputs(clock, chip).open()
    pool = make_pool(clock, spi=lambda b, s: Spi(lambda f: bytes(len(f))))
    with pytest.raises(WrongDevice, match="wrong CRC"):
        await registry.create("ads131m08", "adc", "spi:1.0", pool, OPTIONS).open()
    chip = Converter(clock)
    adc = inputs(clock, chip)
    chip.no_write = True
    with pytest.raises(BusFault, match="register 2 reads 0x0510 after 0x0110"):
        await adc.open()


async def test_an_unacknowledged_write_is_refused(clock: Clock) -> None:
    chip = Converter(clock)
    adc = inputs(clock, chip)
    await adc.open()
    plain = chip._command

    def deaf(sent: bytes) -> None:
        plain(sent)
        if sent[0] & 0xE0 == 0x60:
            chip.answer = -1

    chip._command = deaf  # type: ignore[method-assign]
    with pytest.raises(Refused, match="write to register 9 answered with 0x01"):
        await adc.self_test()
