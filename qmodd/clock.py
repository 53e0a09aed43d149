"""Injected time: monotonic seconds, UTC and how good UTC is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds; never goes back within one boot."""
        ...

    def utc(self) -> datetime: ...
    def utc_synchronised(self) -> bool:
        """A lifetime of a key is never judged by a clock for which this is False."""
        ...


class SystemClock:
    """The operating system's clocks; the one place of the daemon that asks for them."""

    def monotonic(self) -> float:
        return time.monotonic()

    def utc(self) -> datetime:
        return datetime.now(UTC)

    def utc_synchronised(self) -> bool:
        # adjtimex is not in the standard library; a kernel that is synchronised keeps this file (systemd-timesyncd).
        try:
            with open("/run/systemd/timesync/synchronized", "rb"):
                return True
        except OSError:
            return False


@dataclass
class LoopClock:
    """Simulated time: follows an event loop's own `time()`; UTC starts at a fixed date so that logs are comparable."""

    loop: asyncio.AbstractEventLoop
    epoch: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.loop.time()

    def utc(self) -> datetime:
        return self.epoch + timedelta(seconds=self.loop.time())

    def utc_synchronised(self) -> bool:
        return True
