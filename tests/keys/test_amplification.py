import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys.amplification import RoundingError, amplify, rounding_bound, seed_bytes
from qmodd.keys.toeplitz import backend, floating

WAYS = backend.NAMES


def naive(bits, seed, m):
    n = len(bits)
    s = np.unpackbits(np.frombuffer(seed, np.uint8))
    return [int(sum(int(s[i + n - 1 - j]) & int(bits[j]) for j in range(n)) & 1) for i in range(m)]


@st.composite
def problems(draw):
    n = draw(st.integers(1, 120))
    m = draw(st.integers(0, n))
    bits = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), np.uint8)
    return bits, draw(st.binary(min_size=seed_bytes(n, m), max_size=seed_bytes(n, m))), m


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=100, deadline=None)
@given(problems())
def test_equals_the_matrix_product(way, problem):
    bits, seed, m = problem
    assert list(amplify(bits, seed, m, by=way)) == naive(*problem)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20_000), st.floats(0, 1), st.integers(0, 2**32))
def test_all_ways_give_the_same_bits(n, share, seed):
    rng, m = np.random.default_rng(seed), round(share * n)
    bits, data = rng.integers(0, 2, n).astype(np.uint8), rng.bytes(seed_bytes(n, m))
    first, *others = (amplify(bits, data, m, by=way) for way in WAYS)
    for other in others:
        np.testing.assert_array_equal(other, first)


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(1, 40))
def test_pieces_make_no_difference(problem, piece):
    bits, seed, m = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floating, "_PIECE", piece)
        assert list(amplify(bits, seed, m, by="floating")) == naive(*problem)


@pytest.mark.parametrize("way", WAYS)
def test_a_large_block_equals_packed_integer_arithmetic(way):
    n, m = 300_001, 70_003
    rng = np.random.default_rng(1)
    bits, seed = rng.integers(0, 2, n).astype(np.uint8), rng.bytes(seed_bytes(n, m))
    out = amplify(bits, seed, m, by=way)
    s = np.unpackbits(np.frombuffer(seed, np.uint8))
    for i in (0, 1, 777, m // 2, m - 1):
        assert out[i] == int((s[i : i + n][::-1] & bits).sum()) & 1
    ones = np.ones(n, np.uint8)
    full = amplify(ones, np.packbits(np.ones(n + m - 1, np.uint8)).tobytes(), m, by=way)
    assert np.all(full == n % 2)  # the largest sums that can occur


def test_linear_in_the_block():
    rng = np.random.default_rng(2)
    n, m = 5000, 1234
    a, b = (rng.integers(0, 2, n).astype(np.uint8) for _ in range(2))
    seed = rng.bytes(seed_bytes(n, m))
    np.testing.assert_array_equal(amplify(a, seed, m) ^ amplify(b, seed, m), amplify(a ^ b, seed, m))


def test_the_bound_covers_blocks_of_1e8_bits():
    assert rounding_bound(1 << 19, 1 << 20) < 1e-6
    assert rounding_bound(5 * 10**7, 10**8) < 1e-4


def test_bad_arguments_are_told():
    bits = np.ones(10, np.uint8)
    with pytest.raises(ValueError, match="cannot make 11"):
        amplify(bits, bytes(3), 11)
    with pytest.raises(ValueError, match="seed of 4 bytes"):
        amplify(bits, bytes(4), 5)


def test_a_broken_transform_is_noticed(monkeypatch):
    monkeypatch.setattr(floating.np.fft, "irfft", lambda product, n: np.full(n, 0.4))
    with pytest.raises(RoundingError):
        amplify(np.ones(10, np.uint8), bytes(seed_bytes(10, 5)), 5, by="floating")
    monkeypatch.setattr(floating, "_EPS", 1.0)
    with pytest.raises(ValueError, match="too long"):
        amplify(np.ones(10, np.uint8), bytes(seed_bytes(10, 5)), 5, by="floating")


def test_bits_of_the_seed_beyond_the_last_one_do_not_count():
    n, m = 900, 300
    rng = np.random.default_rng(6)
    bits, seed = rng.integers(0, 2, n).astype(np.uint8), bytearray(rng.bytes(seed_bytes(n, m)))
    outs = []
    for last in (seed[-1] & 0xFE, seed[-1] | 1):  # 1199 of 1200 bits
        seed[-1] = last
        outs += [amplify(bits, bytes(seed), m, by=way).tobytes() for way in WAYS]
    assert len(set(outs)) == 1
