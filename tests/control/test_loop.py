from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.bus.lane import Lane
from drivers.errors import BusFault
from qmodd.clock import SystemClock
from qmodd.control.facts import Fact, Freshness, Railed, Stale
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


# what a loop's report says


class Input:
    """A fact that comes and goes."""

    def __init__(self) -> None:
        self.found: tuple[Fact, ...] = ()

    def facts(self) -> tuple[Fact, ...]:
        return self.found


async def test_facts_are_reported_when_they_change_and_a_missed_period_is_one() -> None:
    bench, told, source = Bench(), list[tuple[str, tuple[str, ...]]](), Input()
    scheduler = Scheduler(bench, bench.sleep, bench.make_safe, lambda loop, facts: told.append((loop, facts)))
    bench.scheduler = scheduler

    async def step(now: float) -> None:
        if 0.95 < now < 1.05:
            await bench.sleep(0.35)

    scheduler.add(Loop("decoy", 0.1, step, facts=source.facts))
    async with bench.running():
        await bench.until(0.25)
        assert told == []
        source.found = (Railed("decoy", "decoy bias at its limit"),)
        await bench.until(0.55)
        assert told == [("decoy", ("decoy bias at its limit",))]
        assert scheduler.report("decoy").facts == ("decoy bias at its limit",)
        source.found = ()
        await bench.until(2.0)
    assert told[1:] == [("decoy", ()), ("decoy", ("decoy: 3 periods of 0.1 s were missed",)), ("decoy", ())]
    report = scheduler.report("decoy")
    assert report.overruns == 3
    assert report.period_mean_s == pytest.approx(1.9 / (report.runs - 1))
    assert not scheduler.running
    assert scheduler.check_in.late(100.0) == {}


async def test_bus_time_is_what_the_lanes_held_for_each_loop() -> None:
    bench = Bench()
    lane = Lane("i2c:1", bench.monotonic, threaded=False)

    def transaction(seconds: float) -> Callable[[], None]:
        def work() -> None:
            bench.now += seconds

        return work

    async def busy(now: float) -> None:
        await lane.call(transaction(0.004), deadline_s=1.0)
        await lane.call(transaction(0.002), deadline_s=1.0)

    async def idle(now: float) -> None:
        bench.now += 0.001  # time that is no bus's

    bench.scheduler.add(Loop("busy", 0.1, busy))
    bench.scheduler.add(Loop("idle", 0.1, idle))
    async with bench.running():
        await bench.until(1.05)
        busy_report, idle_report = bench.scheduler.reports()
    assert busy_report.bus_last_s == pytest.approx(0.006)
    assert busy_report.bus_max_s == pytest.approx(0.006)
    assert busy_report.bus_transactions == 2 * busy_report.runs
    assert busy_report.bus_sum_s == pytest.approx(0.006 * busy_report.runs)
    assert busy_report.bus_share == pytest.approx(0.06, rel=0.2)
    assert (idle_report.bus_sum_s, idle_report.bus_transactions) == (0.0, 0)
    assert busy_report.late_rms_s <= busy_report.late_p99_s <= busy_report.late_max_s


async def test_a_step_past_its_deadline_is_a_missed_one() -> None:
    seen = list[tuple[str, ...]]()
    scheduler = Scheduler(SystemClock(), asyncio.sleep, _ignore, lambda _, facts: seen.append(facts))

    async def hang(now: float) -> None:
        await asyncio.Event().wait()

    scheduler.add(Loop("hung", 0.01, hang, 0.02))
    task = asyncio.create_task(scheduler.run())
    await asyncio.sleep(0.12)
    assert scheduler.report("hung").state is LoopState.FAILED
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen[0] == ("hung: a step did not end within 0.02 s",)


async def _ignore(loop: str, why: str) -> None:
    return None


# freshness


def test_an_input_is_stale_when_old_or_frozen() -> None:
    fresh = Freshness("pa3", 1.0, old_periods=3, repeats=4)
    assert "never read" in str(fresh.check(0.0))
    for n in range(10):
        assert fresh.see([1.0 + 1e-9 * n], float(n)) is None
    assert fresh.check(12.0) is None
    assert "last read 3.50 s ago; 3 s is the limit" in str(fresh.check(12.5))
    assert [fresh.see([2.0], 10.0 + n) is None for n in range(5)] == [True, True, True, False, False]
    stale = fresh.see([2.0], 20.0)
    assert isinstance(stale, Stale)
    assert stale.name == "pa3"
    assert "6 times in a row (2); 4 is the limit" in str(stale)
    fresh.restart()
    assert fresh.see([2.0], 21.0) is None
    with pytest.raises(ValueError, match="repeats"):
        Freshness("pa3", 1.0, repeats=1)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(2, 6))
def test_only_a_run_of_identical_readings_is_frozen(values: list[int], repeats: int) -> None:
    fresh = Freshness("x", 1.0, repeats=repeats)
    run = 0
    for n, v in enumerate(values):
        run = run + 1 if n and v == values[n - 1] else 1
        assert (fresh.see([float(v)], float(n)) is not None) == (run >= repeats)
