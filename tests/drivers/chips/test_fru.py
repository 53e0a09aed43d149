from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.chips.fru import EPOCH, Fru, FruError, QmoddRecord, decode, encode, size

text = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=63)
moments = st.integers(0, 0xFFFFFF).map(lambda minutes: EPOCH + timedelta(minutes=minutes))
digests = st.binary(min_size=32, max_size=32)
records = st.none() | st.builds(
    QmoddRecord, st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1), digests
)
frus = st.builds(Fru, text, text, text, text, moments, text, text, text, text, text, text, records)


@given(frus)
def test_what_is_written_is_read_back(fru: Fru) -> None:
    data = encode(fru)
    assert decode(data.ljust(8192, b"\xff")) == fru
    assert len(data) >= size(data) > 0


@given(frus, st.data())
def test_a_changed_byte_is_never_taken_for_another_module(fru: Fru, choice: st.DataObject) -> None:
    data = bytearray(encode(fru))
    at = choice.draw(st.integers(0, len(data) - 1))
    data[at] ^= choice.draw(st.integers(1, 255))
    with contextlib.suppress(FruError):
        assert decode(bytes(data)) == fru


def test_layout_of_the_standard() -> None:
    """Offsets and type/length bytes as in the definition, clauses 8 to 13."""
    data = encode(Fru(board_manufacturer="ACME", board_serial="S1", made=datetime(1996, 1, 1, 1, 0, tzinfo=UTC)))
    assert data[0] == 1
    assert data[3] == 1
    assert sum(data[:8]) % 256 == 0
    board = data[8 : 8 + 8 * data[9]]
    assert board[3:6] == bytes([60, 0, 0])
    assert board[6:11] == b"\xc4ACME"
    assert 0xC1 in board
    assert sum(board) % 256 == 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff" * 64, "common header"),
        (b"\x01\x00\x00\x01\x00\x00\x00\xfe" + b"\x00" * 8, "board area: 0 bytes"),
        (b"\x01\x00\x00\x01\x00\x00\x00\xfe\x01\x01\x19\x00\x00\x00\x00\x00", "board area: its checksum"),
    ],
)
def test_what_is_no_fru_says_why(data: bytes, why: str) -> None:
    with pytest.raises(FruError, match=why):
        decode(data)


def test_text_that_does_not_fit_is_refused() -> None:
    with pytest.raises(FruError, match="64 characters; 63 is the limit"):
        encode(Fru(asset_tag="x" * 64))
    with pytest.raises(FruError, match="only ASCII"):
        encode(Fru(asset_tag="µ"))
