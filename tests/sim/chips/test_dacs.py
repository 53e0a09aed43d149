from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.chips.ltc2668 import Ltc2668
from sim.chips.ltc2672 import Ltc2672, full_scale_a
from sim.chips.softspan import one_bit_late
from sim.clock import ManualClock
from tests.sim.fake_ports import FakeModule


def heater_dac(die_c: float = 35.0) -> tuple[Ltc2672, FakeModule]:
    module = FakeModule("alice", ManualClock())
    return Ltc2672(module, die_c=lambda: die_c), module


def send(dac: Ltc2672 | Ltc2668, command: int, value: int = 0, mode: int = 0) -> bytes:
    return dac.transfer(bytes([0, command, value >> 8, value & 255]), mode, 1_000_000)


@pytest.mark.parametrize(
    ("span", "amperes"), [(0, 0.0), (1, 3.125e-3), (5, 50e-3), (7, 200e-3), (8, 0.0), (15, 300e-3)]
)
def test_full_scale_at_20_kilohm(span: int, amperes: float) -> None:
    assert full_scale_a(span, 20e3) == pytest.approx(amperes)


class TestLtc2672:
    def test_current_follows_code_and_span(self) -> None:
        dac, module = heater_dac()
        send(dac, 0x62, 5)
        send(dac, 0x32, 0x8000)
        assert module.heaters[2] == pytest.approx(25e-3)
        send(dac, 0x02, 0x4000)
        assert module.heaters[2] == pytest.approx(25e-3)
        send(dac, 0x12)
        assert module.heaters[2] == pytest.approx(12.5e-3)

    def test_hi_z_after_power_on(self) -> None:
        dac, module = heater_dac()
        send(dac, 0x30, 0xFFFF)
        assert module.heaters[0] == 0.0

    @given(st.integers(0, 65535), st.integers(0, 4))
    def test_current_is_code_over_65536(self, code: int, channel: int) -> None:
        dac, module = heater_dac()
        dac.transfer(bytes([0x60 | channel, 0, 5]), 0, 1)
        dac.transfer(bytes([0x30 | channel]) + code.to_bytes(2, "big"), 3, 1)
        assert module.heaters[channel] == pytest.approx(code / 65536 * 0.05)

    def test_a_long_frame_returns_fault_register_and_previous_frame(self) -> None:
        dac, _ = heater_dac()
        send(dac, 0xE0, 5)
        assert send(dac, 0x34, 0x1234) == b"\x00\xe0\x00\x05"
        assert send(dac, 0xF0) == b"\x10\x34\x12\x34"  # channel 4 is open, which shows only when driven
        assert send(dac, 0xF0)[1:] == b"\xf0\x00\x00"

    def test_wrong_length_is_reported_once_and_not_executed(self) -> None:
        dac, module = heater_dac()
        send(dac, 0x60, 5)
        dac.transfer(b"\x30\x80", 0, 1)
        assert module.heaters[0] == 0.0
        assert send(dac, 0xF0)[0] == 0x80
        assert send(dac, 0xF0)[0] == 0x00
        assert dac.transfer(b"", 0, 1) == b""

    def test_over_temperature_flag(self) -> None:
        dac, _ = heater_dac(die_c=180.0)
        assert send(dac, 0xF0)[0] == 0x20

    def test_power_down_reference_and_all_channel_commands(self) -> None:
        dac, module = heater_dac()
        send(dac, 0xE0, 5)
        send(dac, 0xA0, 0x8000)
        assert module.heaters == pytest.approx([0.025] * 5)
        send(dac, 0x41)
        assert module.heaters[1] == 0.0
        send(dac, 0x11)
        assert module.heaters[1] == pytest.approx(0.025)
        send(dac, 0x50)
        assert module.heaters == [0.0] * 5
        send(dac, 0x90)
        send(dac, 0x70, 1)
        assert module.heaters == [0.0] * 5
        send(dac, 0x70, 0)
        send(dac, 0x80, 0x4000)
        send(dac, 0x23, 0x2000)
        assert module.heaters == pytest.approx([0.0125] * 3 + [0.00625] + [0.0125])

    def test_reserved_spans_and_absent_channels_do_nothing(self) -> None:
        dac, module = heater_dac()
        send(dac, 0x60, 5)
        send(dac, 0x60, 9)
        send(dac, 0x37, 0xFFFF)
        send(dac, 0x30, 0x8000)
        assert module.heaters == pytest.approx([0.025, 0, 0, 0, 0])

    def test_toggling_switches_between_two_codes(self) -> None:
        dac, module = heater_dac()
        send(dac, 0xE0, 5)
        send(dac, 0x30, 0x1000)
        send(dac, 0xC0, 1)
        send(dac, 0x00, 0x2000)
        send(dac, 0xD0, 1)
        assert module.heaters[0] == pytest.approx(0.05 / 8)
        send(dac, 0xD0, 0)
        assert module.heaters[0] == pytest.approx(0.05 / 16)

    def test_multiplexer(self) -> None:
        dac, module = heater_dac()
        send(dac, 0x60, 5)
        send(dac, 0x30, 0x8000)
        assert dac.mux_v() == 0.0
        for code, volts in ((0x18, 0.025 * 90), (0x01, 0.625), (0x0A, 1.4 - 0.037), (0x08, 1.25), (0x06, 5.0)):
            send(dac, 0xB0, code)
            assert dac.mux_v() == pytest.approx(volts)
        send(dac, 0xB0, 0x02)
        assert dac.mux_v() == 0.0
        assert module.heaters[0] > 0

    def test_wrong_spi_mode_is_one_bit_late(self) -> None:
        dac, module = heater_dac()
        send(dac, 0x60, 5)
        send(dac, 0x30, 0x8000, mode=1)
        assert module.heaters[0] == 0.0
        assert one_bit_late(b"\x80\x01") == b"\x40\x00"

    def test_power_on_reset_switches_off(self) -> None:
        dac, module = heater_dac()
        send(dac, 0x60, 5)
        send(dac, 0x30, 0x8000)
        dac.power_on_reset()
        assert module.heaters == [0.0] * 5


class TestLtc2668:
    @pytest.mark.parametrize(
        ("span", "code", "volts"),
        [(0, 0x8000, 2.5), (1, 0x8000, 5.0), (2, 0, -5.0), (3, 0x8000, 0.0), (3, 0xC000, 5.0), (4, 0, -2.5)],
    )
    def test_spans(self, span: int, code: int, volts: float) -> None:
        out: dict[int, float] = {}
        dac = Ltc2668(out.__setitem__)
        send(dac, 0x60 | 9, span)
        send(dac, 0x30 | 9, code)
        assert out.get(9, 0.0) == pytest.approx(volts)

    def test_echo_of_the_previous_long_frame(self) -> None:
        dac = Ltc2668(lambda *_: None)
        dac.transfer(b"\xaa\x63\x00\x03", 0, 1)
        assert dac.transfer(b"\x00\x33\x12\x34", 0, 1) == b"\xaa\x63\x00\x03"
        assert dac.transfer(b"\x00\xf0\x00\x00", 0, 1) == b"\x00\x33\x12\x34"

    def test_unwired_outputs_are_not_reported(self) -> None:
        out: dict[int, float] = {}
        dac = Ltc2668(out.__setitem__, wired=1)
        send(dac, 0xA0, 0x8000)
        assert out == {0: 2.5}
        assert dac.voltage(7) == 2.5
        send(dac, 0x50)
        assert out == {0: 0.0}
