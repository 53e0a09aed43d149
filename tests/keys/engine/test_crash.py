"""Cut the wire or kill a side at every boundary of a block: after reconnection both stores are equal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sim.loop import run_simulated
from tests.keys.engine.world import (
    Dead,
    Pair,
    give,
    idle,
    make_pair,
    pool_bytes,
    same_keys,
    settled,
    start,
    stopped,
    until,
)


class Fault:
    """Acts when the n-th frame after `arm` is sent: it is lost or delivered, and the wire cut or the sender killed."""

    def __init__(self, pair: Pair, at: int, deliver: bool, kill: bool) -> None:
        self.pair, self.at, self.deliver, self.kill = pair, at, deliver, kill
        self.first = pair.wire.sent
        self.done = self.cutting = False
        pair.wire.tamper = self.tamper

    def tamper(self, direction: int, n: int, frame: bytes) -> Sequence[bytes]:
        if self.done or n - self.first != self.at:
            return [] if self.cutting else [frame]
        self.done = self.cutting = True
        if self.deliver:
            self.pair.wire.queues[1 - direction].append(frame)
            self.pair.wire.wake()
        if self.kill:
            raise Dead
        asyncio.get_running_loop().call_later(0.5, self.pair.wire.cut)
        asyncio.get_running_loop().call_later(1.0, self.mend)
        return []

    def mend(self) -> None:
        self.cutting = False
        self.pair.wire.mend()


async def one_fault(tmp: Path, loop: Any, at: int, deliver: bool, kill: bool, blocks: int = 1) -> tuple[bool, int]:
    """(whether the fault was met, keys held in the end); `blocks` are in flight when it comes."""
    a, b = make_pair(tmp)
    pair, tasks = start(a, b, loop)
    await settled(pair)
    fault = Fault(pair, at, deliver, kill)
    for block in range(blocks):
        give(pair, 1, block)
    if kill:
        await until(lambda: any(t.done() for t in tasks) or min(len(a.records), len(b.records)) == blocks, 20)
        await asyncio.sleep(0.01)
        pair.wire.cut()
        await stopped(*tasks)
        a.shut(), b.shut()
        pair, tasks = start(a, b, loop)
    else:
        await until(lambda: fault.done or min(len(a.records), len(b.records)) == blocks, 20)
        await asyncio.sleep(3.0)
    met, fault.done = fault.done, True
    await settled(pair)
    await idle(pair)
    give(pair, 2)
    await idle(pair)
    await settled(pair)
    keys = same_keys(a, b)
    assert pool_bytes(a) == pool_bytes(b)
    assert not a.journal.in_doubt()
    assert not b.journal.in_doubt()
    assert not a.journal.verdicts_owed()
    assert 1 <= len(a.store.block_ids()) <= 1 + blocks
    await stopped(*tasks)
    a.shut(), b.shut()
    return met, keys


@pytest.mark.parametrize("kill", [False, True], ids=["cut", "kill"])
@pytest.mark.parametrize("deliver", [False, True], ids=["lost", "delivered"])
def test_every_message_boundary(ram_path: Path, deliver: bool, kill: bool) -> None:
    outcomes = set()
    for at in range(1, 40):
        met, keys = run_simulated(lambda loop, at=at: one_fault(ram_path / str(at), loop, at, deliver, kill))
        outcomes.add(keys)
        if not met:
            break
    else:
        pytest.fail("the block never ended")
    assert at > 12  # every message of the block was a boundary once
    assert len(outcomes) == 2  # sometimes the first block survives, sometimes not: on both sides alike


@pytest.mark.parametrize("kill", [False, True], ids=["cut", "kill"])
@pytest.mark.parametrize("deliver", [False, True], ids=["lost", "delivered"])
def test_message_boundaries_with_three_blocks_in_flight(ram_path: Path, deliver: bool, kill: bool) -> None:
    outcomes = set()
    for at in range(1 + 2 * deliver + kill, 120, 4):
        met, keys = run_simulated(lambda loop, at=at: one_fault(ram_path / str(at), loop, at, deliver, kill, 3))
        outcomes.add(keys)
        if not met:
            break
    else:
        pytest.fail("the blocks never ended")
    assert len(outcomes) == 4  # none of the three survived, or one, two, all: on both sides alike


def dies(where: Any, name: str, after: bool) -> None:
    real: Callable[..., Any] = getattr(where, name)

    def deadly(*args: Any) -> Any:
        if after:
            real(*args)
        raise Dead

    setattr(where, name, deadly)


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("name", ["prepare", "commit", "peer_done", "stage", "claim"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_around_every_durable_step(ram_path: Path, side: str, name: str, after: bool) -> None:
    async def main(loop: Any) -> None:
        a, b = make_pair(ram_path)
        pair, tasks = start(a, b, loop)
        await settled(pair)
        victim = {"a": a, "b": b}[side]
        dies(victim.pool if name in ("stage", "claim") else victim.journal, name, after)
        give(pair, 1)
        await until(lambda: any(t.done() for t in tasks) or len(b.records) == 1, 20)
        pair.wire.cut()
        await stopped(*tasks)
        a.shut(), b.shut()
        pair, tasks = start(a, b, loop)
        await settled(pair)
        give(pair, 2)
        await idle(pair)
        same_keys(a, b)
        assert pool_bytes(a) == pool_bytes(b)
        await stopped(*tasks)
        a.shut(), b.shut()

    run_simulated(main)


def test_a_cut_aborts_what_is_in_work_with_a_reason(ram_path: Path) -> None:
    async def main(loop: Any) -> None:
        a, b = make_pair(ram_path)
        pair, tasks = start(a, b, loop)
        await settled(pair)
        Fault(pair, 4, deliver=False, kill=False)
        give(pair, 1)
        give(pair, 1, block=1)
        await asyncio.sleep(3)
        for m in (a, b):
            assert [e["why"] for e in m.said("block.aborted")] == ["the wire was cut"] * 2
            assert m.said("session.lost")
        await stopped(*tasks)
        a.shut(), b.shut()

    run_simulated(main)


def test_a_lost_store_of_the_peer_revokes_the_block_here(ram_path: Path) -> None:
    """Bob prepared, Alice committed, and Bob's journal is gone: keys must not live on one side alone."""

    async def main(loop: Any) -> None:
        a, b = make_pair(ram_path)
        pair, tasks = start(a, b, loop)
        await settled(pair)
        dies(b.journal, "commit", False)
        give(pair, 1)
        await until(lambda: tasks[1].done())
        pair.wire.cut()
        await stopped(*tasks)
        for d in b.journal.in_doubt():
            b.journal.abort(d.uuid)
        a.shut(), b.shut()
        pair, tasks = start(a, b, loop)
        await until(lambda: bool(a.said("block.lost_by_peer")))
        assert a.store.waiting() == 0
        assert a.store.totals()["revoked"] == a.store.totals()["created"] > 0
        await until(lambda: pair.bob._pool_fault is not None)
        assert "re-key" in str(pair.bob._pool_fault)
        await stopped(*tasks)
        a.shut(), b.shut()

    run_simulated(main)
