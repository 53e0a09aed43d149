"""PMBus supply and EEPROM drivers over their emulated twins, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.chips.eeprom24c64 import Eeprom24c64, Eeprom24c64Options
from drivers.chips.pmbus import (
    PmbusOptions,
    PmbusSupply,
    SupplyStatus,
    from_linear11,
    from_linear16,
    to_linear11,
)
from drivers.errors import BusFault, OutOfRange, Refused, WrongDevice
from sim.chips.eeprom24c64 import Eeprom24c64 as EepromTwin
from sim.chips.pmbus import PmbusSupply as SupplyTwin
from sim.chips.slots import PecTarget
from tests.drivers.fakes import Clock, Smbus, make_pool


class Now:
    """The emulator's clock, moved by the driver's pauses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.t


def supply(clock: Clock) -> tuple[PmbusSupply, SupplyTwin, Smbus]:
    twin = SupplyTwin(Now(clock), lambda: 3.0, lambda: 25.0, serial="P123")
    bus = Smbus({0x58: PecTarget(0x58, twin, twin.length)})
    return PmbusSupply("supply", "i2c:2:0x58", make_pool(clock, i2c=lambda n: bus), PmbusOptions()), twin, bus


def eeprom(clock: Clock) -> tuple[Eeprom24c64, EepromTwin]:
    twin = EepromTwin(Now(clock))
    pool = make_pool(clock, i2c=lambda n: Smbus({0x50: twin}))
    return Eeprom24c64("fru", "i2c:2:0x50", pool, Eeprom24c64Options()), twin


def test_words_of_the_reference() -> None:
    assert from_linear11(0xD280) == 10.0
    assert from_linear16(0x9800, 0x13) == 4.75
    with pytest.raises(BusFault, match="not the linear format"):
        from_linear16(0, 0x40)


@given(st.floats(-1e7, 1e7))
def test_linear11_keeps_three_digits(value: float) -> None:
    assert from_linear11(to_linear11(value)) == pytest.approx(value, rel=1e-3, abs=1e-5)


def test_linear11_says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        to_linear11(1e9)


async def test_a_supply_is_identified_and_read(clock: Clock) -> None:
    device, _, _ = supply(clock)
    identity = await device.open()
    assert (identity.model, identity.serial, identity.firmware) == ("QPSU QP-150-12", "P123", "A3")
    clock.t += 30.0
    reading = await device.read()
    assert reading.vout_v == pytest.approx(11.97, abs=1e-3)
    assert reading.iout_a == pytest.approx(3.0, rel=1e-3)
    assert reading.pin_w > reading.pout_w == pytest.approx(35.9, rel=2e-3)
    assert reading.fan_rpm == pytest.approx(6000.0, rel=2e-3)
    assert reading.status == SupplyStatus(0)


async def test_a_fan_that_stands_still_is_flagged_until_cleared(clock: Clock) -> None:
    device, twin, _ = supply(clock)
    await device.open()
    twin.broken_fan = True
    clock.t += 30.0
    assert SupplyStatus.FAN in (await device.read()).status
    twin.broken_fan = False
    clock.t += 30.0
    assert SupplyStatus.FAN in (await device.read()).status, "latched"
    await device.clear_faults()
    assert (await device.read()).status == SupplyStatus(0)


async def test_a_low_output_and_a_lost_input_are_told(clock: Clock) -> None:
    device, twin, _ = supply(clock)
    await device.open()
    twin.sag_v = 1.0
    assert SupplyStatus.VOUT in (await device.read()).status
    twin.input_v = 20.0
    status = (await device.read()).status
    assert SupplyStatus.OFF in status
    assert SupplyStatus.INPUT in status


async def test_fan_speed_is_checked_written_and_read_back(clock: Clock) -> None:
    device, twin, bus = supply(clock)
    await device.open()
    await device.set_fan(9000.0)
    clock.t += 30.0
    assert twin.fan_rpm() == pytest.approx(9000.0, rel=2e-3)
    with pytest.raises(OutOfRange, match=r"supply\.fan: 100 rpm is outside 1500 to 12000 rpm"):
        await device.set_fan(100.0)
    assert await device.communication_errors() == 0
    chip = bus.chips[0x58]
    chip.write(b"\x3b\x00\x00")  # without its code the write is taken as it is: nothing protects it
    clock.t += 30.0
    assert twin.fan_rpm() < 10.0


async def test_a_wrong_packet_error_code_is_noticed(clock: Clock) -> None:
    device, _, bus = supply(clock)
    await device.open()
    honest = bus.chips[0x58]

    class Garbled:
        def write(self, data: bytes) -> None:
            honest.write(data)

        def read(self, length: int) -> bytes:
            data = honest.read(length)
            return bytes([data[0] ^ 0x10]) + data[1:]

    bus.chips[0x58] = Garbled()
    with pytest.raises(BusFault, match="wrong packet error code"):
        await device.read()


async def test_what_is_no_supply_is_refused(clock: Clock) -> None:
    class Silent:
        def write(self, data: bytes) -> None:
            return None

        def read(self, length: int) -> bytes:
            return bytes(length)

    pool = make_pool(clock, i2c=lambda n: Smbus({0x58: Silent()}))
    with pytest.raises(WrongDevice, match="expected PMBus supply with packet error code"):
        await PmbusSupply("supply", "i2c:2:0x58", pool, PmbusOptions()).open()


async def test_an_eeprom_is_written_page_by_page_and_read_back(clock: Clock) -> None:
    device, twin = eeprom(clock)
    await device.open()
    data = bytes(range(100))
    await device.write(30, data)
    assert twin.content[30:130] == data
    assert await device.read(30, 100) == data
    assert twin.content[29] == 0xFF
    with pytest.raises(ValueError, match="are not in 0 to 8192"):
        await device.write(8190, b"abc")


async def test_a_write_protected_eeprom_is_named(clock: Clock) -> None:
    device, twin = eeprom(clock)
    await device.open()
    twin.protected = True
    with pytest.raises(Refused, match="write-protected"):
        await device.write(0, b"\x01\x02")
    assert twin.content[0] == 0xFF


def test_the_twin_wraps_within_a_page(clock: Clock) -> None:
    _, twin = eeprom(clock)
    twin.write(b"\x00\x1e" + b"abcd")
    assert twin.content[30:32] == b"ab"
    assert twin.content[0:2] == b"cd"
