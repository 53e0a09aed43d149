"""One lane a bus: one worker thread, one transaction at a time, a deadline for each.

A blocking library call cannot be interrupted. So the caller leaves at its deadline with `Timeout`, the lane is *hung*
until the thread comes back, and meanwhile every further call is refused at once by name instead of queueing. Other
lanes and the event loop never notice.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from drivers.bus.usage import charge
from drivers.errors import BusFault, DriverError, Timeout
from drivers.roles import BusCounters

T = TypeVar("T")
Job = tuple["concurrent.futures.Future[Any]", Callable[[], Any]]


class Hung(Timeout):
    """The bus's worker thread is still inside a library call whose deadline has passed."""


class _Worker:
    """A daemon thread that runs one job after another.

    Not a ThreadPoolExecutor: the interpreter joins those threads when it exits, so one hung library call would keep a
    stopping daemon alive for ever.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"bus {name}", daemon=True).start()

    def submit(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._jobs.put((future, work))
        return future

    def stop(self) -> None:
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del job, future, work  # a waiting worker must not keep the last answer alive


class Lane:
    """Runs transactions of one bus. `clock` gives monotonic seconds; `threaded` False runs them in place."""

    def __init__(self, name: str, clock: Callable[[], float], *, threaded: bool = True) -> None:
        self.name = name
        self.clock = clock
        self.counters = BusCounters()
        self._threaded = threaded
        self._worker: _Worker | None = None
        self._lock = asyncio.Lock()
        self._running: concurrent.futures.Future[Any] | None = None
        self._late = False

    @property
    def hung(self) -> bool:
        """True while the worker thread is inside a call whose deadline has passed."""
        return self._late and self._running is not None and not self._running.done()

    async def call(self, work: Callable[[], T], *, deadline_s: float, attempts: int = 1) -> T:
        """Run `work` in the lane and return its result.

        `attempts` above 1 repeats after BusFault and Timeout: only for a transaction whose repetition is harmless.
        Raises what `work` raises, Timeout at the deadline (each attempt has its own), Hung while an earlier call hangs.
        """
        for left in range(attempts - 1, -1, -1):
            started = self.clock()
            try:
                result = await self._threaded_call(work, deadline_s) if self._threaded else self._direct_call(work)
                self._account(started, deadline_s)
                return result
            except (BusFault, Timeout) as error:
                self.counters.errors += 1
                if not left or isinstance(error, Hung):
                    raise
                self.counters.retries += 1
        raise ValueError(f"{self.name}: attempts must be at least 1, not {attempts}")

    async def close(self, work: Callable[[], None], *, deadline_s: float = 1.0) -> None:
        """Run `work` (closing the library object) as the last job, unless the lane hangs; then end the thread."""
        if not self._threaded:
            work()
            return
        if self._worker is None:
            return
        try:
            if not self.hung:
                await self._threaded_call(work, deadline_s)
        except DriverError:
            # Nothing depends on a clean close; the thread is a daemon and ends with its call.
            self.counters.errors += 1
        finally:
            self._worker.stop()
            self._worker = None

    def _account(self, started: float, deadline_s: float) -> None:
        took = self.clock() - started
        if not self._threaded and took > deadline_s:
            raise Timeout(f"{self.name}: the reply took {took:.3g} s, longer than {deadline_s:.3g} s; it was discarded")
        counters = self.counters
        counters.transactions += 1
        counters.latency_s_last = took
        counters.latency_s_sum += took
        counters.latency_s_max = max(counters.latency_s_max, took)

    def _direct_call(self, work: Callable[[], T]) -> T:
        started = self.clock()
        try:
            return work()
        finally:
            charge(self.clock() - started)

    async def _threaded_call(self, work: Callable[[], T], deadline_s: float) -> T:
        async with self._lock:
            await self._previous_returned(deadline_s)
            if self._worker is None:
                self._worker = _Worker(self.name)
            self._late = False
            started = self.clock()
            running = self._running = self._worker.submit(work)
            try:
                return await self._result(running, deadline_s)
            finally:
                charge(self.clock() - started)

    async def _previous_returned(self, deadline_s: float) -> None:
        """A cancelled caller leaves its transaction running; wait for it, but not for one that is known to hang."""
        if self._running is None or self._running.done():
            return
        if not self._late:
            waiter = asyncio.wrap_future(self._running)
            done, _ = await asyncio.wait({waiter}, timeout=deadline_s)
            if done:
                waiter.exception()  # its caller is gone; seen, so that nothing is logged about it
                return
            waiter.cancel()
            self._late = True
        raise Hung(f"{self.name}: the bus hangs in a call that has passed its deadline; nothing was sent")

    async def _result(self, running: concurrent.futures.Future[T], deadline_s: float) -> T:
        waiter = asyncio.wrap_future(running)
        try:
            done, _ = await asyncio.wait({waiter}, timeout=deadline_s)
            if done:
                return waiter.result()
        finally:
            waiter.cancel()  # no effect on a finished one; detaches this loop from one that runs on
        self._late = True
        raise Hung(f"{self.name}: no return from the bus within {deadline_s:.3g} s; it is refused until it returns")
