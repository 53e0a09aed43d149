from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.chips.checksums import crc16_ccitt
from sim.clock import ManualClock
from sim.instruments.mecom import acknowledgement, data_reply, decode, encode, parse_request
from sim.instruments.tec import TecController
from tests.sim.fake_ports import FakeTec


class Bench:
    def __init__(self) -> None:
        self.clock, self.port = ManualClock(), FakeTec()
        self.tec = TecController(self.clock, self.port, serial=4711)

    def raw(self, payload: str, address: int = 2, sequence: int = 0x1AB7) -> bytes:
        body = f"#{address:02X}{sequence:04X}{payload}".encode()
        self.tec.feed(body + b"%04X\r" % crc16_ccitt(body, 0))
        return self.tec.take()

    def get(self, number: int, *, is_float: bool = False) -> float:
        reply = self.raw(f"?VR{number:04X}01")
        assert crc16_ccitt(reply[:-5], 0) == int(reply[-5:-1], 16)
        return decode(reply[7:-5], is_float=is_float)

    def set(self, number: int, value: float) -> bytes:
        text = struct.pack(">f", value) if isinstance(value, float) else struct.pack(">i", value)
        return self.raw(f"VS{number:04X}01{text.hex().upper()}")


def test_known_answers_of_the_protocol() -> None:
    request = parse_request(b"#021AB7?VR03E801D8B7")
    assert request is not None
    assert data_reply(request, 2, encode(24.998, is_float=True)) == b"!021AB741C7FBE71F38\r"
    assert data_reply(request, 2, b"+05") == b"!021AB7+059817\r"
    setting = parse_request(b"#021AB7VS0BB80141C8000063D1")
    assert setting is not None
    assert acknowledgement(setting, 2) == b"!021AB763D1\r"
    assert parse_request(b"#021AB7?VR03E801D8B6") is None
    assert parse_request(b"021AB7") is None


@given(st.integers(-(1 << 31), (1 << 31) - 1))
def test_integers_keep_their_sign(value: int) -> None:
    assert decode(encode(value, is_float=False), is_float=False) == value


def test_vectors_through_the_device() -> None:
    bench = Bench()
    bench.port.object_c = 24.998
    bench.tec.feed(b"#021AB7?VR03E801D8B7\r")
    assert bench.tec.take() == b"!021AB741C7FBE71F38\r"
    bench.tec.feed(b"#021AB7VS0BB80141C8000063D1\r")
    assert bench.tec.take() == b"!021AB763D1\r"
    assert bench.get(1010, is_float=True) == 25.0


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("?XY", 1),
        ("?VR03E8", 4),
        ("?VR03E8ZZ", 4),
        ("?VR03E802", 8),
        ("?VRC73801", 5),
        ("VS03E80141C80000", 6),
        ("VS0BB80143C80000", 7),
        ("VS0BB8017FC00000", 7),
        ("VS0BB801GGGGGGGG", 4),
        ("VS0BB801", 4),
    ],
)
def test_error_codes(payload: str, code: int) -> None:
    assert Bench().raw(payload)[7:10] == b"+%02X" % code


def test_addresses() -> None:
    bench = Bench()
    assert bench.raw("?IF", address=0)[7:-5] == b"TEC-1091 qmodd twin "
    assert bench.raw("?IF", address=3) == b""
    assert bench.raw("VS0BB80141F00000", address=255) == b""
    assert bench.get(3000, is_float=True) == 30.0


def test_garbage_and_bad_checksums_are_passed_over() -> None:
    bench = Bench()
    bench.tec.feed(b"noise#02#021AB7?VR03E801D8B6\r")
    assert bench.tec.take() == b""
    bench.tec.feed(b"#021A")
    bench.tec.feed(b"B7?VR03E801D8B7" + b"x" * 300 + b"\r")
    assert bench.tec.take() == b""
    assert bench.get(100) == 1091
    assert bench.get(102) == 4711


def test_output_ramps_from_where_the_object_is() -> None:
    bench = Bench()
    bench.port.object_c = 24.0
    bench.set(3000, 30.0)
    bench.set(3003, 0.5)
    bench.set(3010, 1.5)
    bench.set(3011, 9.0)
    bench.set(2030, 1.8)
    bench.set(2010, 1)
    assert bench.get(104) == 2
    assert (bench.port.enabled, bench.port.target_c) == (True, 24.0)
    assert (bench.port.kp_a_per_k, bench.port.ti_s) == (1.5, 9.0)
    assert bench.port.current_limit_a == pytest.approx(1.8)
    bench.clock.t = 4.0
    assert bench.get(1011, is_float=True) == pytest.approx(26.0)
    bench.clock.t = 20.0
    assert bench.get(1011, is_float=True) == pytest.approx(30.0)
    assert bench.port.target_c == pytest.approx(30.0)
    assert bench.get(1020, is_float=True) == 0.5
    assert bench.get(1021, is_float=True) == 1.5
    assert bench.get(1001, is_float=True) == 27.0


def test_stability_needs_time_inside_the_window() -> None:
    bench = Bench()
    bench.set(3000, 24.0)
    assert bench.get(1200) == 0
    bench.set(2010, 1)
    assert bench.get(1200) == 1
    bench.clock.t = 1.9
    assert bench.get(1200) == 1
    bench.clock.t = 2.1
    assert bench.get(1200) == 2
    bench.port.object_c = 24.5
    assert bench.get(1200) == 1


def test_communication_watchdog_ramps_the_output_off() -> None:
    bench = Bench()
    bench.set(2060, 3.0)
    bench.set(2010, 1)
    bench.clock.t = 2.9
    bench.tec.poll()
    assert bench.port.current_limit_a == 2.0
    bench.clock.t = 5.5
    bench.tec.poll()
    assert bench.port.enabled
    assert bench.port.current_limit_a == pytest.approx(1.0)
    bench.clock.t = 8.1
    bench.tec.poll()
    assert not bench.port.enabled
    assert bench.get(2010) == 0
    assert bench.get(104) == 1
    bench.set(2010, 1)
    assert bench.port.enabled
    assert bench.port.current_limit_a == 2.0


def test_switching_on_again_ends_the_ramp_down() -> None:
    bench = Bench()
    bench.set(2060, 1.0)
    bench.set(2010, 1)
    bench.clock.t = 3.0
    bench.tec.poll()
    bench.set(2010, 1)
    assert bench.port.current_limit_a == 2.0


def test_reset_save_emergency_stop_and_polarity() -> None:
    bench = Bench()
    bench.set(3000, 28.0)
    bench.raw("SP")
    bench.set(3000, 29.0)
    bench.set(3034, 1)
    assert bench.port.polarity == -1
    bench.set(2010, 1)
    assert bench.raw("RS").startswith(b"!021AB7")
    assert not bench.port.enabled
    assert bench.raw("?IF") == b""  # restarting
    bench.clock.t += 0.3
    assert bench.get(3000, is_float=True) == 28.0
    assert bench.port.polarity == 1
    bench.set(2010, 1)
    bench.raw("ES")
    assert not bench.port.enabled


def test_own_protection_holds_until_it_is_cleared() -> None:
    bench = Bench()
    bench.set(2010, 1)
    bench.tec.inject_error(23)
    assert (bench.get(104), bench.get(105)) == (3, 23)
    bench.set(2010, 1)
    assert not bench.port.enabled
    bench.set(2010, 0)
    bench.set(2010, 1)
    assert bench.port.enabled
    assert bench.tec.due is None


def test_static_current_instead_of_regulation() -> None:
    bench = Bench()
    assert bench.port.static_a is None
    bench.set(2020, -0.4)
    assert bench.port.static_a is None
    bench.set(2000, 0)
    assert bench.port.static_a == pytest.approx(-0.4)
    bench.set(2020, 0.25)
    assert bench.port.static_a == pytest.approx(0.25)
    bench.set(2000, 2)
    assert bench.port.static_a is None
    bench.set(2000, 0)
    bench.raw("RS")
    assert bench.port.static_a is None
