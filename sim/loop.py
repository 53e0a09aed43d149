"""An event loop in simulated time: when nothing is ready, the clock jumps to the next timer.

Timers, sleeps and time-outs cost no real time, so a day runs as fast as it computes, and one seed gives one order of
events. While a thread of the default executor is at work, time stands still. Do not use it with uvloop, which ignores
an overridden clock; code that blocks (time.sleep) blocks really.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import selectors
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_OWN_DESCRIPTORS = 1
"""The loop's self-pipe."""


class Deadlock(RuntimeError):
    """Nothing is scheduled and nothing can arrive: every task waits for another one."""


class _JumpingSelector(selectors.DefaultSelector):
    """Polls real I/O; instead of waiting, moves the loop's clock."""

    loop: SimulatedLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._look(0.0)
        if events or timeout == 0:
            return events
        loop = self.loop
        if loop.busy:
            return self._look(None)  # a thread ends through the self-pipe
        if loop.external_grace_s is not None:
            events = self._look(loop.external_grace_s)
            if events:
                return events
        if timeout is None:
            if loop.external_grace_s is None and len(self.get_map()) <= _OWN_DESCRIPTORS:
                raise Deadlock(loop.describe_deadlock())
            return self._look(None)
        loop.jump(timeout)
        return []

    def _look(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        found: list[tuple[selectors.SelectorKey, int]] = super().select(timeout)
        return found


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`time()` starts at `start` and jumps.

    external_grace_s: None in one process; a number of real seconds when sockets of other processes take part: that
    long the loop waits for them before each jump. Raises Deadlock from run_forever/run_until_complete when every task
    waits and neither a timer, a thread nor a descriptor could wake one.
    """

    def __init__(self, start: float = 0.0, *, external_grace_s: float | None = None) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self._now = start
        self.jumps = 0
        self.busy = 0
        self.external_grace_s = external_grace_s
        super().__init__(selector)
        # Timers closer than this run together. Small against any period, large against rounding of a month in seconds.
        self._clock_resolution = 1e-8

    def time(self) -> float:
        return self._now

    def time_source(self) -> float:
        """The same as a plain function, for sim.clock.CallbackClock."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Move the clock forward. For a simulated delay inside a synchronous call, too."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now += seconds
        self.jumps += 1

    def run_in_executor(
        self, executor: concurrent.futures.Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As the base class; time stands still until the thread is done (asyncio.to_thread comes through here)."""
        self.busy += 1
        try:
            future = super().run_in_executor(executor, func, *args)
        except BaseException:
            self.busy -= 1
            raise
        future.add_done_callback(self._idle)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """As the base class, which joins the threads from yet another thread."""
        self.busy += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self.busy -= 1

    def describe_deadlock(self) -> str:
        """Which tasks wait, and where."""
        waiting = [_describe(task) for task in asyncio.all_tasks(self)]
        return f"nothing is scheduled at t = {self._now:.6f} s; waiting: " + ("; ".join(sorted(waiting)) or "no task")

    def _idle(self, _future: object) -> None:
        self.busy -= 1


def _describe(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack(limit=1)
    where = f" at {stack[0].f_code.co_qualname}:{stack[0].f_lineno}" if stack else ""
    return task.get_name() + where


def run_simulated(main: Callable[[SimulatedLoop], Any], *, start: float = 0.0) -> Any:
    """Run coroutine `main(loop)` on a fresh loop in simulated time; returns its result and cleans up."""
    loop = SimulatedLoop(start)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))
