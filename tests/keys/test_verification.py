import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys.verification import KEY_BYTES, TAG_BITS, collision_bound, tags_equal, verification_tag


def by_definition(key, bits):
    """The polynomial written out."""
    p = 2**127 - 1
    data = np.packbits(bits).tobytes()
    coefficients = [len(bits) + 1] + [int.from_bytes(data[i : i + 15], "little") for i in range(0, len(data), 15)]
    point = int.from_bytes(key, "little") % 2**127
    degree = len(coefficients)
    return (sum(c * pow(point, degree - i, p) for i, c in enumerate(coefficients)) % p).to_bytes(16, "little")


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=16, max_size=16), st.lists(st.integers(0, 1), max_size=500))
def test_tag_is_the_polynomial(key, bits):
    assert verification_tag(key, np.array(bits, np.uint8)) == by_definition(key, np.array(bits, np.uint8))


def test_every_bit_and_the_length_matter():
    rng = np.random.default_rng(1)
    key = rng.bytes(KEY_BYTES)
    bits = rng.integers(0, 2, 1000).astype(np.uint8)
    tag = verification_tag(key, bits)
    for i in range(0, 1000, 37):
        other = bits.copy()
        other[i] ^= 1
        assert not tags_equal(tag, verification_tag(key, other))
    padded = np.concatenate([bits, np.zeros(1, np.uint8)])
    assert not tags_equal(tag, verification_tag(key, padded))
    assert tags_equal(tag, verification_tag(key, bits.copy()))
    assert verification_tag(rng.bytes(16), bits) != tag


def test_the_bound_is_far_below_what_is_asked():
    assert TAG_BITS == 128
    assert collision_bound(10**8) < 1e-30
    assert collision_bound(120) == pytest.approx(3 / 2**127)


def test_key_length_is_checked():
    with pytest.raises(ValueError, match="15 bytes"):
        verification_tag(bytes(15), np.zeros(1, np.uint8))
