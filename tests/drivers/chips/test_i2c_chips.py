from __future__ import annotations

import pytest

from drivers import registry
from drivers.chips.ina228 import Ina228
from drivers.chips.pca9535 import Pca9535
from drivers.chips.tmp117 import Tmp117
from drivers.errors import BusFault, Refused, Stale, WrongDevice
from tests.drivers.fakes import Clock, Registers, Smbus, make_pool


class RailChip(Registers):
    def __init__(self) -> None:
        super().__init__({})
        self.reset()

    def reset(self) -> None:
        self.values = {0x00: b"\0\0", 0x01: b"\xfb\x68", 0x02: b"\x10\x00", 0x3E: b"\x54\x49", 0x3F: b"\x22\x81"}
        self.values |= {0x05: b"\x50\x00\x00", 0x06: b"\x0c\x80", 0x07: b"\xff\xff\xf0", 0x08: b"\x00\x00\x0a"}

    def stored(self, register: int, data: bytes) -> None:
        if register == 0 and data[0] & 0x80:
            self.reset()
        else:
            self.values[register] = data


def rail(clock: Clock, chip: Registers, current: float = 0.5) -> Ina228:
    pool = make_pool(clock, i2c=lambda n: Smbus({0x40: chip}))
    device = registry.create("ina228", "rail", "i2c:1:0x40", pool, {"shunt_ohm": 0.05, "max_current_a": current})
    assert isinstance(device, Ina228)
    return device


async def test_rail_in_physical_units(clock: Clock) -> None:
    chip = RailChip()
    monitor = rail(clock, chip)
    assert (await monitor.open()).firmware == "revision 1"
    cal = 13107.2e6 * 0.5 / 2**19 * 0.05 * 4  # 25 mV full scale: the fine range
    assert int.from_bytes(chip.values[2], "big") == round(cal)
    assert chip.values[0] == b"\x00\x10"
    reading = await monitor.read()
    lsb = 0.5 / 2**19
    assert reading.bus_v == pytest.approx(0x50000 * 195.3125e-6)
    assert reading.current_a == pytest.approx(-lsb, rel=1e-3)
    assert reading.power_w == pytest.approx(10 * 3.2 * lsb, rel=1e-3)
    assert reading.die_temperature_c == 25.0
    await monitor.make_safe()
    await monitor.close()


async def test_a_rail_monitor_that_was_reset_is_set_up_again(clock: Clock) -> None:
    chip = RailChip()
    monitor = rail(clock, chip, current=2.0)
    await monitor.open()
    assert chip.values[0] == b"\x00\x00"  # 100 mV: the wide range
    wanted = chip.values[2]
    chip.reset()
    await monitor.read()
    assert chip.values[2] == wanted
    assert monitor.resets == 1
    chip.stored = lambda register, data: None  # type: ignore[method-assign]
    chip.reset()
    with pytest.raises(BusFault, match="rail at i2c:1:0x40: register 0x01 reads 0xfb68 after 0xfb6a"):
        await monitor.read()


async def test_wrong_and_missing_rail_monitor(clock: Clock) -> None:
    chip = RailChip()
    chip.values[0x3F] = b"\x22\x60"
    with pytest.raises(
        WrongDevice,
        match=r"rail at i2c:1:0x40: expected INA228 \(0x5449 at 0x3E, 0x228x at 0x3F\), found 0x5449, 0x2260",
    ):
        await rail(clock, chip).open()
    pool = make_pool(clock, i2c=lambda n: Smbus({}))
    options = {"shunt_ohm": 0.05, "max_current_a": 0.5}
    with pytest.raises(WrongDevice, match=r"found nothing usable \(i2c:1: no acknowledge \(0x41\)\)"):
        await registry.create("ina228", "rail", "i2c:1:0x41", pool, options).open()


class Thermometer(Registers):
    """Ready every read while `running`."""

    def __init__(self) -> None:
        super().__init__({0x00: b"\x80\x00", 0x01: b"\x02\x20", 0x0F: b"\x01\x17"})
        self.countdown = 3
        self.running = True

    def read(self, length: int) -> bytes:
        if self.pointer == 1:
            self.countdown -= 1
            if self.countdown == 0:
                self.values[0] = b"\xfb\x00"
            return b"\x22\x20" if self.running and self.countdown <= 0 else b"\x02\x20"
        return super().read(length)


def thermometer(clock: Clock, chip: Registers) -> Tmp117:
    pool = make_pool(clock, i2c=lambda n: Smbus({0x48: chip}))
    device = registry.create("tmp117", "witness", "i2c:1:0x48", pool, {})
    assert isinstance(device, Tmp117)
    return device


async def test_temperature_waits_for_the_first_conversion_and_notices_the_last(clock: Clock) -> None:
    chip = Thermometer()
    sensor = thermometer(clock, chip)
    assert (await sensor.open()).model == "TMP117"
    assert await sensor.read_celsius() == -10.0
    chip.values[0] = b"\x0c\x80"
    assert await sensor.read_celsius() == 25.0
    chip.running = False
    clock.t += 10
    with pytest.raises(Stale, match=r"witness at i2c:1:0x48: no new conversion for 10\.0 s"):
        await sensor.read_celsius()
    await sensor.make_safe()
    await sensor.close()


async def test_temperature_of_a_part_that_never_converts(clock: Clock) -> None:
    chip = Thermometer()
    chip.countdown = 10**9
    sensor = thermometer(clock, chip)
    await sensor.open()
    with pytest.raises(Stale):
        await sensor.read_celsius()
    chip.values[0x0F] = b"\x01\x90"
    with pytest.raises(WrongDevice, match="found 0x0190"):
        await sensor.open()


class Expander:
    """Byte registers in pairs; addressing alternates within a pair. `pins` is what outputs really were over time."""

    def __init__(self) -> None:
        self.values = bytearray(8)
        self.values[2:4] = self.values[6:8] = b"\xff\xff"
        self.pointer = 0
        self.inputs = 0
        self.pins: list[int] = []
        self.stuck = False

    def write(self, data: bytes) -> None:
        self.pointer = data[0]
        for i, byte in enumerate(data[1:]):
            register = self.pointer & ~1 | (self.pointer + i) & 1
            if not self.stuck or register not in (2, 3):
                self.values[register] = byte
            self.pins.append(self._driven_high())

    def read(self, length: int) -> bytes:
        out = self._driven_high() | self.inputs
        self.values[0:2] = out.to_bytes(2, "little")
        return bytes(self.values[self.pointer & ~1 | (self.pointer + i) & 1] for i in range(length))

    def _driven_high(self) -> int:
        out, direction = (int.from_bytes(self.values[i : i + 2], "little") for i in (2, 6))
        return out & ~direction & 0xFFFF


LINES = {
    "lines": {
        "watchdog": {"port": 0, "bit": 0, "direction": "out"},
        "laser_enable": {"port": 0, "bit": 1, "direction": "out"},
        "quiet": {"port": 0, "bit": 4, "direction": "out", "active_low": True},
        "interlock_ok": {"port": 1, "bit": 0},
        "tripped": {"port": 1, "bit": 1, "active_low": True},
    }
}


def lines(clock: Clock, chip: Expander) -> Pca9535:
    pool = make_pool(clock, i2c=lambda n: Smbus({0x20: chip}))
    device = registry.create("pca9535", "io", "i2c:2:0x20", pool, LINES)
    assert isinstance(device, Pca9535)
    return device


async def test_no_active_high_output_ever_pulses_at_open(clock: Clock) -> None:
    chip = Expander()
    io = lines(clock, chip)
    assert (await io.open()).model == "PCA9535"
    assert all(not pins & 0x02 for pins in chip.pins)
    assert chip.values[6:8] == bytes([0xFF & ~0x13, 0xFF])
    assert not await io.read("laser_enable")
    assert not await io.read("quiet")  # inactive is high
    await io.write("laser_enable", True)
    assert await io.read("laser_enable")
    await io.write("quiet", True)
    assert chip.values[2] == 0x02
    chip.inputs = 0x0100
    assert await io.read("interlock_ok")
    assert await io.read("tripped")
    with pytest.raises(Refused, match=r"io.interlock_ok is an input"):
        await io.write("interlock_ok", True)
    with pytest.raises(KeyError, match="no line 'x'"):
        await io.read("x")
    await io.make_safe()
    assert chip.values[2] == 0x10
    await io.close()


async def test_an_expander_that_was_reset_goes_to_safe_levels_without_a_pulse(clock: Clock) -> None:
    chip = Expander()
    io = lines(clock, chip)
    await io.open()
    await io.write("watchdog", True)
    chip.values[2:4] = chip.values[6:8] = b"\xff\xff"
    chip.pins.clear()
    with pytest.raises(BusFault, match="io at i2c:2:0x20: PCA9535 was reset; all its outputs are at safe levels"):
        await io.write("watchdog", False)
    assert all(not pins & 0x02 for pins in chip.pins)
    await io.write("watchdog", True)
    assert chip.values[2] == 0x11
    chip.stuck = True
    with pytest.raises(BusFault, match="outputs read 0x0011 after 0x0010"):
        await io.write("watchdog", False)


async def test_no_expander(clock: Clock) -> None:
    chip = Expander()
    chip.stuck = True
    with pytest.raises(WrongDevice, match=r"io at i2c:2:0x20: expected PCA9535 .*found outputs 0xffff"):
        await lines(clock, chip).open()
    pool = make_pool(clock, i2c=lambda n: Smbus({}))
    with pytest.raises(WrongDevice, match="no acknowledge"):
        await registry.create("pca9535", "io", "i2c:2:0x20", pool, LINES).open()
