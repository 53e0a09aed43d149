from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from sim.clock import CallbackClock
from sim.loop import Deadlock, SimulatedLoop, run_simulated


def test_a_month_of_sleep_takes_no_time_and_ends_on_the_second() -> None:
    async def main(loop: SimulatedLoop) -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        async def tick(name: str, period: float, count: int) -> None:
            for _ in range(count):
                await asyncio.sleep(period)
                seen.append((name, loop.time()))

        async with asyncio.TaskGroup() as group:
            group.create_task(tick("day", 86400.0, 30))
            group.create_task(tick("decade", 864000.0, 3))
        return seen

    seen = run_simulated(main)
    assert seen[-1][1] == 30 * 86400.0
    assert [t for name, t in seen if name == "decade"] == [864000.0, 1728000.0, 2592000.0]
    assert [t for name, t in seen if name == "day"] == [86400.0 * k for k in range(1, 31)]


def test_order_of_events_is_the_same_each_time() -> None:
    async def main(loop: SimulatedLoop) -> tuple[str, int]:
        order = []

        async def worker(name: str, period: float) -> None:
            for _ in range(50):
                await asyncio.sleep(period)
                order.append(name)

        await asyncio.gather(worker("a", 0.1), worker("b", 0.3), worker("c", 0.7))
        return "".join(order), loop.jumps

    assert run_simulated(main) == run_simulated(main)


def test_timeouts_work_in_simulated_time() -> None:
    async def main(loop: SimulatedLoop) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600.0):
                await asyncio.Event().wait()
        return loop.time()

    assert run_simulated(main, start=5.0) == pytest.approx(3605.0)


def test_time_stands_still_while_a_thread_works() -> None:
    async def main(loop: SimulatedLoop) -> tuple[float, float]:
        release = threading.Event()
        timer = asyncio.create_task(asyncio.sleep(1.0))
        work = asyncio.create_task(asyncio.to_thread(release.wait, 5.0))
        for _ in range(3):
            await asyncio.sleep(0)
        before = loop.time()
        release.set()
        assert await work
        at_end = loop.time()
        await timer
        assert loop.busy == 0
        return before, at_end

    assert run_simulated(main) == (0.0, 0.0)


def test_an_executor_that_refuses_does_not_stop_time() -> None:
    async def main(loop: SimulatedLoop) -> float:
        loop._executor_shutdown_called = True  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError):
            await asyncio.to_thread(len, "")
        loop._executor_shutdown_called = False  # type: ignore[attr-defined]
        await asyncio.sleep(2.0)
        return loop.time()

    assert run_simulated(main) == 2.0


def test_deadlock_says_who_waits() -> None:
    async def stuck() -> None:
        await asyncio.get_running_loop().create_future()

    with SimulatedLoopClosing() as loop:
        task = loop.create_task(stuck(), name="the stuck one")
        with pytest.raises(Deadlock, match=r"t = 0\.000000 s; waiting: the stuck one at .*stuck:\d+"):
            loop.run_until_complete(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        assert loop.describe_deadlock().endswith("no task")


def test_a_descriptor_can_still_wake_a_loop_without_timers() -> None:
    near, far = socket.socketpair()
    with SimulatedLoopClosing() as loop, near, far:
        near.setblocking(False)
        threading.Timer(0.02, far.sendall, (b"x",)).start()
        assert loop.run_until_complete(loop.sock_recv(near, 1)) == b"x"
        assert loop.time() == 0.0


def test_with_external_sockets_input_comes_before_the_next_jump() -> None:
    near, far = socket.socketpair()
    with SimulatedLoopClosing(external_grace_s=5.0) as loop, near, far:
        near.setblocking(False)
        threading.Timer(0.02, far.sendall, (b"x",)).start()

        async def main() -> float:
            loop.call_later(60.0, lambda: None)
            await loop.sock_recv(near, 1)
            return loop.time()

        assert loop.run_until_complete(main()) == 0.0


def test_grace_over_the_clock_jumps() -> None:
    with SimulatedLoopClosing(external_grace_s=0.0) as loop:
        loop.run_until_complete(asyncio.sleep(7.0))
        assert CallbackClock(loop.time_source).now() == 7.0
        loop.jump(0.5)
        assert loop.time() == 7.5
        with pytest.raises(ValueError, match="back"):
            loop.jump(-1.0)


class SimulatedLoopClosing:
    """A loop that is closed at the end of a test."""

    def __init__(self, *, external_grace_s: float | None = None) -> None:
        self._loop = SimulatedLoop(external_grace_s=external_grace_s)

    def __enter__(self) -> SimulatedLoop:
        return self._loop

    def __exit__(self, *_: object) -> None:
        self._loop.close()
