"""A sweep of one leased output: values written one after the other, readings taken beside each, raw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qmodd.app.leases import Lease, Leases, told_limit, within
from qmodd.app.outputs import Readings
from qmodd.requests import Refusal

MOST_POINTS = 1000
# Numbers in one answer: it has to fit into one message.
MOST_NUMBERS = 8000
MOST_SECONDS = 600.0
MOST_SETTLE_S = 10.0


@dataclass(frozen=True)
class SweepPlan:
    """`start` to `stop` in the output's unit, both included; `settle_s` after each write; `stay` at the last value."""

    output: str
    start: float
    stop: float
    points: int
    settle_s: float
    read: tuple[str, ...]
    stay: bool = False

    @property
    def values(self) -> list[float]:
        return [float(v) for v in np.linspace(self.start, self.stop, self.points)]

    def check(self, leases: Leases, readings: Readings) -> None:
        """Everything before the first write. Raises Refusal with field, value, unit and limit."""
        within("points", self.points, 1, MOST_POINTS, "points")
        within("settle", self.settle_s, 0.0, MOST_SETTLE_S, "s")
        within("points x settle", self.points * self.settle_s, 0.0, MOST_SECONDS, "s")
        within("points x (1 + read)", self.points * (1 + len(self.read)), 1, MOST_NUMBERS, "numbers")
        if unknown := [name for name in self.read if name not in readings.units]:
            raise Refusal("bad_arguments", f"read: no reading {unknown[0]!r}; there are {', '.join(readings.names)}")
        limits = leases.outputs[self.output].quantity().limits
        for field, value in (("from", self.start), ("to", self.stop)):
            if not limits.low <= value <= limits.high:
                raise Refusal(
                    "out_of_range",
                    f"{field} = {value:g} {limits.unit}: {self.output} may be {limits.low:g} to {limits.high:g} "
                    f"{limits.unit}; nothing was changed",
                    told_limit(self.output, value, limits.low, limits.high, limits.unit),
                )


async def sweep(
    plan: SweepPlan, lease: Lease, leases: Leases, readings: Readings, progress: Callable[[float, str], None]
) -> dict[str, Any]:
    """Raw data of a checked plan: `columns[{name, unit}]` and `rows`; the set value first, as the device took it.

    Afterwards the output is where it was before the sweep. A sweep is a sign of life of the lease's holder. Raises
    Refusal when the lease ends meanwhile, or a DriverError.
    """
    output, before = leases.outputs[plan.output], leases.outputs[plan.output].value
    rows: list[list[float]] = []

    def on_the_way(_fraction: float, where: str) -> None:
        progress(len(rows) / plan.points, where)

    try:
        for i, value in enumerate(plan.values):
            await leases.write(lease, value, on_the_way)
            await asyncio.sleep(plan.settle_s)
            rows.append([output.value, *await readings.take(list(plan.read))])
            leases.renew(lease)
            progress((i + 1) / plan.points, f"{plan.output} {output.value:g} {output.unit}")
    finally:
        if not plan.stay and leases.held(plan.output) is not None:
            await leases.write(lease, before, on_the_way)
    columns = [{"name": plan.output, "unit": output.unit}]
    columns += [{"name": name, "unit": readings.units[name]} for name in plan.read]
    return {"columns": columns, "rows": rows, "value": output.value}
