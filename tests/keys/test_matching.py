import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys import matching
from qmodd.keys.matching import common, keep, look_up, match
from qmodd.keys.sifting import Detect
from qmodd.keys.sifting import look_up as sift_from_record
from qmodd.keys.sifting import match as sift_from_symbols

seeds = st.integers(0, 2**32)


def both(function, *arguments):
    """The compiled result, which must be the twin's."""
    ours = function(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "COMPILED", False)
        twin = function(*arguments)
    for a, b in zip(ours, twin, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    return ours


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(0, 300))
def test_matches_are_the_slow_references(seed, n):
    rng = np.random.default_rng(seed)
    basis, nibbles = rng.integers(0, 2, n).astype(np.uint8), rng.integers(0, 16, n).astype(np.uint8)
    hit, kept = both(match, basis, nibbles)
    slow = [not s & 8 and s & 1 == b for b, s in zip(basis, nibbles, strict=True)]
    assert hit.tolist() == slow
    assert kept.tolist() == [s for s, h in zip(nibbles.tolist(), slow, strict=True) if h]


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(0, 300), st.integers(0, 200), st.integers(-(2**40), 2**61))
def test_a_dense_record_gives_the_same_and_nothing_outside_it(seed, n, size, first):
    rng = np.random.default_rng(seed)
    record = rng.integers(0, 256, size).astype(np.uint8)
    at = np.sort(rng.integers(-50, 2 * size + 50, n))
    slots, basis = at + first, rng.integers(0, 2, n).astype(np.uint8)
    slow = [int(record[a // 2]) >> 4 * (a % 2) & 15 if 0 <= a < 2 * size else 8 for a in at.tolist()]
    hit, kept = both(look_up, slots, basis, record, first)
    wanted = match(basis, np.array(slow, np.uint8))
    np.testing.assert_array_equal(hit, wanted[0])
    np.testing.assert_array_equal(kept, wanted[1])
    ours = sift_from_record(Detect(first, first + 2 * size, slots, basis), record, first)
    theirs = sift_from_symbols(basis, np.array(slow, np.uint8))
    for name in ("match", "basis", "bit", "decoy"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_slots_beyond_every_record_do_not_wrap_round():
    slots = np.array([-(2**63), -1, 2**63 - 1], np.int64)
    hit, kept = both(look_up, slots, np.zeros(3, np.uint8), np.zeros(100, np.uint8), 0)
    assert not hit.any()
    assert len(kept) == 0


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 120)), st.sets(st.integers(0, 120)), st.integers(-(2**62), 2**62))
def test_common_slots(a, b, first):
    one, two = (np.array(sorted(s), np.int64) + first for s in (a, b))
    in_one, in_two = both(common, one, two)
    np.testing.assert_array_equal(one[in_one], two[in_two])
    assert (one[in_one] - first).tolist() == sorted(a & b)


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(0, 300))
def test_bobs_tally_is_the_slow_references(seed, n):
    rng = np.random.default_rng(seed)
    basis, bit = (rng.integers(0, 2, n).astype(np.uint8) for _ in range(2))
    hit = rng.random(n) < 0.6
    decoy = rng.integers(0, 2, int(hit.sum())).astype(np.uint8)
    x_bit = rng.integers(0, 2, int((hit & (basis == 1)).sum())).astype(np.uint8)
    slots = np.cumsum(rng.integers(1, 9, n))
    own_slots, own_basis, own_bit, peer, tally = both(keep, slots, basis, bit, hit, decoy, x_bit)
    wanted = np.zeros(matching.TALLY_SHAPE, np.int64)
    announced = iter(x_bit.tolist())
    for k, i in enumerate(np.flatnonzero(hit)):
        theirs = next(announced) if basis[i] else 0
        assert (own_slots[k], own_basis[k], own_bit[k], peer[k]) == (slots[i], basis[i], bit[i], theirs)
        row = 1 + 2 * theirs if basis[i] else 0
        wanted[row, decoy[k]] += 1
        if basis[i] and bit[i] != theirs:
            wanted[row + 1, decoy[k]] += 1
    np.testing.assert_array_equal(tally, wanted)


def test_arrays_that_do_not_belong_together_are_refused():
    one, two = np.zeros(1, np.uint8), np.zeros(2, np.uint8)
    hit = np.ones(2, np.bool_)
    with pytest.raises(ValueError, match="2 symbols for 1"):
        match(one, two)
    with pytest.raises(ValueError, match="1 bases for 2"):
        look_up(two.astype(np.int64), one, two, 0)
    slots = np.arange(2)
    with pytest.raises(ValueError, match="1 intensities and 0 bits"):
        keep(slots, two, two, hit, one, one[:0])
    with pytest.raises(ValueError, match="2 bits for 2 matches, 0 of them"):
        keep(slots, two, two, hit, two, two)
    for arrays in ((slots, one, two), (slots, two, one), (slots[:1], two, two)):
        with pytest.raises(ValueError, match="each of 2 detections"):
            keep(*arrays, hit, two, one[:0])
    with pytest.raises(ValueError, match="neither"):
        keep(slots, two, two, hit, two + 2, one[:0])
