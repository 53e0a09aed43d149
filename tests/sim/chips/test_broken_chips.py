"""Each fault of a chip at the chip's own pins and registers, beside what a whole one does."""

from __future__ import annotations

import numpy as np
import pytest

from sim.chips.ads131m08 import Ads131m08
from sim.chips.checksums import smbus_pec
from sim.chips.eeprom24c64 import Eeprom24c64
from sim.chips.ina228 import Ina228
from sim.chips.ltc2668 import Ltc2668
from sim.chips.ltc2672 import Ltc2672
from sim.chips.pca9535 import Pca9535
from sim.chips.pmbus import PmbusSupply, linear11_value
from sim.chips.slots import PecTarget
from sim.chips.tmp117 import Tmp117
from sim.chips.watchdog import Watchdog
from sim.clock import ManualClock
from sim.trouble import Trouble
from tests.sim.fake_ports import FakeModule


def spoil(trouble: Trouble, kind: str, place: str = "", value: float | None = None) -> None:
    trouble.set({(kind, place): value})


class Heaters:
    """A current DAC with channels 0 to 2 on the 50 mA span at code 0x8000: 25 mA each."""

    def __init__(self) -> None:
        self.module = FakeModule("alice", ManualClock())
        self.dac = Ltc2672(self.module)
        self.send(0xE0, 5)
        for channel in range(3):
            self.send(0x30 | channel, 0x8000)

    def send(self, command: int, value: int = 0) -> bytes:
        return self.dac.transfer(bytes([0, command, value >> 8, value & 255]), 0, 1)


@pytest.mark.parametrize(
    ("kind", "value", "amperes"),
    [("stuck", 0x4000, 12.5e-3), ("offset", 0x1000, 28.125e-3), ("gain", 0.5, 12.5e-3), ("stuck", None, 0.0)],
)
def test_a_current_is_wrong_at_once_and_after_the_next_write(kind: str, value: float | None, amperes: float) -> None:
    h = Heaters()
    spoil(h.dac.trouble, kind, "1", value)
    assert h.module.heaters[:3] == pytest.approx([25e-3, amperes, 25e-3])
    h.send(0x31, 0x8000)
    assert h.module.heaters[1] == pytest.approx(amperes)
    h.dac.trouble.set({})
    assert h.module.heaters[1] == pytest.approx(25e-3)


def test_a_noisy_current_wanders() -> None:
    h, seen = Heaters(), set()
    for _ in range(5):
        spoil(h.dac.trouble, "noisy", "1")
        seen.add(h.module.heaters[1])
    assert len(seen) == 5
    assert h.module.heaters[0] == 25e-3


def test_outputs_are_exchanged() -> None:
    h = Heaters()
    h.send(0x31, 0x4000)
    spoil(h.dac.trouble, "swapped", "0-1")
    assert h.module.heaters[:3] == pytest.approx([12.5e-3, 25e-3, 25e-3])
    h.send(0x30, 0)
    assert h.module.heaters[:3] == pytest.approx([12.5e-3, 0.0, 25e-3])


def test_echo_and_flags_are_wrong() -> None:
    h = Heaters()
    h.send(0x30, 0x1234)
    spoil(h.dac.trouble, "echo", "", 0x10)
    assert h.send(0xF0)[1:] == bytes([0x20, 0x02, 0x24])
    spoil(h.dac.trouble, "flags")
    assert h.send(0xF0)[0] == 0x20


def test_a_voltage_is_stuck() -> None:
    volts: dict[int, float] = {}
    dac = Ltc2668(volts.__setitem__, 4)
    dac.transfer(bytes([0x30, 0x80, 0x00]), 0, 1)
    spoil(dac.trouble, "stuck", "0", 0x4000)
    assert volts[0] == pytest.approx(1.25)
    dac.transfer(bytes([0x30, 0xFF, 0xFF]), 0, 1)
    assert volts[0] == pytest.approx(1.25)


class Converter:
    def __init__(self) -> None:
        self.chip = Ads131m08(ManualClock(), lambda: np.full(8, 0.5), np.random.default_rng(1))
        self.frame(0)

    def frame(self, *words: int) -> bytes:
        tx = b"".join(w.to_bytes(2, "big") + b"\0" for w in words)
        return self.chip.transfer(tx.ljust(30, b"\0"), 1, 8_000_000)

    def volts(self) -> list[float]:
        self.frame(0)
        rx = self.frame(0)
        return [int.from_bytes(rx[3 + 3 * c : 6 + 3 * c], "big", signed=True) * 1.2 / (1 << 23) for c in range(8)]


@pytest.mark.parametrize(("kind", "volts"), [("stuck", 0.0), ("offset", 0.52), ("gain", 0.45)])
def test_one_channel_of_the_converter_is_wrong(kind: str, volts: float) -> None:
    c = Converter()
    spoil(c.chip.trouble, kind, "3")
    assert c.volts()[2:5] == pytest.approx([0.5, volts, 0.5], abs=1e-4)


def test_a_wrong_reference_is_hidden_from_the_test_signal() -> None:
    c = Converter()
    c.frame(0x6000 | 0x09 << 7, 2)
    spoil(c.chip.trouble, "reference", value=1.25)
    assert c.volts()[:2] == pytest.approx([0.16, 0.4], abs=1e-4)


def test_upset_frames_are_refused_for_their_checksum_or_not_understood() -> None:
    c = Converter()
    spoil(c.chip.trouble, "upset", value=1.0)
    c.frame(0xA000)
    assert int.from_bytes(c.frame(0)[:2], "big") != 0x2800


def read(part: Ina228 | Tmp117, register: int, count: int) -> int:
    part.write(bytes([register]))
    return int.from_bytes(part.read(count), "big")


def test_the_rail_monitor_is_wrong() -> None:
    clock, amperes = ManualClock(), [0.1]
    chip = Ina228(clock, lambda: (4.0, amperes[0]), shunt_ohm=0.05)

    def shunt_a() -> float:
        clock.t += 1.0
        return (read(chip, 4, 3) >> 4) * 312.5e-9 / 0.05

    assert shunt_a() == pytest.approx(0.1, rel=1e-4)
    spoil(chip.trouble, "offset")
    assert shunt_a() == pytest.approx(0.11, rel=1e-4)
    spoil(chip.trouble, "gain")
    assert shunt_a() == pytest.approx(0.08, rel=1e-4)
    spoil(chip.trouble, "voltage", value=0.5)
    clock.t += 1.0
    assert (read(chip, 5, 3) >> 4) * 195.3125e-6 == pytest.approx(2.0, rel=1e-4)
    spoil(chip.trouble, "frozen")
    amperes[0] = 0.2
    assert shunt_a() == pytest.approx(0.1, rel=1e-4)


def test_the_witness_is_wrong() -> None:
    clock, celsius = ManualClock(), [25.0]
    chip = Tmp117(clock, lambda: celsius[0])
    spoil(chip.trouble, "unready")
    clock.t = 10.0
    assert read(chip, 0, 2) == 0x8000
    assert not read(chip, 1, 2) & 0x2000
    spoil(chip.trouble, "offset", value=2.0)
    clock.t = 20.0
    assert read(chip, 0, 2) == 27 * 128
    spoil(chip.trouble, "frozen")
    celsius[0], clock.t = 40.0, 30.0
    assert read(chip, 0, 2) == 27 * 128


def test_pins_of_the_expander_are_tied_or_not_driven() -> None:
    heard: list[int] = []
    chip = Pca9535(lambda: 0x0100, heard.append)
    for register, value in ((2, 0b0110), (3, 0), (6, 0), (7, 0xFF)):
        chip.write(bytes([register, value]))
    assert chip.levels() == 0x0106
    spoil(chip.trouble, "low", "1")
    assert heard[-1] == 0x0104
    spoil(chip.trouble, "high", "0")
    assert heard[-1] == 0x0107
    spoil(chip.trouble, "floating", "2")
    assert heard[-1] == 0x0102
    chip.write(b"\x00")
    assert chip.read(2) == b"\x02\x01"


class Supply:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.part = PmbusSupply(self.clock, lambda: 1.0, lambda: 25.0)
        self.target = PecTarget(0x58, self.part, self.part.length)
        self.clock.t = 60.0

    def word(self, command: int) -> int:
        self.target.write(bytes([command]))
        data = self.target.read(3)
        assert smbus_pec(bytes([0xB0, command, 0xB1]) + data) == 0
        return int.from_bytes(data[:2], "little")


@pytest.mark.parametrize(
    ("kind", "value", "command", "expected", "status"),
    [
        ("sagging", 1.5, 0x8B, 10.49 * 4096, 0x8800),
        ("rising", 1.5, 0x8B, 13.49 * 4096, 0x8020),
        ("input", 38.0, 0x88, 38.0, 0x2008),
        ("hot", 60.0, 0x8D, 95.0, 0x0004),
        ("slow", 0.0, 0x90, 0.0, 0x0400),
        ("slow", 0.5, 0x90, 3000.0, 0x0000),
    ],
)
def test_the_supply_tells_what_is_wrong(kind: str, value: float, command: int, expected: float, status: int) -> None:
    s = Supply()
    assert s.word(0x79) == 0
    spoil(s.target.trouble, kind, value=value)
    word = s.word(command)
    assert (word if command == 0x8B else linear11_value(word)) == pytest.approx(expected, rel=0.02, abs=1.0)
    assert s.word(0x79) == status


def test_the_memory_forgets_bits_and_is_protected() -> None:
    clock = ManualClock()
    chip = Eeprom24c64(clock, bytes(range(16)))
    spoil(chip.trouble, "flipped", "5", 0x81)
    chip.write(b"\x00\x04")
    assert chip.read(3) == bytes([4, 5 ^ 0x81, 6])
    spoil(chip.trouble, "protected")
    chip.write(b"\x00\x04\xaa")
    clock.t = 1.0
    chip.write(b"\x00\x04")
    assert chip.read(2) == bytes([4, 5])


def test_the_watchdog_does_not_trip() -> None:
    clock, rail = ManualClock(), list[bool]()
    dog = Watchdog(clock, set_heater_rail=rail.append, set_laser_enable=lambda _on: None)
    spoil(dog.trouble, "never")
    dog.lines(0b0100)
    clock.t = 60.0
    dog.poll()
    assert (dog.tripped, rail[-1]) == (False, True)
    dog.trouble.set({})
    dog.poll()
    assert (dog.tripped, rail[-1]) == (True, False)
