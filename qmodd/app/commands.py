"""What a signed request may do to a module. Each handler answers with what *is* afterwards, not with what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qmodd.app.operator import Operator
from qmodd.app.wiring import Wiring
from qmodd.lifecycle import Administrative
from qmodd.requests import Arguments, Handler, Refusal


def handlers(wiring: Wiring, operator: Operator) -> Mapping[str, Handler]:
    """By command name."""
    commands = Commands(wiring, operator)
    return {
        "start": commands.start,
        "stop": commands.stop,
        "safe": commands.safe,
        "lock": commands.lock,
        "unlock": commands.unlock,
        "calibrate": commands.calibrate,
    }


class Commands:
    def __init__(self, wiring: Wiring, operator: Operator) -> None:
        self._wiring = wiring
        self._operator = operator

    async def start(self, arguments: Arguments) -> dict[str, Any]:
        """Ask for keys, and leave a safe state that was commanded."""
        _only(arguments)
        self._not_locked("start")
        self._wiring.keys_wanted, self._wiring.why_not_wanted = True, ""
        self._operator.release()
        return self._state()

    async def stop(self, arguments: Arguments) -> dict[str, Any]:
        """No more keys; light, locks and temperature stay."""
        _only(arguments)
        self._wiring.keys_wanted, self._wiring.why_not_wanted = False, "keys stopped by command"
        await self._wiring.stop_keying("keys stopped by command")
        return self._state()

    async def safe(self, arguments: Arguments) -> dict[str, Any]:
        """Every output to its safe value until `start`."""
        _only(arguments)
        self._operator.hold("safe state by command; `start` leaves it")
        return self._state()

    async def lock(self, arguments: Arguments) -> dict[str, Any]:
        """Administratively locked: dark, over restarts too, until `unlock`."""
        why = _text(arguments, "why", "locked by command")
        self._wiring.life.set_administrative(Administrative.LOCKED, why)
        self._operator.interrupt(f"locked: {why}")
        return self._state()

    async def unlock(self, arguments: Arguments) -> dict[str, Any]:
        why = _text(arguments, "why", "unlocked by command")
        self._wiring.life.set_administrative(Administrative.UNLOCKED, why)
        self._operator.release()
        return self._state()

    async def calibrate(self, arguments: Arguments) -> dict[str, Any]:
        """Redo one calibration, or all, whatever their state; keys stop meanwhile."""
        _only(arguments, "target")
        self._not_locked("calibrate")
        names = self._operator.graph().names
        target = _text(arguments, "target", "all")
        if target != "all" and target not in names:
            raise Refusal("bad_arguments", f"target {target!r} is none of all, {', '.join(names)}")
        self._operator.force = frozenset(names if target == "all" else (target,))
        self._operator.interrupt(f"calibration of {target} by command")
        return self._state()

    def _not_locked(self, command: str) -> None:
        life = self._wiring.life
        if life.administrative is Administrative.LOCKED:
            raise Refusal(
                "wrong_state", f"{command}: the module is locked ({life.why('administrative')}); unlock first"
            )

    def _state(self) -> dict[str, Any]:
        return self._wiring.life.snapshot()


def _only(arguments: Arguments, *allowed: str) -> None:
    unknown = sorted(set(arguments) - set(allowed))
    if unknown:
        raise Refusal("bad_arguments", f"unknown argument {unknown[0]!r}; allowed: {', '.join(allowed) or 'none'}")


def _text(arguments: Arguments, name: str, default: str) -> str:
    _only(arguments, name)
    value = arguments.get(name, default)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise Refusal("bad_arguments", f"{name} must be a text of 1 to 200 characters")
    return value
