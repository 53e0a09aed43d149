"""Every bus under a burst of transactions whose answers are known: finds what is dead, noisy or intermittent.

A device alone on its bus cannot be told from the bus while it is silent; then it is the device that is named, for it is
what is swapped first. As long as it answers at all, errors in between are those of the line.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

from drivers.bus.usage import BusUse, in_use
from drivers.errors import DriverError
from drivers.roles import Probed
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits
from qmodd.selftest.power_on_common import device

# A fault that strikes 2 % of the transactions shows at least twice in so many with 99.7 %: 1 - .98^400 (1 + 400/49).
TRANSACTIONS = 400
ALLOWED = 1
# Spread over a while, so that what comes and goes is met, and others get their turn on the bus.
AT_ONCE, PAUSE_S = 10, 0.004
# More is not learnt from a device that fails all the time, and each failure may cost its deadline.
ENOUGH = 12
# So many failures on end, each repeated as often as the bus does, are no noise.
SILENT = 4
ERRORS = Limits(0.0, ALLOWED, warn_high=0.0)


@dataclass(frozen=True)
class Burst:
    """What came of one device's transactions: `wrong` failed or brought a wrong answer, repetitions counted; `silent`
    when none of the last ones was right."""

    role: str
    right: int
    wrong: int
    silent: bool
    why: str

    @property
    def bad(self) -> bool:
        return self.wrong > ALLOWED


async def run(bench: Bench) -> list[Finding]:
    """Serial lines side by side, for they are slow; of all other devices one at a time: control goes on meanwhile."""
    members, turn = by_bus(bench), asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        tasks = {b: group.create_task(_bus(bench, roles, turn), name=f"burst {b}") for b, roles in members.items()}
    return [f for bus, task in tasks.items() for f in _judge(bench, bus, task.result())]


def by_bus(bench: Bench) -> dict[str, list[str]]:
    """Part name of each bus to the roles on it that can be probed."""
    out: dict[str, list[str]] = {}
    for role in bench.module.devices:
        if isinstance(device(bench, role), Probed):
            out.setdefault(bench.bus(role), []).append(role)
    return out


async def _bus(bench: Bench, roles: list[str], turn: asyncio.Lock) -> list[Burst]:
    found = []
    for role in roles:
        if bench.module.config.by_role(role).address.startswith("serial:"):
            found.append(await burst(bench, role))
        else:
            async with turn:
                found.append(await burst(bench, role))
    return found


async def burst(bench: Bench, role: str, transactions: int = TRANSACTIONS) -> Burst:
    """Attempts are counted where the bus makes them and for this task alone: what it repeated is in them, and what
    others do on the bus is not."""
    probed = cast(Probed, device(bench, role))
    meter = BusUse()
    token = in_use.set(meter)
    right = asked = in_a_row = 0
    why = ""
    try:
        for asked in range(1, transactions + 1):
            if asked % AT_ONCE == 1:
                await bench.sleep(PAUSE_S)
            said = await _ask(probed)
            right, in_a_row = (right, in_a_row + 1) if said else (right + 1, 0)
            why = why or said
            if max(meter.transactions, asked) - right >= ENOUGH:
                break
    finally:
        in_use.reset(token)
    return Burst(role, right, max(meter.transactions, asked) - right, in_a_row >= SILENT, why)


async def _ask(probed: Probed) -> str:
    """Empty for the right answer, else what came instead."""
    try:
        return "" if await probed.known_answer() else "a wrong answer"
    except DriverError as error:
        return str(error)


def _judge(bench: Bench, bus: str, bursts: list[Burst]) -> list[Finding]:
    name = f"errors.{bus.removeprefix('bus ')}"
    if len(bursts) == 1:
        return [_alone(bench, name, bus, bursts[0])]
    bad = [b for b in bursts if b.bad]
    named = ", ".join(bench.part(b.role) for b in bad)
    hint = f"{named} have errors: look at what they share, its lines, pull-ups and connector"
    shared = Finding(name, len(bad), "devices", Limits(0.0, 1.0), bus, hint=hint if bad else "")
    return [shared, *(_one(bench, bus, b) for b in bursts)]


def _alone(bench: Bench, name: str, bus: str, burst: Burst) -> Finding:
    if burst.silent:
        return _one(bench, bus, burst)
    hint = f"errors in between: {burst.why}" if burst.why else ""
    return Finding(name, burst.wrong, "errors", ERRORS, bus, hint=hint)


def _one(bench: Bench, bus: str, burst: Burst) -> Finding:
    part = bench.part(burst.role)
    asked = f"{burst.right} right answers and {burst.wrong} errors"
    hint = f"{asked}; first: {burst.why}" if burst.why else ""
    return Finding(f"errors.{part}", burst.wrong, "errors", ERRORS, part, (bus,), hint)


CHECKS: tuple[Check, ...] = (Check("buses", Level.POWER_ON, run, budget_s=10.0),)
