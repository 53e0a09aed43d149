from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from drivers.errors import BusFault
from qmodd.control.loop import CheckIn, Loop, LoopFault, LoopState, Scheduler


class Bench:
    """Time that moves only when the test says so; every sleeping loop waits for it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.safe: list[tuple[str, str]] = []
        self._waiting: list[tuple[float, asyncio.Event]] = []
        self.scheduler = Scheduler(self, self.sleep, self.make_safe)

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def utc_synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self._waiting.append((self.now + seconds, event))
        await event.wait()

    async def make_safe(self, loop: str, why: str) -> None:
        self.safe.append((loop, why))

    async def until(self, t: float) -> None:
        await self._settle()
        while self._waiting and min(w[0] for w in self._waiting) <= t:
            due = min(self._waiting, key=lambda w: w[0])
            self._waiting.remove(due)
            self.now = max(self.now, due[0])
            due[1].set()
            await self._settle()
        self.now = max(self.now, t)

    async def _settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.scheduler.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def counting(
    seen: list[float], fail: Callable[[int], BaseException | None] = lambda n: None
) -> Callable[[float], Awaitable[None]]:
    async def step(now: float) -> None:
        seen.append(now)
        if (e := fail(len(seen))) is not None:
            raise e

    return step


async def test_loops_keep_their_own_periods_and_check_in() -> None:
    bench, fast, slow = Bench(), list[float](), list[float]()
    bench.scheduler.add(Loop("fast", 0.1, counting(fast)))
    bench.scheduler.add(Loop("slow", 1.0, counting(slow)))
    async with bench.running():
        await bench.until(2.05)
        bench.scheduler.add(Loop("late", 0.5, counting([])))
        await bench.until(3.01)
        assert bench.scheduler.check_in.all_in(bench.now)
    assert fast == pytest.approx([0.1 * k for k in range(31)])
    assert slow == pytest.approx([0.0, 1.0, 2.0, 3.0])
    report = bench.scheduler.report("fast")
    assert (report.runs, report.overruns, report.state, report.why) == (31, 0, LoopState.RUNNING, "")
    assert [r.name for r in bench.scheduler.reports()] == ["fast", "slow", "late"]


async def test_one_restart_then_safe_with_the_reason_and_others_go_on() -> None:
    bench, bad, good = Bench(), list[float](), list[float]()
    bench.scheduler.add(Loop("bad", 0.1, counting(bad, lambda n: LoopFault("pa3 is stale") if n in (3, 5) else None)))
    bench.scheduler.add(Loop("good", 0.1, counting(good)))
    async with bench.running():
        await bench.until(0.25)
        assert bench.scheduler.report("bad").state is LoopState.RESTARTED
        assert bench.safe == []
        await bench.until(1.05)
    assert bench.safe == [("bad", "pa3 is stale")]
    assert len(bad) == 5
    assert len(good) == 11
    report = bench.scheduler.report("bad")
    assert (report.state, report.why, report.restarts) == (LoopState.FAILED, "pa3 is stale", 1)
    assert "bad" not in bench.scheduler.check_in.late(1e9)


async def test_a_long_good_run_forgives_a_restart() -> None:
    bench, seen = Bench(), list[float]()
    bench.scheduler.add(Loop("x", 0.1, counting(seen, lambda n: BusFault("NACK") if n in (2, 40) else None)))
    async with bench.running():
        await bench.until(6.0)
    assert bench.safe == []
    assert bench.scheduler.report("x").restarts == 2


async def test_a_step_that_hangs_is_cut_off_and_missed_periods_are_counted() -> None:
    bench, runs = Bench(), list[float]()

    async def step(now: float) -> None:
        runs.append(now)
        if len(runs) == 1:
            bench.now += 0.35  # a bus that takes its time
        elif len(runs) > 1:
            await asyncio.Event().wait()

    bench.scheduler.add(Loop("hung", 0.1, step, deadline_s=0.01))
    async with bench.running():
        await bench.until(0.5)
        report = bench.scheduler.report("hung")
        assert report.overruns == 3
        assert report.busy_max_s == pytest.approx(0.35)
        while not bench.safe:
            await asyncio.sleep(0)
            await bench.until(bench.now + 0.1)
    assert bench.safe == [("hung", "did not end within 0.01 s")]


async def test_a_bug_reaches_the_supervisor() -> None:
    bench = Bench()
    bench.scheduler.add(Loop("x", 0.1, counting([], lambda n: ZeroDivisionError())))
    with pytest.raises(ExceptionGroup) as e:
        await bench.scheduler.run()
    assert e.group_contains(ZeroDivisionError)


def test_check_in() -> None:
    c = CheckIn()
    c.expect("a", 1.0, 0.0)
    assert c.late(0.9) == {}
    assert c.late(1.5) == {"a": 1.5}
    assert not c.all_in(1.5)
    c.report("a", 1.5)
    assert c.all_in(2.0)
    c.forget("a")
    assert c.all_in(99.0)
    with pytest.raises(KeyError):
        c.report("a", 1.0)


def test_impossible_loops() -> None:
    bench = Bench()
    bench.scheduler.add(Loop("a", 1.0, counting([])))
    with pytest.raises(ValueError, match="two loops"):
        bench.scheduler.add(Loop("a", 1.0, counting([])))
    with pytest.raises(ValueError, match="period"):
        Loop("b", 0.0, counting([]))
