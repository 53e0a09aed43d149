"""Blocks from batches: cut at exactly n_Z, nothing lost or counted twice; and stages whose sums must agree."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.roles import TagBlock
from qmodd.keys.accounting import BlockAccount, RunAccount, StageTally
from qmodd.keys.counts import BlockCounts
from qmodd.keys.material import Gatherer, Material, split, split_compiled
from qmodd.keys.receiving import pieces
from qmodd.keys.sifting import Sifted
from tests.keys.engine.playing import play as play_runs
from tests.keys.engine.test_distil import aborted, goes_on, play
from tests.keys.engine.world import Pair, give, idle, until


def batch(rng: np.random.Generator, n: int, first: int) -> Sifted:
    slots = first + np.cumsum(rng.integers(1, 4, n))
    bits = [rng.integers(0, 2, n).astype(np.uint8) for _ in range(4)]
    return Sifted(slots, *bits)


@given(st.lists(st.integers(0, 60), max_size=8), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_blocks_are_what_cutting_the_whole_stream_gives(sizes: list[int], n_z: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [batch(rng, n, 1000 * k) for k, n in enumerate(sizes)]
    gatherer, account = Gatherer(n_z), RunAccount()
    closed: list[Material] = []
    for b in batches:
        new = gatherer.add(b)
        closed += new
        assert account.batch(b.n_z, n_z * len(new), gatherer.n_z) is None
    rest = Sifted.concat(batches)
    for got in closed:
        head, rest = rest.cut(n_z)
        want = Material.of(head)
        assert np.array_equal(got.z_bits, want.z_bits)
        assert np.array_equal(got.z_decoy, want.z_decoy)
        assert (got.counts, got.first_slot, got.end_slot) == (want.counts, want.first_slot, want.end_slot)
    assert rest.n_z == gatherer.n_z < n_z


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_the_compiled_split_is_the_plain_one(n: int, seed: int) -> None:
    sifted = batch(np.random.default_rng(seed), n, 0)
    for ours, theirs in zip(split_compiled(sifted), split(sifted), strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.base is None  # nothing of what was left out is kept


def test_no_blocks_of_nothing() -> None:
    with pytest.raises(ValueError, match="blocks of 0"):
        Gatherer(0)
    with pytest.raises(ValueError, match="without detections"):
        Material.of(Sifted.empty())


TALLY = StageTally(100, 100, 30, 100, 100, 40)
ACCOUNT = BlockAccount(BlockCounts((70, 30), (1, 1), (5, 5), (0, 0)), 100, 158, 128, 40, 2, 42)


def test_a_block_that_adds_up() -> None:
    assert not list(ACCOUNT.disagreements(TALLY, decoder=True))
    # Nobody decodes on Alice's side.
    assert not list(ACCOUNT.disagreements(replace(TALLY, disclosed=0), decoder=False))


@pytest.mark.parametrize("name", [f.name for f in fields(StageTally)])
@pytest.mark.parametrize("by", [-1, 1])
def test_each_stage_that_counts_otherwise_is_named(name: str, by: int) -> None:
    wrong = replace(TALLY, **{name: getattr(TALLY, name) + by})
    assert len(list(ACCOUNT.disagreements(wrong, decoder=True))) == 1


@pytest.mark.parametrize("name", ["n_z", "leak_bits", "used", "dropped", "length"])
def test_each_number_of_the_conversation_that_is_wrong_is_named(name: str) -> None:
    wrong = replace(ACCOUNT, **{name: getattr(ACCOUNT, name) + 1})
    assert list(wrong.disagreements(TALLY, decoder=True))


def test_detections_do_not_come_out_of_nothing() -> None:
    account = RunAccount()
    assert account.batch(60, 0, 60) is None
    assert account.batch(60, 100, 20) is None
    assert "121 Z detections sifted" in str(account.batch(1, 0, 20))


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("name", ["gathered", "corrected", "verified", "amplified", "secret"])
def test_a_disagreement_is_no_key_on_either_side_and_an_event(ram_path: Path, side: str, name: str) -> None:
    async def script(pair: Pair) -> None:
        module = getattr(pair, side)
        kernels: Any = module.desk.kernels
        real = kernels.tally

        async def off_by_one(held: Any) -> StageTally:
            tally = await real(held)
            return replace(tally, **{name: getattr(tally, name) - 1})

        kernels.tally = off_by_one
        give(pair, 1)
        await idle(pair)
        assert all("the stages count differently" in why for why in aborted(pair))
        assert len(module.said("block.disagrees")) == 1
        assert not pair.a.store.key_ids()
        assert not pair.b.store.key_ids()
        assert not pair.a.journal.in_doubt()
        kernels.tally = real
        await goes_on(pair)

    play(ram_path, script)


def test_a_batch_that_vanishes_ends_the_run_with_an_event(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        kernels: Any = pair.b.desk.kernels
        real = kernels.sift

        async def loses(*args: Any) -> Any:
            report, gathered = await real(*args)
            return report, replace(gathered, open_n_z=gathered.open_n_z - 1)

        kernels.sift = loses
        await until(lambda: bool(pair.b.said("run.disagrees")), 30)
        kernels.sift = real
        await until(lambda: len(pair.b.records) > 0, 60)

    play_runs(ram_path, script)


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 10), st.booleans())
def test_pieces_of_a_long_reading_hold_every_tag_once(times: list[int], most: int, lossy: bool) -> None:
    t = np.sort(np.array(times, np.int64)) + 1000
    lost = ((990, 1000),) if lossy else ()
    block = TagBlock(t, np.zeros(len(t), np.uint8), 990, 1040, 1, True, lost_ps=lost)
    got = pieces(block, 5.0, most)
    assert np.array_equal(np.concatenate([r.block.t for r in got]), t)
    assert [r.last for r in got] == [False] * (len(got) - 1) + [True]
    assert (got[0].block.from_ps, got[-1].block.to_ps, got[-1].read_at) == (990, 1040, 5.0)
    assert got[0].block.lost_ps == lost
    for before, after in pairwise(got):
        assert before.block.to_ps == after.block.from_ps
        assert before.block.t[-1] < before.block.to_ps <= after.block.t[0]
        assert before.read_at <= after.read_at
        assert after.block.lost_ps == ()
        assert after.block.gap is not lossy
