from __future__ import annotations

import errno

import pytest

from sim.busfaults import BusFaults
from sim.chips.checksums import smbus_pec
from sim.chips.ltc2668 import Ltc2668
from sim.chips.slots import I2C_M_RD, I2cBus, PecTarget, Slot, SpiSlot
from sim.chips.tmp117 import Tmp117
from sim.clock import ManualClock
from sim.faults import Fault, FaultSchedule


class Supply:
    """A PMBus-like part: 8B reads two bytes, little-endian; 01 is a byte to write."""

    def __init__(self) -> None:
        self.command, self.operation, self.resets = 0, 0, 0

    def write(self, data: bytes) -> None:
        if data:
            self.command = data[0]
        if len(data) == 2:
            self.operation = data[1]

    def read(self, count: int) -> bytes:
        return b"\x00\xd3"[:count].ljust(count, b"\xff")

    def power_on_reset(self) -> None:
        self.resets += 1


def make(*faults: Fault, pec_part: bool = False) -> tuple[I2cBus, Supply, Slot]:
    clock = ManualClock()
    supply = Supply()
    part = PecTarget(0x58, supply, lambda c: {0x88: 2, 0x01: 1}.get(c, 0)) if pec_part else supply
    slot = Slot("psu", part)
    faulty = BusFaults(clock, "alice", FaultSchedule(faults))
    chip = Tmp117(clock, lambda: 25.0)
    return I2cBus("i2c1", {0x58: (slot, part), 0x48: (Slot("tmp117", chip), chip)}, faulty), supply, slot


def test_pec_known_answer() -> None:
    assert smbus_pec(bytes.fromhex("b088b100d3")) == 0xF6


def test_smbus_transactions_without_pec() -> None:
    bus, supply, _ = make()
    assert bus.smbus(0x48, 1, 0x0F, 3)[:2] == b"\x01\x17"
    assert bus.smbus(0x48, 1, 0x0F, 2)[:1] == b"\x01"
    assert bus.smbus(0x48, 1, 0x0F, 8, b"\x02")[:3] == b"\x02\x01\x17"
    assert bus.smbus(0x58, 0, 0x01, 2, b"\x80")[:1] == b"\x80"
    assert supply.operation == 0x80
    assert len(bus.smbus(0x48, 1, 0, 1)) == 34
    bus.smbus(0x48, 0, 0x05, 8, b"\x02\xbe\xef")
    assert bus.smbus(0x48, 1, 0x05, 3)[:2] == b"\xbe\xef"
    bus.smbus(0x48, 0, 0, 0)
    bus.smbus(0x48, 1, 0, 0)
    bus.smbus(0x58, 0, 0x21, 1)
    assert supply.command == 0x21
    bus.smbus(0x48, 0, 0x06, 3, b"\x12\x34")
    assert bus.smbus(0x48, 1, 0x06, 4, b"\0\0")[:2] == b"\x00\x00"  # a process call writes its word first


@pytest.mark.parametrize(("size", "data", "code"), [(5, b"\x02ab", errno.EOPNOTSUPP), (8, b"\x21", errno.EINVAL)])
def test_unsupported_and_wrong_transactions(size: int, data: bytes, code: int) -> None:
    bus, _, _ = make()
    with pytest.raises(OSError, match=r"SMBus|block") as caught:
        bus.smbus(0x48, 1, 0, size, data)
    assert caught.value.errno == code
    with pytest.raises(OSError, match="length"):
        bus.transfer(0x48, [(0, 3)])


def test_pec_both_ways() -> None:
    bus, supply, _ = make(pec_part=True)
    assert bus.smbus(0x58, 1, 0x88, 3, pec=True)[:2] == b"\x00\xd3"
    assert bus.transfer(0x58, [(0, b"\x88"), (I2C_M_RD, 3)]) == [bytes.fromhex("00d3f6")]
    bus.smbus(0x58, 0, 0x01, 2, b"\x80", pec=True)
    assert supply.operation == 0x80
    with pytest.raises(OSError, match="packet error"):
        bus.transfer(0x58, [(0, b"\x01\x40\x00")])
    assert supply.operation == 0x80
    bus.transfer(0x58, [(0, b"\x01\x41")])
    assert supply.operation == 0x41


def test_a_part_without_pec_fails_the_check() -> None:
    bus, _, _ = make()
    with pytest.raises(OSError, match="packet error") as caught:
        bus.smbus(0x48, 1, 0x0F, 3, pec=True)
    assert caught.value.errno == errno.EBADMSG


def test_corruption_is_caught_by_pec_and_only_by_pec() -> None:
    bus, _, _ = make(Fault(0.0, "crc", "alice.psu"), pec_part=True)
    with pytest.raises(OSError, match="packet error"):
        bus.smbus(0x58, 1, 0x88, 3, pec=True)
    assert bus.smbus(0x58, 1, 0x88, 3)[:2] != b"\x00\xd3"


@pytest.mark.parametrize(
    ("kind", "target", "code"),
    [
        ("nack", "alice.tmp117", errno.ENXIO),
        ("nack", "alice.i2c1", errno.ENXIO),
        ("stuck", "alice.i2c1", errno.ETIMEDOUT),
        ("hang", "alice.i2c1", errno.ETIMEDOUT),
        ("late", "alice.tmp117", errno.ETIMEDOUT),
    ],
)
def test_bus_errors(kind: str, target: str, code: int) -> None:
    bus, _, _ = make(Fault(0.0, kind, target, value=2.0))
    with pytest.raises(OSError, match="i2c1") as caught:
        bus.smbus(0x48, 1, 0x0F, 3)
    assert caught.value.errno == code
    assert bus.hanging() == (kind == "hang")


def test_empty_address_and_empty_slot() -> None:
    bus, _, slot = make()
    slot.present = False
    for address in (0x58, 0x11):
        with pytest.raises(OSError, match="no acknowledge") as caught:
            bus.transfer(address, [(0, b"\x01")])
        assert caught.value.errno == errno.ENXIO


@pytest.mark.parametrize(
    ("kind", "answer"), [("stuck", b"\xff" * 4), ("hang", bytes(4)), ("nack", bytes(4)), (None, b"\x00\x30\x80\x00")]
)
def test_spi_slot(kind: str | None, answer: bytes) -> None:
    out: dict[int, float] = {}
    faults = FaultSchedule([Fault(1.0, kind, "alice.spi0.1")] if kind else [])
    clock = ManualClock()
    chip = Ltc2668(out.__setitem__)
    slot = Slot("ltc2668", chip)
    spi = SpiSlot("spi0.1", slot, chip, BusFaults(clock, "alice", faults))
    spi.transfer(b"\x00\x30\x80\x00", 0, 1)
    clock.t = 1.0
    assert spi.transfer(b"\x00\x30\x40\x00", 0, 1) == answer
    assert out[0] == (2.5 if kind else 1.25)
    assert spi.hanging() == (kind == "hang")
    slot.present = False
    assert spi.transfer(b"\x00", 0, 1) == b"\xff"


def test_spi_garbage_comes_back_but_the_write_arrived() -> None:
    out: dict[int, float] = {}
    chip = Ltc2668(out.__setitem__)
    faults = BusFaults(ManualClock(), "alice", FaultSchedule([Fault(0.0, "garbage", "alice.ltc2668")]))
    spi = SpiSlot("spi0.1", Slot("ltc2668", chip), chip, faults)
    assert len(spi.transfer(b"\x00\x30\x80\x00", 0, 1)) == 4
    assert out[0] == 2.5
