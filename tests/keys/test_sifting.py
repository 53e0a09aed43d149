import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys import sifting
from qmodd.keys.frames import FrameBatch, FrameCounters, Residuals
from qmodd.keys.sifting import (
    Sifted,
    agrees,
    count,
    decode_basis,
    decode_detect,
    encode_basis,
    encode_detect,
    match,
    sift_alice,
    sift_bob,
    z_errors,
)

slot_sets = st.builds(
    lambda gaps, first: (first, (np.cumsum(np.array(gaps, np.int64) + 1) + first - 1).astype(np.int64)),
    st.lists(st.one_of(st.integers(0, 5), st.integers(0, 3000), st.integers(0, 10**6)), max_size=80),
    st.integers(0, 2**61),
)


def random_bits(rng, n):
    return rng.integers(0, 2, n).astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(slot_sets, st.integers(1, 1000), st.randoms(use_true_random=False))
def test_detect_round_trip(slots_from, beyond, random):
    first, slots = slots_from
    end = (int(slots[-1]) if len(slots) else first) + beyond
    basis = np.array([random.randrange(2) for _ in slots], np.uint8)
    data = encode_detect(first, end, slots, basis)
    d = decode_detect(data)
    assert (d.first_slot, d.end_slot) == (first, end)
    np.testing.assert_array_equal(d.slots, slots)
    np.testing.assert_array_equal(d.basis, basis)
    for cut in range(0, len(data), max(1, len(data) // 7)):
        with pytest.raises(ValueError, match="DETECT"):
            decode_detect(data[:cut])
    with pytest.raises(ValueError, match="DETECT"):
        decode_detect(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda first, span, n, k, body: sifting._DETECT.pack(first, span, n, k) + body,
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**32 - 1),
            st.integers(0, 300),
            st.integers(0, 33),
            st.binary(max_size=60),
        ),
    )
)
def test_detect_decoder_survives_anything(data):
    try:
        d = decode_detect(data)
    except ValueError:
        return
    assert encode_detect(d.first_slot, d.end_slot, d.slots, d.basis) is not None
    assert np.all(np.diff(d.slots) > 0)
    if len(d.slots):
        assert d.first_slot <= d.slots[0]
        assert d.slots[-1] < d.end_slot


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.lists(st.integers(0, 1), max_size=40))
def test_basis_decoder_survives_anything(data, basis):
    try:
        b = decode_basis(data, np.array(basis, np.uint8))
    except ValueError:
        return
    assert len(b.decoy) == b.match.sum()


def test_a_huge_count_is_refused_before_memory_is_taken():
    with pytest.raises(ValueError, match="contradicts"):
        decode_detect(sifting._DETECT.pack(0, 2**32 - 1, 2**32 - 1, 0) + bytes(100))
    many = np.arange(50, dtype=np.int64)
    with pytest.raises(ValueError, match="contradicts"):
        decode_detect(encode_detect(0, 50, many, np.zeros(50, np.uint8)), max_count=49)


def test_slots_out_of_order_or_range_are_not_encoded():
    z = np.zeros(2, np.uint8)
    for slots in ([5, 5], [7, 6], [1, 20], [-1, 3]):
        with pytest.raises(ValueError, match="ascending"):
            encode_detect(0, 20, np.array(slots), z)
    with pytest.raises(ValueError, match="do not fit"):
        encode_detect(0, 2**33, np.array([1, 2]), z)


@pytest.mark.parametrize(("per_slot", "most"), [(0.0122, 1.12), (1.3e-3, 1.53), (1.33e-4, 1.95)])
def test_size_of_detect_is_near_the_entropy_of_the_gaps(per_slot, most):
    rng = np.random.default_rng(1)
    slots = np.cumsum(rng.geometric(per_slot, 20_000)).astype(np.int64)
    data = encode_detect(0, int(slots[-1]) + 1, slots, random_bits(rng, len(slots)))
    assert len(data) / len(slots) < most, len(data) / len(slots)


def slow_sifting(slots, basis, bit, nibbles):
    """Dictionaries instead of arrays."""
    kept = {}
    for s, b, v, nib in zip(slots, basis, bit, nibbles, strict=True):
        if not nib & 8 and nib & 1 == b:
            kept[int(s)] = ("ZX"[b], nib >> 2 & 1, int(v), int(nib >> 1 & 1))
    return kept


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 200))
def test_both_sides_keep_what_the_slow_reference_keeps(seed, n):
    rng = np.random.default_rng(seed)
    slots = np.cumsum(rng.geometric(0.05, n)).astype(np.int64)
    basis, bit = random_bits(rng, n), random_bits(rng, n)
    nibbles = rng.integers(0, 16, n).astype(np.uint8)
    end = int(slots[-1]) + 1 if n else 1
    batch = FrameBatch(0, end, slots, basis, bit, FrameCounters(live_slots=n, cross=3), Residuals())
    detect = decode_detect(encode_detect(0, end, slots, basis))
    m = match(detect.basis, nibbles)
    answer = decode_basis(encode_basis(m), basis)
    alice = sift_alice(detect, m)
    bob, report = sift_bob(batch, answer)
    kept = slow_sifting(slots, basis, bit, nibbles)
    assert list(bob.slots) == list(alice.slots) == sorted(kept)
    for i, s in enumerate(bob.slots):
        base, decoy, bob_bit, alice_bit = kept[int(s)]
        assert ("ZX"[bob.basis[i]], bob.decoy[i], bob.bit[i], alice.bit[i]) == (base, decoy, bob_bit, alice_bit)
        assert bob.peer_x[i] == (alice_bit if base == "X" else 0)
    report.check()
    for k in range(2):
        assert report.n_z[k] == sum(v[0] == "Z" and v[1] == k for v in kept.values())
        assert report.n_x0[k] == sum(v[0] == "X" and v[1] == k and v[3] == 0 for v in kept.values())
        assert report.e_x1[k] == sum(v[0] == "X" and v[1] == k and v[3] == 1 and v[2] == 0 for v in kept.values())
    totals = count(bob)
    assert totals.m_x == report.m_x
    assert totals.n_x == report.n_x
    assert report.cross == 3
    assert agrees(count(alice), totals)
    assert len(bob.z_bits) == len(bob.z_decoy) == bob.n_z


def test_a_block_closes_at_its_n_z():
    basis = np.array([0, 1, 0, 0, 1, 0], np.uint8)
    other = np.zeros(6, np.uint8)
    parts = [Sifted(np.arange(6), basis, other, other, other), Sifted(np.arange(6, 12), basis, other, other, other)]
    whole = Sifted.concat(parts)
    head, rest = whole.cut(5)
    assert list(head.slots) == [0, 1, 2, 3, 4, 5, 6]
    assert (head.n_z, rest.n_z) == (5, 3)
    assert list(Sifted.concat([head, rest]).slots) == list(whole.slots)
    assert Sifted.concat([]).n_z == Sifted.empty().n_z == 0
    for bad in (0, 9):
        with pytest.raises(ValueError, match="cannot close"):
            whole.cut(bad)


def test_wrong_answers_are_told():
    with pytest.raises(ValueError, match="symbols"):
        match(np.zeros(3, np.uint8), np.zeros(2, np.uint8))
    basis = np.array([0, 1, 1, 0, 1], np.uint8)
    data = encode_basis(match(basis, np.array([0, 1, 3, 5, 1], np.uint8)))
    assert decode_basis(data, basis).match.sum() == 4
    with pytest.raises(ValueError, match="cut short"):
        decode_basis(data[:4], basis)
    with pytest.raises(ValueError, match="answer"):
        decode_basis(data, basis[:4])
    with pytest.raises(ValueError, match="wrong length"):
        decode_basis(data + b"\0", basis)
    with pytest.raises(ValueError, match="counts its matches"):
        decode_basis(data[:4] + b"\x03" + data[5:], basis)
    with pytest.raises(ValueError, match="padding"):
        decode_basis(data[:8] + bytes([data[8] | 1]) + data[9:], basis)


def test_z_errors_by_intensity():
    before = np.array([0, 1, 0, 1, 0], np.uint8)
    after = np.array([1, 1, 0, 0, 1], np.uint8)
    assert z_errors(before, after, np.array([0, 0, 1, 1, 1], np.uint8)) == (1, 2)
