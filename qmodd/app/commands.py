"""What a signed request may do to a module. Each handler answers with what *is* afterwards, not with what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from qmodd.app.alarm_commands import alarm_handlers
from qmodd.app.field_commands import field_handlers
from qmodd.app.following import Following
from qmodd.app.key_commands import key_handlers
from qmodd.app.lease_commands import lease_handlers
from qmodd.app.operator import Operator
from qmodd.app.safekeeping import StillViolated
from qmodd.app.security_commands import security_handlers
from qmodd.app.setting_effects import setting_handlers
from qmodd.app.wiring import Wiring
from qmodd.command_check import checked
from qmodd.lifecycle import Activity, Administrative
from qmodd.requests import Arguments, Handler, Refusal, report_progress, requesting
from qmodd.selftest.model import Level
from qmodd.selftest.words import verdict

# How often a client that waits hears that work goes on.
PROGRESS_S = 5.0


def handlers(wiring: Wiring, operator: Operator) -> Mapping[str, Handler]:
    """By command name."""
    commands = Commands(wiring, operator)
    found = {
        "start": commands.start,
        "stop": commands.stop,
        "safe": commands.safe,
        "lock": commands.lock,
        "unlock": commands.unlock,
        "calibrate": commands.calibrate,
        "selftest": commands.selftest,
        "monitors": commands.monitors,
        "record": commands.record,
        "rollback": commands.rollback,
        "clear-latch": commands.clear_latch,
        **lease_handlers(wiring, operator),
        **alarm_handlers(wiring),
        **field_handlers(wiring),
        **setting_handlers(wiring),
        **security_handlers(wiring),
        **key_handlers(wiring),
    }
    return checked(found)


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
        _only(arguments, "why")
        why = _text(arguments, "why", "locked by command")
        self._wiring.life.set_administrative(Administrative.LOCKED, why)
        self._operator.interrupt(f"locked: {why}")
        return self._state()

    async def unlock(self, arguments: Arguments) -> dict[str, Any]:
        _only(arguments, "why")
        why = _text(arguments, "why", "unlocked by command")
        self._wiring.life.set_administrative(Administrative.UNLOCKED, why)
        self._operator.release()
        return self._state()

    async def calibrate(self, arguments: Arguments) -> dict[str, Any]:
        """Redo one calibration, or all, whatever their state: `force`. Without it, only what is out. In service it is
        done between blocks where keys rest on it. With `wait` it is answered when all are made or have failed, and
        progress is told until then."""
        _only(arguments, "target", "force", "wait")
        self._not_locked("calibrate")
        names = self._operator.graph().names
        target, force, wait = (
            _text(arguments, "target", "all"),
            _flag(arguments, "force", True),
            _flag(arguments, "wait"),
        )
        if target != "all" and target not in names:
            raise Refusal("bad_arguments", f"target {target!r} is none of all, {', '.join(names)}")
        asked = frozenset(names if target == "all" else (target,))
        if not force:
            asked &= frozenset(due.name for due in self._operator.due())
        report_progress(0.0, f"{len(asked)} of {len(names)} calibrations to redo")
        following = Following(self._wiring, asked)
        with following.listening():
            if asked:
                self._operator.request_calibration(asked, who())
            became = await following.until_done(report_progress) if wait else {}
        return {**self._state(), "asked": sorted(asked), **became}

    async def selftest(self, arguments: Arguments) -> dict[str, Any]:
        """Test the module up to a level: keys stop, outputs go back, keys come again; a failure leaves the module dark.
        A module that is dark after a failure runs it at its next start. With `wait` it is answered when the test is
        over."""
        _only(arguments, "level", "wait", "force")
        self._not_locked("selftest")
        level, force, wait = _level(arguments), _flag(arguments, "force"), _flag(arguments, "wait")
        if latched := self._operator.dark_latch():
            raise Refusal("wrong_state", f"selftest: {latched}; clear the latch first"[:480])
        done = self._operator.selftesting.ask(level, who(), force)
        if done is None:
            return {**self._state(), "asked": level.value, "at": "next start"}
        if not wait:
            return {**self._state(), "asked": level.value, "at": "once"}
        while not done.done():
            report_progress(self._operator.selftesting.fraction, f"{level} self-test")
            await asyncio.wait({done}, timeout=PROGRESS_S)
        report = done.result()
        return {
            **self._state(),
            "level": report.level.value,
            "passed": report.passed,
            "verdict": verdict(report),
            "suspects": list(report.suspects),
            "seconds": round(report.seconds, 3),
        }

    async def monitors(self, arguments: Arguments) -> dict[str, Any]:
        """Every monitor of one moment with limits and flags. `freeze`: of now, else of the last one; `clear`: latched
        flags are forgotten once they are told."""
        _only(arguments, "freeze", "clear")
        freeze, clear = _flag(arguments, "freeze", True), _flag(arguments, "clear")
        client = requesting()
        if clear and client is not None and client.role == "viewer":
            raise Refusal("not_allowed", "monitors: a viewer may read flags, not clear them")
        desk, life = self._operator.monitor_desk, self._wiring.life
        if freeze and life.activity is Activity.SAFE:
            raise Refusal(
                "wrong_state", f"monitors: the module is safe ({life.why('activity')}); freeze=false tells the last"
            )
        if freeze and self._wiring.heartbeats_rest:
            raise Refusal("busy", "monitors: a self-test has the buses; freeze=false tells the last moment")
        if freeze:
            await desk.freeze()
        try:
            return desk.monitors.told(clear)
        except LookupError as e:
            raise Refusal("wrong_state", f"monitors: {e.args[0]}") from None

    async def record(self, arguments: Arguments) -> dict[str, Any]:
        """One record of a calibration with values, units, covariance, conditions: the active one, or a `version`."""
        _only(arguments, "calibration", "version")
        name, version = _text(arguments, "calibration", ""), arguments.get("version")
        history = self._wiring.records.history(name)
        if not history:
            raise Refusal(
                "bad_arguments", f"no record of {name!r}; there are {', '.join(self._wiring.records.names())}"
            )
        active = self._wiring.records.active(name)
        chosen = version if version is not None else (active.version if active else len(history))
        if isinstance(chosen, bool) or not isinstance(chosen, int) or not 1 <= chosen <= len(history):
            raise Refusal("bad_arguments", f"version = {chosen!r}: {name} has versions 1 to {len(history)}")
        found = history[chosen - 1]
        return {
            **found.model_dump(mode="json", exclude={"residuals"}),
            "units": found.units,
            "sigma": {n: found.sigma(n) for n in found.covariance_names},
            "active": active is not None and active.version == found.version,
        }

    async def rollback(self, arguments: Arguments) -> dict[str, Any]:
        """Back to the record before the active one; what rests on it is invalid and is redone."""
        _only(arguments, "calibration")
        self._not_locked("rollback")
        name = _text(arguments, "calibration", "")
        if name not in (names := self._operator.graph().names):
            raise Refusal("bad_arguments", f"calibration {name!r} is none of {', '.join(names)}")
        why = f"rolled back by {who()}"
        try:
            record = self._wiring.records.rollback(name, why)
        except LookupError as e:
            raise Refusal("wrong_state", str(e.args[0])) from None
        self._operator.request_walk(f"{name} {why}")
        return {**self._state(), "calibration": name, "version": record.version if record else 0}

    async def clear_latch(self, arguments: Arguments) -> dict[str, Any]:
        """Let a part that gave up try again, or a module that went dark come back. The hardware is read again: refused
        while the cause persists."""
        _only(arguments, "latch")
        latches = self._operator.latches()
        name = _text(arguments, "latch", "")
        if name not in latches:
            raise Refusal("bad_arguments", f"no latch {name!r}; set are: {', '.join(sorted(latches)) or 'none'}")
        try:
            await self._operator.clear_latch(name, who())
        except StillViolated as e:
            raise Refusal("wrong_state", f"latch {name} stays: {e}"[:480]) from None
        return {**self._state(), "cleared": name, "was": latches[name]}

    def _not_locked(self, command: str) -> None:
        life = self._wiring.life
        if life.administrative is Administrative.LOCKED:
            raise Refusal(
                "wrong_state", f"{command}: the module is locked ({life.why('administrative')}); unlock first"
            )

    def _state(self) -> dict[str, Any]:
        return self._wiring.life.snapshot()


def _level(arguments: Arguments) -> Level:
    try:
        return Level(_text(arguments, "level", Level.LIGHT_OFF.value))
    except ValueError:
        names = ", ".join(level.value for level in Level)
        raise Refusal("bad_arguments", f"level = {arguments.get('level')!r}: {names} is allowed") from None


def _flag(arguments: Arguments, name: str, default: bool = False) -> bool:
    value = arguments.get(name, default)
    if not isinstance(value, bool):
        raise Refusal("bad_arguments", f"{name} = {value!r}: true or false is allowed")
    return value


def who() -> str:
    """Name of the client that asked."""
    client = requesting()
    return client.name if client else "local"


def _only(arguments: Arguments, *allowed: str) -> None:
    unknown = sorted(set(arguments) - set(allowed))
    if unknown:
        raise Refusal("bad_arguments", f"unknown argument {unknown[0]!r}; allowed: {', '.join(allowed) or 'none'}")


def _text(arguments: Arguments, name: str, default: str) -> str:
    value = arguments.get(name, default)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise Refusal("bad_arguments", f"{name} must be a text of 1 to 200 characters")
    return value
