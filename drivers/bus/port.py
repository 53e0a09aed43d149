"""A library object behind a lane: opened at the first call, dropped after a failure, reopened by the next call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from drivers.bus.lane import Lane
from drivers.errors import BusFault, DriverError

RETRIES = 2
"""How often a harmless transaction is repeated."""
T = TypeVar("T")


class Closable(Protocol):
    def close(self) -> object: ...


H = TypeVar("H", bound=Closable)


class Port(Generic[H]):
    """Owns one handle. Only the lane's thread touches it, so no call can meet a handle that another one is closing.

    `classify` turns an exception of the library or of the protocol above into (what the caller gets, keep the handle).
    `failures` are the exceptions of the library. `open_s` is added to the deadline of a call that must open first.
    """

    def __init__(
        self,
        lane: Lane,
        opener: Callable[[], H],
        failures: tuple[type[Exception], ...],
        classify: Callable[[Exception], tuple[DriverError, bool]],
        open_s: float = 0.0,
    ) -> None:
        self.lane = lane
        self._opener = opener
        self._failures: tuple[type[Exception], ...] = (*failures, DriverError)
        self._classify = classify
        self._open_s = open_s
        self._handle: H | None = None
        self._failed = False

    async def run(
        self,
        work: Callable[[H], T],
        *,
        deadline_s: float,
        harmless: bool = False,
        hard_s: float | None = None,
        fresh: bool = False,
    ) -> T:
        """Run `work(handle)` in the lane.

        `harmless`: it may be repeated after a failure. `hard_s`: when the caller gives up, if later than `deadline_s`
        because the library has its own time-out. `fresh`: on a handle that nothing has been asked of before.
        """
        opens = fresh or self._handle is None
        limit = (deadline_s if hard_s is None else hard_s) + (self._open_s if opens else 0.0)
        attempts = 1 + RETRIES if harmless else 1
        return await self.lane.call(lambda: self._attempt(work, fresh), deadline_s=limit, attempts=attempts)

    async def close(self) -> None:
        """Close the handle and end the lane's thread. A lane that hangs is left to end with its call."""
        await self.lane.close(self._drop)

    def _attempt(self, work: Callable[[H], T], fresh: bool) -> T:
        try:
            if fresh:
                self._drop()
            handle = self._open()
            return work(handle)
        except self._failures as error:
            told, keep = self._classify(error)
            if not keep:
                self._failed = True
                self._drop()
            if told is error:
                raise
            raise told from error

    def _open(self) -> H:
        if self._handle is None:
            self._handle = self._opener()
            if self._failed:
                self.lane.counters.resyncs += 1
            self._failed = False
        return self._handle

    def _drop(self) -> None:
        handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            handle.close()
        except self._failures:
            # The far end is gone already; the handle is forgotten either way.
            self.lane.counters.errors += 1


def io_fault(name: str, error: Exception) -> BusFault:
    """A library's failure in words."""
    reason = str(error) or type(error).__name__
    return BusFault(f"{name}: {reason}")
