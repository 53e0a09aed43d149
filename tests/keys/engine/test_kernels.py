"""The worker process: the same results as in place, death named and survived, nothing left behind. And the tag feed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from drivers.errors import BusFault, Refused
from drivers.roles import TagBlock
from qmodd.clock import LoopClock
from qmodd.keys import worker
from qmodd.keys.amplification import seed_bytes
from qmodd.keys.bench import NotOpen
from qmodd.keys.blocks import Flags
from qmodd.keys.counts import BlockCounts
from qmodd.keys.frames import FrameClock, Gates
from qmodd.keys.framesync import SyncRefused
from qmodd.keys.kernels import InlineKernels, Kernels, WorkerDied, WorkerKernels
from qmodd.keys.material import Material
from qmodd.keys.receiving import Reading, Receiver, TagFeed
from qmodd.keys.reconciliation import Plan
from qmodd.keys.settings import EngineSettings
from qmodd.randomness import SeededRandomness
from sim.loop import run_simulated
from tests.keys.engine.world import SETTINGS, small_plan


def block_of(bits: npt.NDArray[np.uint8]) -> Material:
    decoy = np.zeros(len(bits), np.uint8)
    decoy[::4] = 1
    return Material(bits, decoy, BlockCounts((0, 0), (0, 0), (0, 0), (0, 0)), 0, len(bits))


async def distil(kernels: Kernels) -> tuple[Any, ...]:
    """A block with one frame that needs all the help there is."""
    rng = np.random.default_rng(8)
    alice = rng.integers(0, 2, 70_000).astype(np.uint8)
    bob = alice.copy()
    bob[rng.permutation(65_536)[:9000]] ^= 1
    bob[65_536:65_560] ^= 1
    ours, theirs = await kernels.hold(block_of(alice)), await kernels.hold(block_of(bob))
    plan = Plan.make(70_000, 0.01)
    wanted = await kernels.correct(theirs, plan, await kernels.syndromes(ours, plan))
    rounds = 0
    while wanted:
        wanted = await kernels.assist(theirs, wanted, await kernels.disclose(ours, plan, wanted))
        rounds += 1
    done = await kernels.corrected(theirs)
    assert done.failed_first >= 1
    assert sum(done.m_z) == int((alice != bob).sum())
    tag = await kernels.verification_tag(bytes(16), theirs)
    assert tag == await kernels.verification_tag(bytes(16), ours)
    seed = SeededRandomness(9).bytes(seed_bytes(70_000, 8000))
    secret = await kernels.amplify(theirs, seed, 8000)
    assert secret == await kernels.amplify(ours, seed, 8000)
    tally = await kernels.tally(theirs)
    assert (tally.gathered, tally.corrected, tally.verified, tally.amplified, tally.secret) == (*[70_000] * 4, 8000)
    for held in (ours, theirs, theirs):
        kernels.release(held)
    with pytest.raises(NotOpen, match="block is gone"):
        await kernels.tally(theirs)
    return rounds, tag, bytes(secret), done, tally


async def test_worker_computes_what_inline_computes_and_dies_with_a_name() -> None:
    inline, kernels = InlineKernels(SeededRandomness(1)), WorkerKernels()
    try:
        await kernels.start()
        assert await distil(kernels) == await distil(inline)
        pid = await kernels._call("pid")
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        held = await kernels.hold(block_of(np.zeros(100, np.uint8)))
        plan = Plan.make(100, 0.01)
        with pytest.raises(NotOpen):
            await kernels.corrected(held)
        with pytest.raises(ValueError, match="bytes for"):
            await kernels.correct(held, plan, b"")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="died in 'syndromes'"):
            await kernels.syndromes(held, plan)
        assert kernels.deaths == 1
        assert await kernels._call("pid") != pid
        with pytest.raises(NotOpen, match="block is gone"):
            await kernels.syndromes(held, plan)
    finally:
        await kernels.close()
        await kernels.close()
    await inline.close()
    assert not multiprocessing.active_children()


def test_worker_functions_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The initialiser and the call, without a process of their own."""
    done: list[str] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: done.append("idle"))
    monkeypatch.setattr(os, "nice", lambda n: done.append(f"nice {n}"))
    monkeypatch.setattr(signal, "signal", lambda *_: done.append("ctrl-c"))
    monkeypatch.setattr(sys, "setswitchinterval", lambda s: done.append(f"switch {s}"))
    bench = worker.start()
    assert done == ["idle", "nice 19", "ctrl-c", "switch 0.0002"]
    assert worker.answer(bench, "pid", ()) == (True, os.getpid())
    ok, why = worker.answer(bench, "decode_detect", (b"",))
    assert not ok
    assert isinstance(why, ValueError)


async def test_bench_without_state() -> None:
    kernels = InlineKernels(SeededRandomness(1))
    with pytest.raises(NotOpen):
        await kernels.corrected(await kernels.hold(block_of(np.zeros(8, np.uint8))))
    with pytest.raises(NotOpen, match="frame builder"):
        await kernels.announce(7, True)
    with pytest.raises(NotOpen):
        await kernels.accept(
            np.empty(0, np.int64), np.empty(0, np.uint8), 0, FrameClock(0, 0, 0, 8000), (), np.empty((0, 2), np.int64)
        )
    found = await kernels.fold_delays(
        np.empty(0, np.int64), np.empty(0, np.uint8), FrameClock(0, 0, 0.0, 8000.0), 800.0
    )
    assert isinstance(found, SyncRefused)


def block(n: int, **more: Any) -> TagBlock:
    return TagBlock(np.empty(0, np.int64), np.empty(0, np.uint8), 100 * n, 100 * n + 100, n, False, **more)


class Tags:
    def __init__(self) -> None:
        self.n = 0
        self.broken = False

    async def read(self) -> TagBlock:
        if self.broken:
            raise BusFault("visa: gone")
        self.n += 1
        return block(self.n, more=self.n % 2 == 1)


def test_feed_keeps_reading_and_turns_overflow_into_lost_intervals() -> None:
    async def main(loop: Any) -> None:
        tags, woken = Tags(), [0]

        def ready() -> None:
            woken[0] += 1

        feed = TagFeed(tags, LoopClock(loop), 0.1, 3, ready)  # type: ignore[arg-type]
        task = asyncio.ensure_future(feed.run())
        await asyncio.sleep(0.35)
        assert (tags.n, feed.dropped, woken[0]) == (6, 3, 6)
        for n in (1, 2, 3):
            reading = feed.pop()
            assert reading is not None
            assert reading.block.sequence == n
        assert feed.pop() is None
        await asyncio.sleep(0.1)
        reading = feed.pop()
        assert reading is not None
        assert reading.block.lost_ps == ((400, 500), (500, 600), (600, 700))
        assert (reading.block.from_ps, reading.block.to_ps, reading.block.gap) == (400, 800, True)
        tags.broken = True
        await asyncio.sleep(0.2)
        with pytest.raises(BusFault):
            feed.pop()
        await task

    run_simulated(main)


async def test_receiver_leaves_out_what_has_no_data() -> None:
    kernels = InlineKernels(SeededRandomness(1))
    receiver = Receiver(SETTINGS, kernels, small_plan(1))
    await kernels.open_frames(Gates(), 1, (0.0, 0.0, 0.0), 0)
    ms = 1_000_000_000
    empty = (np.empty(0, np.int64), np.empty(0, np.uint8))
    good = await receiver.accept(Reading(TagBlock(*empty, 0, ms, 1, False), 1.0), Flags())
    assert good.counters.live_slots >= 124_990
    gone = await receiver.accept(Reading(TagBlock(*empty, ms, 2 * ms, 2, True), 1.1), Flags())
    assert gone.counters.live_slots < 10
    loose = TagBlock(*empty, 2 * ms, 3 * ms, 3, False, reference_unlocked=True)
    assert (await receiver.accept(Reading(loose, 1.2), Flags())).counters.live_slots < 10
    flags = Flags(0.0)
    flags.begin("bias", 1.2995)
    half = await receiver.accept(Reading(TagBlock(*empty, 3 * ms, 4 * ms, 4, False), 1.3), flags)
    assert half.counters.live_slots == pytest.approx(62_500, abs=100)


def test_receiver_says_why_it_cannot_synchronise() -> None:
    class Dark:
        to = 0

        async def read(self) -> TagBlock:
            start, self.to = self.to, self.to + 200_000_000_000
            return TagBlock(np.empty(0, np.int64), np.empty(0, np.uint8), start, self.to, 1, False)

    async def main(loop: Any) -> None:
        settings: EngineSettings = replace(SETTINGS, batch_s=0.2)
        plan = replace(small_plan(1), sync_slot=40_000_000, key_slot=80_000_000)
        with pytest.raises(Refused, match="only 0 clicks"):
            await Receiver(settings, InlineKernels(SeededRandomness(1)), plan).synchronise(Dark(), 0)  # type: ignore[arg-type]

    run_simulated(main)
