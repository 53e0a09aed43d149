"""Who uses a bus for how long: whoever sets a meter in its context is charged by the lanes themselves.

A control loop runs as a task of its own, so its context, and with it the meter, follows every call that it makes.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class BusUse:
    """Transactions and the seconds that they held their lanes; waiting for another's transaction is not in it."""

    seconds: float = 0.0
    transactions: int = 0

    def charge(self, seconds: float) -> None:
        self.seconds += seconds
        self.transactions += 1


in_use: ContextVar[BusUse | None] = ContextVar("bus_use", default=None)


def charge(seconds: float) -> None:
    """For lanes: one transaction of the present context, whether it succeeded or not."""
    meter = in_use.get()
    if meter is not None:
        meter.charge(seconds)
