import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys import rice
from qmodd.keys.sifting import _DETECT, decode_detect

gap_lists = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 3000), st.integers(0, 10**7)), max_size=60)


def slots_of(gaps, first):
    return (np.cumsum(np.array(gaps, np.int64) + 1) + first - 1).astype(np.int64)


def slow_code(gaps, k):
    """The definition, as text."""
    bits = "".join("1" * (g >> k) + "0" + (f"{g & ((1 << k) - 1):0{k}b}" if k else "") for g in gaps)
    return len(bits), bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))


@settings(max_examples=200, deadline=None)
@given(gap_lists, st.integers(0, rice.MAX_K), st.integers(0, 2**61))
def test_code_is_the_definition_and_comes_back(gaps, k, first):
    k = max(k, max(gaps, default=0).bit_length() - 9)  # no unary number of more than 1024 ones
    slots = slots_of(gaps, first)
    bits, wanted = slow_code(gaps, k)
    out = np.full(len(wanted), 0x5A, np.uint8)
    assert rice.length(slots, first, k) == bits
    rice.encode(slots, first, k, out)
    assert out.tobytes() == wanted
    back = np.empty(len(gaps), np.int64)
    span = int(slots[-1]) - first + 1 if gaps else 0
    padded = np.concatenate([out, np.full(rice.PAD, 0xA5, np.uint8)])
    assert rice.decode(padded, k, span, back) == bits
    np.testing.assert_array_equal(back + first, slots)
    if gaps:
        assert rice.decode(padded, k, span - 1, back) == -1
        assert rice.decode(padded[1:], k, span, back[:0]) == 0
        assert rice.decode(padded[:-1], k, span, back) == -1


def slow_decode(raw, k, span, slots):
    """The definition, a bit at a time."""
    bits = "".join(f"{b:08b}" for b in raw[: -rice.PAD].tolist())
    at, slot = 0, -1
    for i in range(len(slots)):
        stop = bits.find("0", at)
        if stop < 0 or stop + 1 + k > len(bits):
            return -1
        slot += ((stop - at) << k) + int(bits[stop + 1 : stop + 1 + k] or "0", 2) + 1
        at = stop + 1 + k
        if slot >= span:
            return -1
        slots[i] = slot
    return at


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.integers(0, rice.MAX_K), st.integers(0, 50), st.integers(0, 2**32 - 1))
def test_any_bytes_are_decoded_as_the_definition_says(data, k, count, span):
    ours, plain = np.full(count, -7, np.int64), np.full(count, -7, np.int64)
    raw = np.frombuffer(data + bytes(rice.PAD), np.uint8)
    used = rice.decode(raw, k, span, ours)
    assert used == slow_decode(raw, k, span, plain)
    np.testing.assert_array_equal(ours, plain)
    if used >= 0:
        assert used <= 8 * len(data)
        assert count == 0 or (ours[0] >= 0 and ours[-1] < span)
        assert np.all(np.diff(ours) > 0)


def test_uncompiled_encoder_agrees():
    slots = np.cumsum(np.random.default_rng(2).geometric(0.01, 300)).astype(np.int64)
    out, plain = (np.zeros(rice.length(slots, 1, 5) // 8 + 1, np.uint8) for _ in range(2))
    rice.encode(slots, 1, 5, out)
    rice.encode.py_func(slots, 1, 5, plain)
    np.testing.assert_array_equal(out, plain)
    back = np.empty(300, np.int64)
    assert rice.decode.py_func(np.append(out, np.zeros(rice.PAD, np.uint8)), 5, int(slots[-1]), back) > 0
    np.testing.assert_array_equal(back + 1, slots)
    assert rice.length.py_func(slots, 1, 5) == rice.length(slots, 1, 5)


@pytest.mark.parametrize("slots", [[5, 5], [7, 6], [1, 20], [-1, 3], [0, 2, 1]])
def test_what_does_not_ascend_in_its_range(slots):
    for check in (rice.ascending, rice.ascending.py_func):
        assert not check(np.array(slots, np.int64), 0, 20)
        assert check(np.array([0, 3, 19], np.int64), 0, 20)


def test_gaps_that_run_over_the_end_or_the_span():
    for body in (b"\xff\x00", b"\xfc\x00"):
        with pytest.raises(ValueError, match="malformed"):
            decode_detect(_DETECT.pack(0, 3, 1, 0) + body)
