"""LTC2672 and LTC2668 against small models of their frames."""

from __future__ import annotations

import pytest

from drivers import registry
from drivers.chips.ltc2668 import Ltc2668
from drivers.chips.ltc2672 import Ltc2672
from drivers.errors import BusFault, OutOfRange, WrongDevice
from tests.drivers.fakes import Clock, Spi, make_pool


class HeaterChip:
    """24-bit frames; fault register of the frame before. Channels in `open_load` are open."""

    def __init__(self) -> None:
        self.codes = [0] * 5
        self.inputs = [0] * 5
        self.spans = [0] * 5
        self.new_spans = [0] * 5
        self.mux = -1
        self.open_load = {4}
        self.fault = 0
        self.stuck: int | None = None

    def __call__(self, frame: bytes) -> bytes:
        answer = bytes([self.fault if self.stuck is None else self.stuck]) + bytes(len(frame) - 1)
        self.fault &= 0x20
        if len(frame) != 3:
            self.fault |= 0x80
            return answer
        command, n, data = frame[0] & 0xF0, frame[0] & 0x0F, frame[1] << 8 | frame[2]
        if command in (0x00, 0x30):
            self.inputs[n] = data
        if command == 0x60:
            self.new_spans[n] = data & 0xF
        if command in (0x10, 0x30):
            self.codes[n], self.spans[n] = self.inputs[n], self.new_spans[n]
        if command == 0xB0:
            self.mux = data
        self.fault |= sum(1 << i for i in self.open_load if self.codes[i] and self.spans[i])
        return answer


HEATERS = {
    "channels": {"filter": 0, "phase": {"index": 2, "max_current_a": 0.02, "slew_a_per_s": 0.01}, "spare": 4},
    "max_current_a": 0.033,
}


def heaters(clock: Clock, chip: HeaterChip) -> Ltc2672:
    device = registry.create("ltc2672", "heaters", "spi:0.0", make_pool(clock, spi=lambda b, s: Spi(chip)), HEATERS)
    assert isinstance(device, Ltc2672)
    return device


async def test_heaters_open_at_zero_and_drive_the_code_of_the_law(clock: Clock) -> None:
    chip = HeaterChip()
    chip.codes = chip.inputs = [0xFFFF] * 5
    bank = heaters(clock, chip)
    identity = await bank.open()
    assert (identity.model, identity.address) == ("LTC2672-16", "spi:0.0")
    assert chip.spans == [5, 0, 5, 0, 5]
    assert chip.codes == [0] * 5
    assert bank.max_current_a == 0.033
    await bank.set_current("filter", 0.025)
    assert chip.codes[0] == 32768  # half of 50 mA at 20 kOhm
    assert bank.current("filter") == pytest.approx(0.025)
    await bank.monitor("phase")
    assert chip.mux == 0x1A
    await bank.monitor(None)
    assert chip.mux == 0
    await bank.make_safe()
    assert chip.codes == [0] * 5
    await bank.close()


async def test_open_circuits_are_told_by_name(clock: Clock) -> None:
    chip = HeaterChip()
    bank = heaters(clock, chip)
    await bank.open()
    assert await bank.open_circuits() == frozenset()
    await bank.set_current("spare", 0.001)
    assert await bank.open_circuits() == {"spare"}


async def test_a_refused_current_writes_nothing(clock: Clock) -> None:
    chip = HeaterChip()
    bank = heaters(clock, chip)
    await bank.open()
    before = list(chip.codes)
    with pytest.raises(OutOfRange, match=r"heaters\.filter: 0\.034 A is above the upper limit 0\.033 A"):
        await bank.set_current("filter", 0.034)
    with pytest.raises(OutOfRange, match=r"heaters\.phase: .*slew limit 0\.01 A/s"):
        await bank.set_current("phase", 0.02)
    assert chip.codes == before
    clock.t += 1.0
    await bank.set_current("phase", 0.01)
    with pytest.raises(KeyError, match="has no channel 'x', only filter, phase, spare"):
        await bank.set_current("x", 0.0)


async def test_the_fault_register_is_judged_at_every_write(clock: Clock) -> None:
    chip = HeaterChip()
    bank = heaters(clock, chip)
    await bank.open()
    chip.fault |= 0x20
    with pytest.raises(BusFault, match="above 175 C"):
        await bank.set_current("filter", 0.001)
    with pytest.raises(BusFault, match="175"):
        await bank.make_safe()
    assert chip.codes == [0] * 5  # every channel was written all the same
    chip.stuck = 0x80
    with pytest.raises(BusFault, match="refused for its length"):
        await bank.set_current("filter", 0.001)
    chip.stuck = 0xFF
    with pytest.raises(BusFault, match="nothing drives the line"):
        await bank.open_circuits()


@pytest.mark.parametrize(("stuck", "found"), [(0x00, "0x00"), (0xFF, "0xff"), (0x80, "0x80 after a right frame")])
async def test_no_heater_chip(clock: Clock, stuck: int, found: str) -> None:
    chip = HeaterChip()
    chip.stuck = stuck
    with pytest.raises(WrongDevice, match=f"heaters at spi:0.0: expected LTC2672 .*found.*{found}"):
        await heaters(clock, chip).open()


async def test_no_bus_at_all(clock: Clock) -> None:
    device = registry.create("ltc2672", "heaters", "spi:0.0", make_pool(clock), HEATERS)
    with pytest.raises(WrongDevice, match=r"found nothing usable .*no bus"):
        await device.open()


class BiasChip:
    """32-bit frames, each echoed by the next; `flip` corrupts so many echoes."""

    def __init__(self) -> None:
        self.codes = [0x8000] * 16
        self.inputs = [0x8000] * 16
        self.spans = [0] * 16
        self.new_spans = [0] * 16
        self.last = bytes(4)
        self.flip = 0
        self.log: list[tuple[int, int, int]] = []

    def __call__(self, frame: bytes) -> bytes:
        answer = self.last
        if self.flip:
            self.flip -= 1
            answer = answer[:3] + bytes([answer[3] ^ 1])
        self.last = frame
        command, n, data = frame[1] & 0xF0, frame[1] & 0x0F, frame[2] << 8 | frame[3]
        if command in (0x00, 0x30):
            self.inputs[n] = data
        if command == 0x60:
            self.new_spans[n] = data
        if command in (0x10, 0x30):
            self.codes[n], self.spans[n] = self.inputs[n], self.new_spans[n]
            self.log.append((n, self.spans[n], self.codes[n]))
        return answer


BIAS = {
    "channels": {
        "C": {"index": 0, "span": 3, "low_v": -8, "high_v": 8},
        "voa": {"index": 3, "span": 0, "safe_v": 5.0},
    }
}


def biases(clock: Clock, chip: BiasChip) -> Ltc2668:
    device = registry.create("ltc2668", "bias", "spi:0.1", make_pool(clock, spi=lambda b, s: Spi(chip)), BIAS)
    assert isinstance(device, Ltc2668)
    return device


async def test_biases(clock: Clock) -> None:
    chip = BiasChip()
    bank = biases(clock, chip)
    assert (await bank.open()).driver == "ltc2668"
    # span and safe code come into force at once: no other output ever appears
    assert chip.log == [(0, 3, 0x8000), (3, 0, 0xFFFF)]
    assert bank.limits("C") == (-8.0, 8.0)
    assert bank.limits("voa") == (0.0, 5.0)
    await bank.set_voltage("C", -5.0)
    assert chip.codes[0] == 0x4000
    assert bank.voltage("C") == -5.0
    with pytest.raises(OutOfRange, match=r"bias\.C: 9 V is above the upper limit 8 V"):
        await bank.set_voltage("C", 9.0)
    assert chip.codes[0] == 0x4000
    with pytest.raises(KeyError, match="only C, voa"):
        bank.voltage("x")
    await bank.make_safe()
    assert (chip.codes[0], chip.codes[3]) == (0x8000, 0xFFFF)
    await bank.close()


async def test_a_wrong_echo_is_retried_then_told(clock: Clock) -> None:
    chip = BiasChip()
    bank = biases(clock, chip)
    await bank.open()
    chip.flip = 2
    await bank.set_voltage("C", 1.0)
    chip.flip = 100
    with pytest.raises(BusFault, match=r"bias at spi:0.1: sent 0030.*echo says"):
        await bank.set_voltage("C", 2.0)
    assert bank.voltage("C") == pytest.approx(1.0, abs=1e-3)


async def test_no_bias_chip(clock: Clock) -> None:
    pool = make_pool(clock, spi=lambda b, s: Spi(lambda frame: bytes(len(frame))))
    with pytest.raises(WrongDevice, match=r"bias at spi:0.1: expected LTC2668 .*found 00000000"):
        await registry.create("ltc2668", "bias", "spi:0.1", pool, BIAS).open()
