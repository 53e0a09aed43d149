from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.chips.ina228 import Ina228
from sim.chips.pca9535 import Pca9535
from sim.chips.registers import signed, twos
from sim.chips.tmp117 import Tmp117
from sim.chips.watchdog import Watchdog
from sim.clock import ManualClock


def read(part: object, register: int, count: int) -> int:
    part.write(bytes([register]))  # type: ignore[attr-defined]
    return int.from_bytes(part.read(count), "big")  # type: ignore[attr-defined]


def put(part: object, register: int, value: int) -> None:
    part.write(bytes([register]) + value.to_bytes(2, "big"))  # type: ignore[attr-defined]


@given(st.integers(-(1 << 19), (1 << 19) - 1))
def test_twos_complement_round_trip(value: int) -> None:
    assert signed(twos(value, 20), 20) == value


class TestTmp117:
    def make(self, celsius: float = 25.0) -> tuple[ManualClock, Tmp117]:
        clock = ManualClock()
        return clock, Tmp117(clock, lambda: celsius)

    def test_no_result_until_the_averaged_conversion_has_ended(self) -> None:
        clock, chip = self.make()
        assert read(chip, 0, 2) == 0x8000
        clock.t = 8 * 0.0155 - 1e-4
        assert read(chip, 0, 2) == 0x8000
        clock.t = 8 * 0.0155
        assert read(chip, 0, 2) == 0x0C80

    @pytest.mark.parametrize(("celsius", "code"), [(25.0, 0x0C80), (-10.0, 0xFB00), (0.0, 0)])
    def test_data_sheet_codes(self, celsius: float, code: int) -> None:
        clock, chip = self.make(celsius)
        clock.t = 1.0
        assert read(chip, 0, 2) == code

    def test_identity_reset_values_and_ready_flag(self) -> None:
        clock, chip = self.make()
        assert read(chip, 0x0F, 2) == 0x0117
        assert read(chip, 1, 2) == 0x0220
        assert (read(chip, 2, 2), read(chip, 3, 2)) == (0x6000, 0x8000)
        clock.t = 1.0
        assert read(chip, 1, 2) == 0x2220
        assert read(chip, 1, 2) == 0x0220  # reading cleared it

    def test_reading_changes_once_a_cycle(self) -> None:
        clock = ManualClock()
        now = [20.0]
        chip = Tmp117(clock, lambda: now[0])
        clock.t = 0.2
        first = read(chip, 0, 2)
        now[0] = 40.0
        clock.t = 1.0
        assert read(chip, 0, 2) == first
        clock.t = 1.2
        assert read(chip, 0, 2) == 40 * 128

    def test_one_shot_returns_to_shutdown(self) -> None:
        clock, chip = self.make()
        put(chip, 1, 0x0C00)
        clock.t = 0.02
        assert read(chip, 0, 2) == 0x0C80
        assert read(chip, 1, 2) & 0x0C00 == 0x0400
        clock.t = 50.0
        assert read(chip, 0, 2) == 0x0C80

    def test_offset_limits_alerts_and_eeprom(self) -> None:
        clock, chip = self.make(25.0)
        put(chip, 7, 128)
        put(chip, 2, 25 * 128)
        put(chip, 3, 20 * 128)
        clock.t = 1.0
        assert read(chip, 0, 2) == 26 * 128
        assert read(chip, 1, 2) & 0xC000 == 0x8000
        put(chip, 4, 0x8000)
        put(chip, 5, 0xBEEF)
        put(chip, 2, 0x1000)
        put(chip, 4, 0)
        put(chip, 5, 0x0000)
        put(chip, 1, 0x0002)  # soft reset brings the stored values back
        assert read(chip, 5, 2) == 0xBEEF
        assert read(chip, 2, 2) == 0x1000
        assert read(chip, 0, 2) == 0x8000

    def test_pointer_persists_and_the_bus_floats_past_the_register(self) -> None:
        _, chip = self.make()
        chip.write(b"\x0f")
        assert chip.read(2) == chip.read(2) == b"\x01\x17"
        assert chip.read(3) == b"\x01\x17\xff"
        assert chip.read(0) == b""
        chip.write(b"")
        put(chip, 0, 0x1234)  # the result cannot be written
        assert read(chip, 0, 2) == 0x8000


class TestIna228:
    def make(self, volts: float = 4.0, amperes: float = 0.08) -> tuple[ManualClock, Ina228, list[float]]:
        clock, values = ManualClock(), [volts, amperes]
        return clock, Ina228(clock, lambda: (values[0], values[1]), shunt_ohm=0.05), values

    def test_identity(self) -> None:
        _, chip, _ = self.make()
        assert read(chip, 0x3E, 2) == 0x5449
        assert read(chip, 0x3F, 2) >> 4 == 0x228
        assert read(chip, 1, 2) == 0xFB68

    def test_results_follow_the_data_sheets_formulas(self) -> None:
        clock, chip, _ = self.make()
        i_lsb = 0.4 / (1 << 19)
        cal = round(13107.2e6 * i_lsb * 0.05 * 4)
        put(chip, 0, 0x0010)  # ADCRANGE 1
        put(chip, 2, cal)
        assert read(chip, 5, 3) == 0
        clock.t = 1.0
        assert (read(chip, 5, 3) >> 4) * 195.3125e-6 == pytest.approx(4.0, abs=1e-4)
        assert (read(chip, 4, 3) >> 4) * 78.125e-9 == pytest.approx(0.004, abs=1e-7)
        assert (read(chip, 7, 3) >> 4) * i_lsb == pytest.approx(0.08, rel=2e-3)
        assert read(chip, 8, 3) * 3.2 * i_lsb == pytest.approx(0.32, rel=2e-3)
        assert signed(read(chip, 6, 2), 16) * 7.8125e-3 == pytest.approx(35.0)

    def test_energy_and_charge_accumulate_and_reset(self) -> None:
        clock, chip, _ = self.make()
        i_lsb = 4096 / (13107.2e6 * 0.05)
        for clock.t in (0.0, 5.0, 10.0):
            read(chip, 7, 3)
        assert read(chip, 9, 5) * 16 * 3.2 * i_lsb == pytest.approx(3.2, rel=1e-2)
        assert read(chip, 10, 5) * i_lsb == pytest.approx(0.8, rel=1e-2)
        put(chip, 0, 0x4000)
        assert read(chip, 9, 5) == 0

    def test_missing_calibration_reads_no_current(self) -> None:
        clock, chip, _ = self.make()
        put(chip, 2, 0)
        clock.t = 1.0
        assert read(chip, 7, 3) == 0
        assert read(chip, 8, 3) == 0
        assert read(chip, 4, 3) != 0

    def test_reset_bit_and_power_down(self) -> None:
        clock, chip, _ = self.make()
        put(chip, 2, 1234)
        clock.t = 1.0
        assert read(chip, 5, 3)
        put(chip, 0, 0x8000)
        assert read(chip, 2, 2) == 0x1000
        assert read(chip, 5, 3) == 0
        put(chip, 1, 0x0B68)  # shut down
        clock.t = 9.0
        assert read(chip, 5, 3) == 0

    def test_triggered_conversion_happens_once(self) -> None:
        clock, chip, values = self.make()
        put(chip, 1, 0x1B68)  # bus voltage, once
        clock.t = 1.0
        first = read(chip, 5, 3)
        values[0] = 3.0
        clock.t = 2.0
        assert read(chip, 5, 3) == first

    def test_alerts_and_latch(self) -> None:
        clock, chip, values = self.make()
        put(chip, 0x0E, int(3.5 / 3.125e-3))
        put(chip, 0x0B, 0x8000)
        clock.t = 1.0
        assert read(chip, 7, 3)
        values[0] = 3.0
        clock.t = 2.0
        read(chip, 7, 3)
        assert read(chip, 0x0B, 2) & 0x0012 == 0x0012  # over-voltage stays latched, conversion ready
        assert read(chip, 0x0B, 2) & 0x0012 == 0
        assert read(chip, 0x0C, 2) == 0x7FFF


class TestPca9535:
    def make(self, inputs: int = 0) -> tuple[Pca9535, list[int]]:
        seen: list[int] = []
        return Pca9535(lambda: inputs, seen.append), seen

    def test_power_on_is_all_inputs(self) -> None:
        chip, seen = self.make(0x0100)
        chip.write(b"\x00")
        assert chip.read(2) == b"\x00\x01"
        chip.write(b"\x06")
        assert chip.read(2) == b"\xff\xff"
        assert seen == [0x0100]

    def test_direction_before_output_pulses_the_line(self) -> None:
        chip, seen = self.make()
        chip.write(b"\x06\xf0")
        assert seen[-1] == 0x000F
        safe, levels = self.make()
        safe.write(b"\x02\x00\x00")
        safe.write(b"\x06\xf0")
        assert levels[-1] == 0
        assert 0x000F not in levels

    def test_bytes_alternate_within_the_pair(self) -> None:
        chip, _ = self.make()
        chip.write(b"\x02\x11\x22\x33")
        chip.write(b"\x02")
        assert chip.read(3) == b"\x33\x22\x33"
        chip.write(b"\x03")
        assert chip.read(2) == b"\x22\x33"
        assert chip.read(1) == b"\x22"  # a new read starts at the command again

    def test_polarity_inverts_inputs_only_and_inputs_cannot_be_written(self) -> None:
        chip, _ = self.make(0x0100)
        chip.write(b"\x05\x01")
        chip.write(b"\x00\xff")
        assert chip.read(2) == b"\x00\x00"
        chip.write(b"")


class TestWatchdog:
    def make(self) -> tuple[ManualClock, Watchdog, dict[str, bool]]:
        clock, state = ManualClock(), {}
        dog = Watchdog(
            clock,
            set_heater_rail=lambda on: state.__setitem__("heater", on),
            set_laser_enable=lambda on: state.__setitem__("laser", on),
        )
        return clock, dog, state

    def test_starts_dark(self) -> None:
        _, dog, state = self.make()
        assert state == {"heater": False, "laser": False}
        assert dog.inputs() == 0x0500

    def test_trips_after_half_a_second_without_a_toggle(self) -> None:
        clock, dog, state = self.make()
        dog.lines(0b0110)
        assert state == {"heater": True, "laser": True}
        for step in range(1, 10):
            clock.t = 0.4 * step
            dog.lines(0b0110 | step & 1)
        assert not dog.tripped
        clock.t += 0.5
        dog.poll()
        assert not dog.tripped
        clock.t += 0.01
        dog.poll()
        assert dog.tripped
        assert state == {"heater": False, "laser": False}
        assert dog.inputs() == 0x0700

    def test_rearms_only_with_enables_low_and_a_toggle(self) -> None:
        clock, dog, state = self.make()
        dog.lines(0b0110)
        clock.t = 1.0
        dog.lines(0b0111)  # too late, and toggling alone does not help
        assert dog.tripped
        dog.lines(0b0001)
        assert dog.tripped
        dog.lines(0b0000)
        assert not dog.tripped
        dog.lines(0b0100)
        assert state == {"heater": True, "laser": False}
        assert dog.trips == 1

    def test_interlock_gates_the_laser_only(self) -> None:
        _, dog, state = self.make()
        dog.lines(0b1110)
        assert dog.led
        dog.interlock_closed = False
        assert state == {"heater": True, "laser": False}
        assert dog.inputs() == 0x0400
        dog.interlock_closed = True
        assert state["laser"]
