from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.chips.ads131m08 import Ads131m08
from sim.chips.analog import Analog, AnalogBoard
from sim.chips.checksums import crc16_ansi, crc16_ccitt
from sim.clock import ManualClock

LSB = 1.2 / (1 << 23)


class Bench:
    def __init__(self, volts: float = 0.5) -> None:
        self.clock = ManualClock()
        self.pins = np.full(8, volts)
        self.chip = Ads131m08(self.clock, lambda: self.pins.copy(), np.random.default_rng(1))

    def frame(self, *words: int, mode: int = 1, size: int = 3) -> bytes:
        tx = b"".join(w.to_bytes(2, "big") + bytes(size - 2) for w in words)
        return self.chip.transfer(tx.ljust(10 * size, b"\0"), mode, 8_000_000)

    def ask(self, *words: int) -> int:
        self.frame(*words)
        return int.from_bytes(self.frame(0)[:2], "big")

    def codes(self) -> list[int]:
        rx = self.frame(0)
        return [int.from_bytes(rx[3 + 3 * c : 6 + 3 * c], "big", signed=True) for c in range(8)]

    def write(self, address: int, *values: int) -> int:
        return self.ask(0x6000 | address << 7 | len(values) - 1, *values)


def test_checksums_known_answers() -> None:
    assert crc16_ccitt(b"123456789") == 0x29B1
    assert crc16_ansi(b"123456789", 0) == 0xFEE8


def test_reset_answers_and_defaults() -> None:
    bench = Bench()
    assert bench.ask(0x0011) == 0xFF28
    assert bench.ask(0xA000) == 0x2800
    assert bench.ask(0xA000 | 2 << 7) == 0x0510
    assert bench.ask(0xA000 | 3 << 7) == 0xFF0E
    assert bench.ask(0) & 0x0F00 == 0x0500


def test_a_short_reset_frame_is_not_a_reset() -> None:
    bench = Bench()
    bench.chip.transfer(b"\x00\x11\x00", 1, 1)
    assert int.from_bytes(bench.frame(0)[:2], "big") == 0x0011


def test_output_crc_covers_response_and_channels() -> None:
    rx = Bench().frame(0)
    assert crc16_ccitt(rx[:27]) == int.from_bytes(rx[27:29], "big")
    assert rx[29] == 0


def test_wreg_acknowledge_and_multiple_rreg() -> None:
    bench = Bench()
    assert bench.write(0x04, 0x1111, 0x2222) == 0x4000 | 4 << 7 | 1
    bench.frame(0xA000 | 4 << 7 | 1)
    rx = bench.frame(0)
    assert [int.from_bytes(rx[3 * i : 3 * i + 2], "big") for i in range(3)] == [0xE000 | 4 << 7 | 1, 0x1111, 0x2222]
    assert crc16_ccitt(rx[:9]) == int.from_bytes(rx[9:11], "big")


def test_reset_flag_in_status_is_cleared_by_mode() -> None:
    bench = Bench()
    bench.write(2, 0x0110)
    assert bench.ask(0) & 0x0400 == 0
    bench.write(2, 0x0510)  # cannot be set
    assert bench.ask(0) & 0x0400 == 0


@given(st.floats(-1.19, 1.19))
def test_code_is_volts_over_lsb(volts: float) -> None:
    bench = Bench(volts)
    assert np.array(bench.codes()) * LSB == pytest.approx([volts] * 8, abs=2e-5)


def test_clips_at_full_scale_and_gain() -> None:
    assert Bench(2.0).codes() == [(1 << 23) - 1] * 8
    bench = Bench(-0.1)
    bench.write(4, 0x0003)
    assert bench.codes()[:2] == pytest.approx([-0.8 / LSB, -0.1 / LSB], abs=400)


def test_noise_is_about_two_microvolts() -> None:
    bench = Bench(0.3)
    readings = np.array([bench.codes() for _ in range(300)]) * LSB
    assert 1e-6 < readings.std() < 2e-6
    bench.write(3, 0xFF02)
    assert np.array([bench.codes() for _ in range(300)]).std() * LSB > 3e-6


def test_test_signals_of_the_multiplexer_and_disabled_channels() -> None:
    bench = Bench(0.5)
    for channel, mux in ((0, 1), (1, 2), (2, 3)):
        bench.write(9 + 5 * channel, mux)
    bench.write(3, 0x7F0E)
    volts = np.array(bench.codes()) * LSB
    assert volts == pytest.approx([0.0, 0.16, -0.16, 0.5, 0.5, 0.5, 0.5, 0.0], abs=2e-5)


def test_calibration_registers() -> None:
    bench = Bench(0.5)
    bench.write(0x0A, 0x1000, 0x0000, 0x4000, 0x0000)
    assert bench.codes()[0] == pytest.approx((0.5 / LSB - (0x1000 << 8)) * 0.5, abs=100)


def test_after_a_pause_the_first_frame_is_stale() -> None:
    bench = Bench(0.1)
    bench.clock.t = 1.0
    bench.codes()
    bench.codes()
    bench.pins[:] = 0.9
    bench.clock.t = 2.0
    assert bench.codes()[0] * LSB == pytest.approx(0.1, abs=1e-4)
    assert bench.codes()[0] * LSB == pytest.approx(0.9, abs=1e-4)


def test_at_the_conversion_rate_each_frame_is_the_latest() -> None:
    bench = Bench(0.1)
    for step in range(1, 20):
        bench.clock.t = step / bench.chip.rate_hz
        bench.pins[:] = 0.01 * step
        assert bench.codes()[3] * LSB == pytest.approx(0.01 * step, abs=1e-4)
    bench.clock.t += 0.2 / bench.chip.rate_hz  # nothing new yet: the same sample again, no data-ready bits
    rx = bench.frame(0)
    assert rx[1] == 0
    assert bench.chip.rate_hz == pytest.approx(4000.0)


def test_standby_holds_and_wakeup_starts_again() -> None:
    bench = Bench(0.1)
    bench.codes()
    assert bench.ask(0x0022) == 0x0022
    bench.pins[:] = 0.7
    assert bench.codes()[0] * LSB == pytest.approx(0.1, abs=1e-4)
    assert bench.ask(0x0033) == 0x0033
    assert bench.codes()[0] * LSB == pytest.approx(0.7, abs=1e-4)


def test_lock_refuses_writes() -> None:
    bench = Bench()
    assert bench.ask(0x0555) == 0x0555
    bench.write(4, 0x7777)
    assert bench.ask(0xA000 | 4 << 7) == 0
    assert bench.ask(0) & 0x8000
    bench.ask(0x0655)
    bench.write(4, 0x7777)
    assert bench.ask(0xA000 | 4 << 7) == 0x7777
    bench.write(0, 0xFFFF)
    assert bench.ask(0xA000) == 0x2800


def test_input_crc_blocks_all_but_wreg() -> None:
    bench = Bench()
    bench.write(2, 0x1510)
    bench.frame(0xA000, 0x1234)
    assert int.from_bytes(bench.frame(0, crc16_ccitt(bytes(3)))[:2], "big") & 0x1000
    command = (0xA000).to_bytes(2, "big") + b"\0"
    bench.frame(0xA000, crc16_ccitt(command))
    assert int.from_bytes(bench.frame(0, crc16_ccitt(bytes(3)))[:2], "big") == 0x2800
    bench.frame(0x6000 | 2 << 7, 0x0510, 0)
    assert bench.ask(0xA000) == 0x2800


def test_other_word_lengths_crc_type_and_map_checksum() -> None:
    bench = Bench(0.25)
    assert bench.ask(0xA000 | 0x3E << 7) == 0
    bench.write(2, 0x2910)
    before = bench.ask(0xA000 | 0x3E << 7)
    rx = bench.frame(0)
    assert crc16_ansi(rx[:27]) == int.from_bytes(rx[27:29], "big")
    bench.write(4, 1)
    assert bench.ask(0xA000 | 0x3E << 7) != before
    for wlength, size, scale in ((0, 2, 1 << 8), (2, 4, 1 / 256), (3, 4, 1)):
        fresh = Bench(0.25)
        fresh.write(2, 0x0010 | wlength << 8)
        got = fresh.frame(0, size=size)
        assert int.from_bytes(got[size : 2 * size], "big", signed=True) * scale * LSB == pytest.approx(0.25, abs=1e-4)


def test_wrong_spi_mode_gives_garbage() -> None:
    bench = Bench()
    rx = bench.frame(0xA000, mode=0)
    assert crc16_ccitt(rx[:27]) != int.from_bytes(rx[27:29], "big")


def test_log_amplifier() -> None:
    currents = np.array([1e-7, 1e-12, 1e-9, 1e-5, 1e-4, 0.0, 1e-10, 1e-3])
    board = AnalogBoard(Analog.nominal(), lambda: currents, lambda: 3.0, np.random.default_rng(2), shorted=7)
    volts = np.mean([board.volts() for _ in range(50)], axis=0)
    assert volts == pytest.approx([0.6, 0.0, 0.75, 1.0, 1.2, 0.0, 0.0, 0.0], abs=1e-4)
