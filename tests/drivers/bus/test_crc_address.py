from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.bus.address import AddressError, parse_address
from drivers.bus.crc import crc8, crc16


def test_known_answers() -> None:
    assert crc8(bytes.fromhex("b088b100d3")) == 0xF6  # PMBus read of 12 V (reference hardware A8)
    assert crc16(b"123456789", 0xFFFF) == 0x29B1  # ADS131M08
    assert crc16(b"#021AB7?VR03E801") == 0xD8B7  # MeCom


@given(st.binary(max_size=40))
def test_crc8_of_data_and_code_is_zero(data: bytes) -> None:
    assert crc8(data + bytes([crc8(data)])) == 0


@pytest.mark.parametrize(
    "text",
    ["i2c:1:0x48", "spi:0.1", "serial:/dev/tec", "visa:TCPIP::127.0.0.1::hislip0,4880::INSTR", "tcp:127.0.0.1:12000"],
)
def test_addresses_round_trip(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    ["i2c:1:48", "i2c:1:0x02", "i2c:1:0x78", "spi:0", "serial:", "visa:", "tcp:host", "tcp:h:0", "tcp:h:70000", "x:1"],
)
def test_broken_addresses_are_refused(text: str) -> None:
    with pytest.raises(AddressError, match="is none of i2c"):
        parse_address(text)
