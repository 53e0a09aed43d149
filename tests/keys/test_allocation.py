"""Keys are dealt to pairs of recipients: in proportion, alike on both sides, each of its size."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.keys.allocation import Allocation, Pair, difference
from qmodd.keys.records import BlockRecord
from qmodd.keys.store import Database, KeyStore
from qmodd.randomness import SeededRandomness
from tests.keys.engine.test_store import KEK, record

SIZES = st.sampled_from([128, 192, 256, 512])
PAIRS = st.lists(st.tuples(st.integers(1, 20), SIZES), min_size=1, max_size=6)


def made(pairs: list[tuple[int, int]]) -> Allocation:
    return Allocation(tuple(s for s, _ in pairs), tuple(b for _, b in pairs))


@given(PAIRS, st.integers(0, 100_000))
def test_as_many_keys_as_fit_and_not_one_more(pairs: list[tuple[int, int]], bits: int) -> None:
    allocation = made(pairs)
    keys = allocation.keys_in(bits)
    assert allocation.bits(keys) == sum(allocation.size(n) for n in range(keys)) <= bits
    assert allocation.bits(keys + 1) > bits


@given(PAIRS, st.integers(1, 50))
def test_turns_are_in_proportion_at_every_moment(pairs: list[tuple[int, int]], rounds: int) -> None:
    allocation = made(pairs)
    total, dealt = sum(allocation.shares), Counter[int]()
    for n in range(rounds * 7):
        dealt[allocation.owner(n)] += 1
        for pair, share in enumerate(allocation.shares):
            assert abs(dealt[pair] - (n + 1) * share / total) < len(pairs)
    assert Counter(allocation.cycle) == {p: s * len(allocation.cycle) // total for p, s in enumerate(allocation.shares)}


def test_equal_pairs_take_turns_as_they_always_did() -> None:
    assert made([(1, 256)] * 3).cycle == (0, 1, 2)
    old = record(allocations=2)
    assert Allocation.of(old) == made([(1, 128), (1, 128)])
    assert old.secret_bits == 5 * 128


def test_keys_of_different_sizes_come_out_of_one_block(ram_path) -> None:  # type: ignore[no-untyped-def]
    database = Database(ram_path / "keys.db")
    store = KeyStore(database, bytearray(KEK), "lab", ["other"], SeededRandomness(3))
    uuid, pairs = uuid4(), ((3, 128), (1, 256))
    shares = made(list(pairs))
    data = bytearray(range(shares.bits(8) // 8))
    dealt = record(uuid=uuid, keys=8, allocations=2, pairs=pairs, recipients=("north", "south"))
    assert BlockRecord.from_json(dealt.to_json()) == dealt
    assert dealt.secret_bits == 8 * len(data)
    store.add_block(dealt, bytearray(data))
    north, south = store.take_for_delivery("north", 99), store.take_for_delivery("south", 99)
    assert [len(k) for _, k in north] == [16] * 6
    assert [len(k) for _, k in south] == [32] * 2
    by_id = {i: bytes(k) for i, k in (*north, *south)}
    assert b"".join(by_id[i] for i in store.key_ids()) == data
    assert store.counts()["recipients"]["south"]["distilled"] == 2
    database.close()


def test_what_the_sites_deal_differently_is_said() -> None:
    mine = [Pair("north", 3, 256), Pair("south", 1, 128)]
    assert difference(mine, (3, 1), (256, 128)) is None
    assert difference(mine, (3,), (256,)) == (
        "1 recipients at the far site, 2 at this one: keys belong to pairs of recipients"
    )
    assert difference(mine, (3, 2), (256, 128)) == (
        "recipient pair 2 (south at this site): share 1 here, 2 at the far module"
    )
    assert difference(mine, (3, 1), (512, 128)) == (
        "recipient pair 1 (north at this site): key_bits 256 here, 512 at the far module"
    )


@pytest.mark.parametrize(("field", "value"), [("share", 0), ("share", 1001), ("key_bits", 100), ("key_bits", 0)])
def test_a_pair_that_cannot_be(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"recipient north: {field} {value}"):
        Pair("north", **{field: value})
