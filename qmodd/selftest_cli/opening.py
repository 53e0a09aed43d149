"""What opening a module says of its parts: every device that does not open is a finding, not the end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping

from drivers.errors import DriverError
from qmodd.module import Module
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Finding, Level, Limits, skipped

OPENED = Limits.exactly(1.0)


async def open_devices(module: Module) -> dict[str, str]:
    """Opens and identifies all of them, the platform first, so that the rails are known to be off. Returns why, by the
    role of each that did not open; identities are in `module.identities`."""
    faults: dict[str, str] = {}

    async def one(role: str) -> None:
        try:
            module.identities[role] = await module.devices[role].open()
        except DriverError as e:
            faults[role] = str(e)

    await one("platform")
    async with asyncio.TaskGroup() as group:
        for role in module.devices:
            if role != "platform":
                group.create_task(one(role), name=f"open {role}")
    return faults


def opening(bench: Bench, faults: Mapping[str, str]) -> Iterator[Finding]:
    """A finding a device; and one for each bus of which no device answers: then it is the bus, not all of them."""
    buses: dict[str, list[str]] = {}
    for role in bench.module.devices:
        buses.setdefault(bench.bus(role), []).append(role)
    for bus, roles in buses.items():
        if len(roles) > 1 and all(role in faults for role in roles):
            named = ", ".join(bench.part(role) for role in roles)
            yield _opens(bus, bus, False, (), f"none of its devices answers: {named}")
    for role in bench.module.devices:
        part = bench.part(role)
        yield _opens(part, part, role not in faults, (bench.bus(role),), faults.get(role, ""))


def _opens(what: str, part: str, good: bool, needs: tuple[str, ...], why: str) -> Finding:
    name = "opens." + "".join(c if c.isalnum() else "_" for c in what)
    return Finding(name, float(good), "", OPENED, part, needs, hint=why)


def failed(name: str, part: str, why: str, needs: tuple[str, ...] = (), level: Level = Level.POWER_ON) -> Finding:
    """Something that has no value of its own and is not in order."""
    return Finding(name, 0.0, "", OPENED, part, needs, hint=why, level=level)


def not_run(levels: Iterable[Level], why: str) -> Iterator[Finding]:
    """Levels that were wanted and could not be begun."""
    for level in levels:
        found = skipped(f"{level.value.replace('-', '_')}.run", "self-test", why)
        yield Finding(found.name, math.nan, "", found.limits, found.part, skipped=why, level=level)
