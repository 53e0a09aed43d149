from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.clock import ManualClock
from sim.instruments import itla_registers as reg
from sim.instruments.itla import Itla, bip4, with_bip4
from tests.sim.fake_ports import FakeModule


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.port = FakeModule("alice", self.clock)
        self.port.laser_line = True
        self.laser = Itla(self.clock, self.port, serial="L0042")

    def raw(self, text: str) -> str:
        self.laser.feed(bytes.fromhex(text))
        return self.laser.take().hex()

    def send(self, register: int, data: int = 0, *, write: bool) -> tuple[int, int]:
        self.laser.feed(with_bip4(int(write), register, data))
        reply = self.laser.take()
        assert bip4(reply) == reply[0] >> 4
        assert reply[0] & 0x0C == 0x04
        return reply[0] & 3, int.from_bytes(reply[2:], "big")

    def write(self, register: int, data: int) -> int:
        return self.send(register, data & 0xFFFF, write=True)[0]

    def read(self, register: int) -> int:
        return self.send(register, write=False)[1]

    def error(self) -> int:
        return self.read(reg.NOP) & 15

    def emit(self) -> None:
        assert self.write(reg.RESENA, 8) == 3
        self.clock.t += 3.0
        self.laser.poll()


@given(st.binary(min_size=4, max_size=4))
def test_bip4_detects_any_single_bit(packet: bytes) -> None:
    whole = with_bip4(packet[0], packet[1], int.from_bytes(packet[2:], "big"))
    for bit in range(32):
        spoilt = (int.from_bytes(whole, "big") ^ 1 << bit).to_bytes(4, "big")
        assert bip4(spoilt) != spoilt[0] >> 4


def test_known_answers() -> None:
    bench = Bench()
    assert bench.raw("00000000") == "54000010"
    for text in ("81320008", "613103e8", "a13500c1", "71361031"):
        packet = bytes.fromhex(text)
        assert bip4(packet) == packet[0] >> 4


def test_enable_is_pending_then_emits() -> None:
    bench = Bench()
    bench.raw("a13500c1")
    bench.raw("71361031")
    bench.raw("613103e8")
    assert bytes.fromhex(bench.raw("81320008"))[0] & 3 == 3
    assert bench.read(reg.NOP) & 0xFF00
    assert not bench.port.laser_set[0]
    assert bench.read(reg.STATUS_W) & 0x4500 == 0x4500  # tuning: frequency and power not there yet
    bench.clock.t = 2.1
    assert bench.read(reg.NOP) & 0xFF00 == 0
    assert bench.port.laser_set == (True, pytest.approx(193.4145e12), 10.0)
    assert bench.read(reg.OOP) == 1000
    assert (bench.read(reg.LF1), bench.read(reg.LF2), bench.read(reg.LF3)) == (193, 4145, 0)
    assert bench.read(reg.RESENA) == 8
    assert bench.read(reg.STATUS_W) & 0x000F == 0x0005  # latched
    bench.write(reg.STATUS_W, 0x00FF)
    assert bench.read(reg.STATUS_W) == 0


def test_disable_is_immediate_even_while_pending() -> None:
    bench = Bench()
    bench.emit()
    bench.write(reg.POWER, 900)
    assert bench.write(reg.RESENA, 0) == 0
    assert not bench.port.laser_set[0]
    bench.clock.t += 10.0
    bench.laser.poll()
    assert not bench.port.laser_set[0]
    assert bench.read(reg.OOP) == 0x10000 - 6000


def test_frequency_is_fixed_while_emitting_but_fine_tuning_is_not() -> None:
    bench = Bench()
    bench.emit()
    assert bench.write(reg.FCF1, 194) == 1
    assert bench.error() == reg.ItlaError.CIE
    assert bench.write(reg.FTF, -1500) == 3
    bench.clock.t += 1.0
    bench.laser.poll()
    assert bench.port.laser_set[1] == pytest.approx(193.4145e12 - 1.5e9)
    assert bench.write(reg.FTF, 7000) == 1
    assert bench.error() == reg.ItlaError.RVE


def test_refusals() -> None:
    bench = Bench()
    assert bench.write(reg.POWER, 2000) == 1
    assert bench.error() == reg.ItlaError.RVE
    assert bench.write(reg.FCF1, 200) == 1
    assert bench.write(0xEE, 0) == 1
    assert bench.error() == reg.ItlaError.RNI
    assert bench.write(reg.OOP, 0) == 1
    assert bench.error() == reg.ItlaError.RNW
    assert bench.write(reg.MODEL, 0) == 1
    assert bench.send(0xEE, write=False)[0] == 1
    bench.write(reg.RESENA, 8)
    assert bench.write(reg.POWER, 1000) == 1
    assert bench.error() == reg.ItlaError.CIP
    assert bench.read(reg.STATUS_F) & reg.STATUS_XEL


def test_frequency_out_of_the_band_is_refused_at_enable() -> None:
    bench = Bench()
    bench.write(reg.FCF1, 191)
    bench.write(reg.FCF2, 0)
    assert bench.write(reg.RESENA, 8) == 1
    assert bench.error() == reg.ItlaError.RVE


def test_grid_and_channel() -> None:
    bench = Bench()
    bench.write(reg.GRID, 500)
    bench.write(reg.CHANNEL, 3)
    bench.write(reg.FCF3, 50)
    assert bench.laser.frequency_hz() == pytest.approx(193.4145e12 + 2 * 50e9 + 50e6)


def test_aea_string_and_its_end() -> None:
    bench = Bench()
    status, length = bench.send(reg.SERIAL, write=False)
    assert status == 2
    text = b"".join(bench.read(reg.AEA_EAR).to_bytes(2, "big") for _ in range((length + 1) // 2))
    assert text[:length] == b"L0042"
    assert bench.send(reg.AEA_EAR, write=False)[0] == 1
    assert bench.error() == reg.ItlaError.ERE
    assert bench.send(reg.CURRENTS, write=False) == (2, 4)


def test_bad_checksum_resend_and_half_packets() -> None:
    bench = Bench()
    assert int(bench.raw("10000000")[1], 16) & 0x8
    assert bench.read(reg.STATUS_W) & reg.STATUS_CEL
    first = with_bip4(0, reg.POWER, 0)
    bench.laser.feed(first)
    reply = bench.laser.take()
    bench.laser.feed(with_bip4(8, reg.NOP, 0))
    assert bench.laser.take() == reply
    bench.laser.feed(b"\x81\x32")
    bench.clock.t += 1.0
    assert bench.raw("00000000")[-2] == "1"


def test_hardware_line_shows_as_disabled() -> None:
    bench = Bench()
    bench.emit()
    bench.port.laser_line = False
    assert bench.read(reg.STATUS_W) & reg.STATUS_DIS
    assert bench.read(reg.OOP) == 0x10000 - 6000


def test_resets() -> None:
    bench = Bench()
    assert bench.read(reg.STATUS_F) & reg.STATUS_MRL
    bench.emit()
    bench.write(reg.FATALT, 0x1234)
    assert bench.read(reg.FATALT) == 0x1234
    bench.write(reg.RESENA, 1)
    assert not bench.port.laser_set[0]
    assert bench.read(reg.NOP) & 0x10 == 0
    bench.clock.t += 1.0
    assert bench.read(reg.NOP) & 0x10
    assert bench.read(reg.STATUS_F) & reg.STATUS_CRL
    assert bench.write(reg.IOCAP, 0x0040) == 0
    assert bench.read(reg.IOCAP) == 0x0044
    assert bench.write(reg.NOP, 0) == 0
    assert bench.laser.due is None


def test_fine_tuning_shows_in_the_reported_frequency() -> None:
    bench = Bench()
    bench.emit()
    bench.write(reg.FTF, 0x10000 - 1234)
    assert bench.read(reg.NOP) & 0x0100
    bench.clock.t += 1.0
    assert bench.read(reg.NOP) & 0x0100 == 0
    assert bench.port.laser_set[1] == pytest.approx(193.4145e12 - 1.234e9)
    mhz = bench.read(reg.LF1) * 1_000_000 + bench.read(reg.LF2) * 100 + bench.read(reg.LF3)
    assert mhz == round(bench.port.laser()[1] / 1e6)
    bench.write(reg.FTF, 6001)
    assert bench.read(reg.NOP) & 0x0F == 3
