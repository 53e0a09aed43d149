"""Strict CBOR."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd import cbor

plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary(max_size=8) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(value=plain)
def test_what_is_encoded_comes_back(value: object) -> None:
    assert cbor.decode_deterministic(cbor.encode(value)) == value


@given(data=st.binary(max_size=64))
def test_any_bytes_give_a_value_or_malformed(data: bytes) -> None:
    try:
        cbor.decode(data)
    except cbor.Malformed:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"\x81" * 10_000,  # deeper than any message
        b"\xbf\xff",  # indefinite length
        b"\xa2\x61a\x01\x61a\x02",  # a key twice
        b"\xd8\x23\x61(",  # regular expression
        b"\xd8\x1c\x81\xd8\x1d\x00",  # a list that contains itself
        b"\xc2\x58\x40" + b"\xff" * 64,  # big integer
        b"\xc1\x00",  # date
        b"\xd9\xd9\xf8\x00",  # a tag nobody knows
        b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",  # a list longer than memory
        b"",
    ],
)
def test_what_has_no_place_in_a_message_is_refused(data: bytes) -> None:
    with pytest.raises(cbor.Malformed):
        cbor.decode(data)


@pytest.mark.parametrize("data", [b"\x18\x01", b"\xa2\x61b\x01\x61a\x02", b"\x01\x02", b"\xfb" + bytes(8)])
def test_another_encoding_of_the_same_value_is_refused(data: bytes) -> None:
    with pytest.raises(cbor.Malformed, match="deterministic"):
        cbor.decode_deterministic(data)
