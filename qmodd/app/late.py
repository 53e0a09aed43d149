"""Which loops of a scheduler are silent: what the hardware watchdog's line hangs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qmodd.control.loop import Scheduler


@dataclass
class Late:
    """What the watchdog asks: loops that have not checked in."""

    scheduler: Scheduler
    now: Callable[[], float]

    def late(self) -> list[str]:
        return [f"{name} (silent for {age:.1f} s)" for name, age in self.scheduler.check_in.late(self.now()).items()]
