from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from drivers.bus.lane import Hung, Lane
from drivers.errors import BusFault, Refused, Timeout
from tests.drivers.fakes import Clock

SHORT_S = 0.03
LONG_S = 20.0


def is_hung(lane: Lane) -> bool:
    return lane.hung


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    lane = Lane("i2c:9", time.monotonic)
    yield lane
    await lane.close(lambda: None)


async def test_runs_in_a_thread_of_its_own_and_counts(lane: Lane) -> None:
    assert await lane.call(threading.current_thread, deadline_s=LONG_S) is not threading.current_thread()
    assert lane.counters.transactions == 1
    assert lane.counters.latency_s_max >= lane.counters.latency_s_last > 0
    assert lane.counters.latency_s_sum == lane.counters.latency_s_last


async def test_transactions_never_interleave(lane: Lane) -> None:
    inside = 0
    worst = 0

    def work() -> None:
        nonlocal inside, worst
        inside += 1
        worst = max(worst, inside)
        inside -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(lane.call(work, deadline_s=LONG_S))
    assert worst == 1
    assert lane.counters.transactions == 50


async def test_a_hung_call_blocks_neither_the_loop_nor_another_bus_and_later_calls_are_refused_by_name(
    lane: Lane,
) -> None:
    release = threading.Event()
    other = Lane("spi:0.0", time.monotonic)
    with pytest.raises(Timeout, match="i2c:9: no return from the bus within"):
        await lane.call(release.wait, deadline_s=SHORT_S, attempts=3)
    assert is_hung(lane)
    assert await other.call(lambda: 5, deadline_s=LONG_S) == 5
    with pytest.raises(Hung, match="i2c:9: the bus hangs"):
        await lane.call(lambda: 1, deadline_s=LONG_S)  # at once, not after the deadline
    assert lane.counters.retries == 0
    running = lane._running
    assert running is not None
    release.set()
    await asyncio.wrap_future(running)
    assert not is_hung(lane)
    assert await lane.call(lambda: 2, deadline_s=LONG_S) == 2
    await other.close(lambda: None)


async def test_callers_that_queue_behind_a_hung_call_are_refused_too(lane: Lane) -> None:
    release = threading.Event()
    results = await asyncio.gather(
        lane.call(release.wait, deadline_s=SHORT_S),
        *(lane.call(lambda: 1, deadline_s=LONG_S) for _ in range(5)),
        return_exceptions=True,
    )
    assert [type(r) for r in results] == [Hung] * 6
    release.set()


async def test_a_cancelled_caller_leaves_its_transaction_to_finish_first(lane: Lane) -> None:
    started, release = threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        started.set()
        release.wait(LONG_S)
        order.append("slow")
        raise BusFault("its caller is gone; nobody hears this")

    async with asyncio.TaskGroup() as group:
        first = group.create_task(lane.call(slow, deadline_s=LONG_S))
        await asyncio.to_thread(started.wait, LONG_S)
        first.cancel()
        second = group.create_task(lane.call(lambda: order.append("second"), deadline_s=LONG_S))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(first)
        release.set()
        await second
    assert order == ["slow", "second"]


async def test_waiting_for_a_cancelled_callers_call_has_a_deadline(lane: Lane) -> None:
    started, release = threading.Event(), threading.Event()

    def stuck() -> None:
        started.set()
        release.wait(LONG_S)

    first = asyncio.ensure_future(lane.call(stuck, deadline_s=LONG_S))
    await asyncio.to_thread(started.wait, LONG_S)
    first.cancel()
    with pytest.raises(Hung, match="nothing was sent"):
        await lane.call(lambda: 1, deadline_s=SHORT_S)
    release.set()


@pytest.mark.parametrize("threaded", [True, False])
async def test_retries_only_as_often_as_allowed_and_not_for_a_refusal(threaded: bool) -> None:
    lane = Lane("x", time.monotonic, threaded=threaded)
    calls: list[int] = []

    def failing(error: Exception, until: int) -> Callable[[], int]:
        def work() -> int:
            calls.append(1)
            if len(calls) < until:
                raise error
            return len(calls)

        return work

    assert await lane.call(failing(BusFault("nack"), 3), deadline_s=LONG_S, attempts=3) == 3
    assert (lane.counters.retries, lane.counters.errors, lane.counters.transactions) == (2, 2, 1)
    calls.clear()
    with pytest.raises(BusFault):
        await lane.call(failing(BusFault("nack"), 9), deadline_s=LONG_S)
    assert len(calls) == 1
    calls.clear()
    with pytest.raises(Refused):
        await lane.call(failing(Refused("no"), 9), deadline_s=LONG_S, attempts=3)
    assert len(calls) == 1
    with pytest.raises(ValueError, match="attempts"):
        await lane.call(lambda: 1, deadline_s=LONG_S, attempts=0)
    await lane.close(lambda: None)


async def test_in_place_a_reply_later_than_its_deadline_is_discarded() -> None:
    clock = Clock()
    lane = Lane("serial:x", clock, threaded=False)

    def slow() -> None:
        clock.t += 2.0

    with pytest.raises(Timeout, match="serial:x: the reply took 2 s, longer than 1 s"):
        await lane.call(slow, deadline_s=1.0)
    assert lane.counters.errors == 1
    assert lane.counters.transactions == 0


async def test_closing_a_hung_lane_does_not_wait() -> None:
    release = threading.Event()
    closed: list[int] = []
    lane = Lane("x", time.monotonic)
    with pytest.raises(Hung):
        await lane.call(release.wait, deadline_s=SHORT_S)
    await lane.close(lambda: closed.append(1))
    assert closed == []
    release.set()


async def test_a_failing_or_hanging_close_is_left_behind() -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(LONG_S)

    lane = Lane("x", time.monotonic)
    await lane.call(lambda: 1, deadline_s=LONG_S)
    await lane.close(hang, deadline_s=SHORT_S)
    release.set()
    assert lane.counters.errors == 1
    await lane.close(hang)  # nothing left to close
