"""Who has which output: loops own them, a person may borrow one for a time.

A lease is taken by name, renewed by its holder and given back by command, at its end, when the holder falls silent, or
when the module goes safe. Meanwhile the loop of that output lets go (`free` is False), and no keys are made where keys
rest on it. When it ends the output returns to where it was, and the loop takes over again (reference house, rule 4).
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from drivers.errors import DriverError
from qmodd.app.outputs import Output, expand
from qmodd.clock import Clock
from qmodd.messages import Limit
from qmodd.requests import Refusal

MOST_S = 3600.0
HEARTBEAT_S = (2.0, 120.0)
RAMP_STEP_S = 0.5
# A client that waits hears of a ramp after so many steps.
TOLD_STEPS = 4
NOBODY = "nobody: at the value last written"

Record = Callable[[str, Mapping[str, Any]], object]
# Hears how far a ramp is: the fraction of the way, and where the output is.
Told = Callable[[float, str], None]


def untold(_fraction: float, _text: str) -> None:
    """For who does not want to know."""


@dataclass(frozen=True)
class Lease:
    """One output in somebody's hands. Times are monotonic seconds; `before` is the value when it was taken."""

    output: str
    client: str
    unit: str
    before: float
    since_s: float
    until_s: float
    heartbeat_s: float
    seen_s: float

    def over(self, now_s: float) -> str | None:
        """Why it has ended by itself; None while it holds."""
        if now_s >= self.until_s:
            return "its time is over"
        if now_s - self.seen_s > self.heartbeat_s:
            return f"{self.client} has not renewed it for {now_s - self.seen_s:.0f} s"
        return None


@dataclass
class Leases:
    """`outputs` by name; `record` takes an event's name and fields. `listeners` hear (output, leased) on every change;
    with False the output is back where it was before."""

    outputs: Mapping[str, Output]
    clock: Clock
    record: Record
    listeners: list[Callable[[str, bool], None]] = field(default_factory=list)
    _held: dict[str, Lease] = field(default_factory=dict, init=False)
    _owners: dict[str, str] = field(default_factory=dict, init=False)

    # for loops

    def held(self, name: str) -> Lease | None:
        return self._held.get(name)

    def free(self, name: str) -> bool:
        """May the output's loop write?"""
        return name not in self._held

    def any(self) -> Lease | None:
        """One of the leases; None: nothing is leased."""
        return next(iter(self._held.values()), None)

    def keys_held(self) -> str | None:
        """Why no keys may be made now; None: no lease is in their way."""
        for lease in self._held.values():
            if self.outputs[lease.output].keys_rest_on_it:
                return f"output {lease.output} is leased by {lease.client}"
        return None

    def own(self, name: str, owner: str) -> None:
        """Register who drives an output when nobody has leased it, such as `loop interferometer phase`."""
        self._owners[name] = owner

    def owner(self, name: str) -> str:
        lease = self._held.get(name)
        return f"lease: {lease.client}" if lease else self._owners.get(name, NOBODY)

    def owners(self) -> list[dict[str, str]]:
        """Every output with its owner, for the module's state."""
        return [{"output": name, "owner": self.owner(name)} for name in self.outputs]

    # for commands

    def take(self, name: str, client: str, seconds: float, heartbeat_s: float) -> tuple[Lease, ...]:
        """Lease an output, or all of an instrument, or renew one's own lease. All or nothing.

        Raises Refusal: unknown output, time out of range, leased by another client.
        """
        names = self._expand(name)
        within("seconds", seconds, 1.0, MOST_S, "s")
        within("heartbeat_s", heartbeat_s, *HEARTBEAT_S, "s")
        for n in names:
            if (other := self._held.get(n)) is not None and other.client != client:
                raise Refusal("leased", f"{n} is leased by {other.client}; it ends in {self._left(other):.0f} s")
        return tuple(self._take(n, client, seconds, heartbeat_s) for n in names)

    async def give_back(self, name: str, client: str, told: Told = untold) -> tuple[str, ...]:
        """`told` hears how far the way back is, which a ramp makes long. Raises Refusal when the client has none of
        it."""
        mine = [n for n in self._expand(name) if (held := self._held.get(n)) is not None and held.client == client]
        if not mine:
            raise Refusal("not_leased", f"{client} has not leased {name}")
        for n in mine:
            await self._end(self._held[n], "given back", told)
        return tuple(mine)

    def renew(self, lease: Lease) -> None:
        """The holder has shown a sign of life; a lease that has ended stays ended."""
        if (now := self._same(lease)) is not None:
            self._held[lease.output] = replace(now, seen_s=self.clock.monotonic())

    async def write(self, lease: Lease, value: float, told: Told = untold) -> None:
        """Move a leased output, never faster than its ramp; `told` hears how far it is. Raises Refusal when the lease
        has ended meanwhile, or a DriverError."""
        output = self.outputs[lease.output]
        way = abs(value - output.value)
        for steps in itertools.count():
            if steps % TOLD_STEPS == TOLD_STEPS - 1:
                told(1.0 - abs(value - output.value) / way, f"{lease.output} {output.value:g} {output.unit}")
            if self._same(lease) is None:
                raise Refusal("wrong_state", f"the lease of {lease.output} has ended; nothing more was written")
            step = value
            if output.ramp_per_s is not None:
                reach = output.ramp_per_s * RAMP_STEP_S
                step = min(max(value, output.value - reach), output.value + reach)
            await output.write(step)
            if step == value:
                return
            await asyncio.sleep(RAMP_STEP_S)

    # for the session

    async def step(self, now_s: float) -> None:
        """A loop's step: ends what has run out."""
        for lease in list(self._held.values()):
            if (why := lease.over(now_s)) is not None:
                await self._end(lease, why)

    def end_all(self, why: str) -> None:
        """The session ends: every lease with it. Nothing is written, outputs are about to be made safe."""
        for lease in list(self._held.values()):
            self._forget(lease, why)

    def _expand(self, name: str) -> tuple[str, ...]:
        try:
            return expand(name, self.outputs)
        except LookupError as e:
            raise Refusal("bad_arguments", e.args[0]) from None

    def _take(self, name: str, client: str, seconds: float, heartbeat_s: float) -> Lease:
        now, output = self.clock.monotonic(), self.outputs[name]
        before = self._held.get(name)
        lease = Lease(
            output=name,
            client=client,
            unit=output.unit,
            before=before.before if before else output.value,
            since_s=before.since_s if before else now,
            until_s=now + seconds,
            heartbeat_s=heartbeat_s,
            seen_s=now,
        )
        self._held[name] = lease
        if before is None:
            self.record("lease.taken", {"output": name, "client": client, "seconds": seconds, "value": lease.before})
            self._tell(name, True)
        return lease

    def _same(self, lease: Lease) -> Lease | None:
        now = self._held.get(lease.output)
        return now if now is not None and (now.client, now.since_s) == (lease.client, lease.since_s) else None

    async def _end(self, lease: Lease, why: str, told: Told = untold) -> None:
        try:
            await self.write(lease, lease.before, told)
        except Refusal:
            return  # ended by somebody else while the output was on its way back
        except DriverError as e:
            self.record("lease.not_restored", {"output": lease.output, "why": str(e)[:400]})
        self._forget(lease, why)

    def _forget(self, lease: Lease, why: str) -> None:
        if self._same(lease) is None:
            return
        del self._held[lease.output]
        self.record("lease.ended", {"output": lease.output, "client": lease.client, "why": why})
        self._tell(lease.output, False)

    def _left(self, lease: Lease) -> float:
        return max(0.0, lease.until_s - self.clock.monotonic())

    def _tell(self, name: str, leased: bool) -> None:
        for listener in self.listeners:
            listener(name, leased)

    def described(self, leases: Sequence[Lease]) -> list[dict[str, Any]]:
        """For an answer: what is leased, until when, and between which limits it may be moved."""
        out = []
        for lease in leases:
            output = self.outputs[lease.output]
            limits = output.quantity().limits
            out.append(
                {
                    "output": lease.output,
                    "client": lease.client,
                    "unit": lease.unit,
                    "value": output.value,
                    "low": limits.low,
                    "high": limits.high,
                    "ends_in_s": round(self._left(lease), 1),
                    "heartbeat_s": lease.heartbeat_s,
                    "keys_stop": output.keys_rest_on_it,
                }
            )
        return out


def within(name: str, value: float, low: float, high: float, unit: str) -> None:
    """Raises Refusal with field, value, unit and limit."""
    if not low <= value <= high:
        raise Refusal(
            "out_of_range",
            f"{name} = {value:g} {unit}: {low:g} to {high:g} {unit} is allowed; nothing was changed",
            told_limit(name, value, low, high, unit),
        )


def told_limit(output: str, value: float, low: float, high: float, unit: str) -> Limit:
    """For the answer; what is not a number cannot be told in JSON."""
    return Limit(output=output, value=value if math.isfinite(value) else None, low=low, high=high, unit=unit)
