"""The commands `lease`, `release` and `sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qmodd.app.leases import Leases
from qmodd.app.operator import Operator
from qmodd.app.outputs import expand, readings
from qmodd.app.sweep import SweepPlan, sweep
from qmodd.app.wiring import Wiring
from qmodd.lifecycle import Activity
from qmodd.requests import Arguments, Handler, Refusal, report_progress, requesting

LEASE_S, HEARTBEAT_S, SETTLE_S = 600.0, 30.0, 0.05
WORKING = (Activity.LOCKING, Activity.READY, Activity.KEYING)


def lease_handlers(wiring: Wiring, operator: Operator) -> Mapping[str, Handler]:
    """By command name."""
    commands = LeaseCommands(wiring, operator)
    return {"lease": commands.lease, "release": commands.release, "sweep": commands.sweep}


class LeaseCommands:
    def __init__(self, wiring: Wiring, operator: Operator) -> None:
        self._wiring = wiring
        self._operator = operator

    @property
    def _leases(self) -> Leases:
        return self._wiring.leases

    async def lease(self, arguments: Arguments) -> dict[str, Any]:
        """Take an output, or renew the lease. Keys stop first where they rest on it."""
        _known(arguments, "output", "seconds", "heartbeat_s")
        output = _word(arguments, "output")
        seconds, heartbeat_s = (
            _number(arguments, name, default) for name, default in (("seconds", LEASE_S), ("heartbeat_s", HEARTBEAT_S))
        )
        self._in_service()
        leases = self._leases.take(output, _client(), seconds, heartbeat_s)
        if (why := self._leases.keys_held()) is not None and self._wiring.life.activity is Activity.KEYING:
            report_progress(0.5, f"keys stop: {why}")
            await self._wiring.stop_keying(why)
        return {"leases": self._leases.described(leases)}

    async def release(self, arguments: Arguments) -> dict[str, Any]:
        """Give an output back: it returns to where it was, and its loop takes over."""
        _known(arguments, "output")
        given = await self._leases.give_back(_word(arguments, "output"), _client(), report_progress)
        return {"released": [{"output": n, "owner": self._leases.owner(n), "value": self._value(n)} for n in given]}

    async def sweep(self, arguments: Arguments) -> dict[str, Any]:
        """Raw data over an output that this client has leased."""
        _known(arguments, "output", "from", "to", "points", "settle", "read", "stay")
        read, stay = arguments.get("read", []), arguments.get("stay", False)
        if not isinstance(read, list) or not all(isinstance(r, str) for r in read):
            raise Refusal("bad_arguments", "read: a list of readings' names is wanted")
        if not isinstance(stay, bool):
            raise Refusal("bad_arguments", f"stay = {stay!r}: true or false is allowed")
        plan = SweepPlan(
            output=self._one(_word(arguments, "output")),
            start=_number(arguments, "from"),
            stop=_number(arguments, "to"),
            points=_whole(arguments, "points"),
            settle_s=_number(arguments, "settle", SETTLE_S),
            read=tuple(str(r) for r in read),
            stay=stay,
        )
        return await self._sweep(plan)

    async def _sweep(self, plan: SweepPlan) -> dict[str, Any]:
        lease = self._leases.held(plan.output)
        if lease is None or lease.client != _client():
            raise Refusal("not_leased", f"{plan.output} is not leased by {_client()}: lease it first")
        known = readings(self._wiring.module, self._wiring.factory)
        plan.check(self._leases, known)
        return await sweep(plan, lease, self._leases, known, report_progress)

    def _one(self, name: str) -> str:
        try:
            names = expand(name, self._leases.outputs)
        except LookupError as e:
            raise Refusal("bad_arguments", e.args[0]) from None
        if len(names) > 1:
            raise Refusal("bad_arguments", f"{name} is {len(names)} outputs; one of {', '.join(names)} can be swept")
        return names[0]

    def _value(self, output: str) -> float:
        return self._leases.outputs[output].value

    def _in_service(self) -> None:
        life = self._wiring.life
        if not self._operator.in_service or life.activity not in WORKING:
            raise Refusal("wrong_state", f"lease: the module is {life.activity}: {life.why('activity')}")
        if self._operator.walking.locked():
            raise Refusal("wrong_state", "lease: a calibration runs; ask again when it has ended")


def _client() -> str:
    client = requesting()
    return client.name if client else "local"


def _known(arguments: Arguments, *allowed: str) -> None:
    if unknown := sorted(set(arguments) - set(allowed)):
        raise Refusal("bad_arguments", f"unknown argument {unknown[0]!r}; allowed: {', '.join(allowed)}")


def _word(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 64:
        raise Refusal("bad_arguments", f"{name} must be a text of 1 to 64 characters")
    return value


def _number(arguments: Arguments, name: str, default: float | None = None) -> float:
    value = arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal("bad_arguments", f"{name} = {value!r}: a number is wanted")
    return float(value)


def _whole(arguments: Arguments, name: str) -> int:
    value = arguments.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refusal("bad_arguments", f"{name} = {value!r}: a whole number is wanted")
    return value
