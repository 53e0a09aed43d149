"""The commands of the role security: `revoke`, and those that two persons answer for with how they are approved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import JsonValue

from qmodd.app.rekeying import Rekeying
from qmodd.app.security_desk import Action, SecurityDesk
from qmodd.app.wiring import Wiring
from qmodd.app.zeroising import Revoke, Zeroising
from qmodd.approvals import instant
from qmodd.clock import Clock
from qmodd.events import Scalar
from qmodd.keys.conversation import Blocking
from qmodd.keys.store import KeyStore
from qmodd.messages import Client
from qmodd.requests import Arguments, Handler, Refusal, report_progress, requesting

# So many ids are told back; all of them are in the key store.
MOST_TOLD = 64
CHUNK = 1024
SELECTORS = ("key_ids", "block", "all_before")


@dataclass(frozen=True)
class Keys:
    """What the commands do to keys: `revoke` returns how many were revoked that were not before."""

    store: KeyStore
    revoke: Revoke
    blocking: Blocking
    clock: Clock
    record: Callable[[str, dict[str, Scalar]], None]


def security_handlers(wiring: Wiring) -> Mapping[str, Handler]:
    """By command name."""
    commands = SecurityCommands(wiring)
    return {
        "approve": commands.approve,
        "reject": commands.reject,
        "approvals": commands.approvals,
        "revoke": commands.revoke,
        "purge": commands.two_person("purge"),
        "rekey": commands.rekey,
        "zeroise": commands.two_person("zeroise"),
    }


def actions(keys: Keys, rekeying: Rekeying, zeroising: Zeroising) -> Mapping[str, Action]:
    """What is done once a second person has approved it."""

    async def purge(arguments: Mapping[str, JsonValue], by: str) -> dict[str, Any]:
        before = _before(arguments, "before", keys.clock)
        n = await keys.blocking(keys.store.purge, before.timestamp())
        keys.record("keys.purged", {"keys": n, "before": before.isoformat(), "by": by})
        return {"purged": n, "before": before.isoformat(), "counts": keys.store.totals()}

    async def rekey(arguments: Mapping[str, JsonValue], by: str) -> dict[str, Any]:
        return rekeying.stage(by)

    async def zeroise(arguments: Mapping[str, JsonValue], by: str) -> dict[str, Any]:
        return await zeroising.run(str(arguments["why"]), by)

    def can_purge(arguments: Mapping[str, JsonValue]) -> None:
        _before(arguments, "before", keys.clock)

    return {
        "purge": Action(can_purge, purge),
        "rekey": Action(lambda arguments: rekeying.check(), rekey),
        "zeroise": Action(lambda arguments: None, zeroise),
    }


class SecurityCommands:
    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    @property
    def _desk(self) -> SecurityDesk:
        return self._wiring.security

    async def approve(self, arguments: Arguments) -> dict[str, Any]:
        """What another client asked for is done now."""
        return await self._desk.approve(_text(arguments, "approval"), _client())

    async def reject(self, arguments: Arguments) -> dict[str, Any]:
        """What was asked for is not done, whoever asked for it."""
        return self._desk.reject(_text(arguments, "approval"), _client(), _why(arguments))

    async def approvals(self, arguments: Arguments) -> dict[str, Any]:
        """What waits for a second person."""
        return self._desk.pending()

    def two_person(self, command: str) -> Handler:
        async def handler(arguments: Arguments) -> dict[str, Any]:
            return self._desk.ask(command, _normal(arguments), _client())

        return handler

    async def rekey(self, arguments: Arguments) -> dict[str, Any]:
        """Two persons for a new pad; one may give it up again before it is in force."""
        if arguments.get("abandon") is True:
            return self._desk.rekeying.abandon(_client().name)
        return self._desk.ask("rekey", {}, _client())

    async def revoke(self, arguments: Arguments) -> dict[str, Any]:
        """Keys that must not be used (any more), at both sites."""
        keys, by, why = self._wiring.security_keys, _client().name, _why(arguments)
        ids = await _selected(arguments, keys)
        new = 0
        for at in range(0, len(ids), CHUNK):
            new += await keys.revoke(ids[at : at + CHUNK], f"{why} ({by})")
            report_progress(min(1.0, (at + CHUNK) / len(ids)), f"{min(at + CHUNK, len(ids))} of {len(ids)} keys")
        keys.record("keys.revoked_by_command", {"keys": len(ids), "new": new, "by": by, "why": why})
        return {"asked": len(ids), "revoked": new, "key_ids": [str(i) for i in ids[:MOST_TOLD]]}


async def _selected(arguments: Arguments, keys: Keys) -> list[UUID]:
    """Raises Refusal."""
    given = [name for name in SELECTORS if arguments.get(name) is not None]
    if len(given) != 1:
        raise Refusal("bad_arguments", f"exactly one of {', '.join(SELECTORS)} is wanted; {len(given)} are given")
    match given[0]:
        case "key_ids":
            return _uuids(arguments["key_ids"])
        case "block":
            (block,) = _uuids([arguments["block"]], "block")
            found = await keys.blocking(lambda: keys.store.select(block=block))
            if not found:
                raise Refusal("bad_arguments", f"block = {block}: the key store has no key of it")
            return list(found)
        case _:
            before = _before(arguments, "all_before", keys.clock)
            return list(await keys.blocking(lambda: keys.store.select(created_before=before.timestamp())))


def _uuids(given: object, name: str = "key_ids") -> list[UUID]:
    try:
        if not isinstance(given, Sequence) or not given:
            raise ValueError
        return list(dict.fromkeys(UUID(text) for text in given))
    except (ValueError, AttributeError, TypeError):
        raise Refusal("bad_arguments", f"{name}: ids such as 0123abcd-... are wanted") from None


def _before(arguments: Mapping[str, JsonValue], name: str, clock: Clock) -> datetime:
    """A time that has passed, by a clock that is known to be right. Raises Refusal."""
    found = instant(arguments.get(name))
    if found is None:
        shown = str(arguments.get(name))[:40]
        raise Refusal("bad_arguments", f"{name} = {shown!r}: a time such as 2026-01-31T12:00:00Z is wanted")
    if not clock.utc_synchronised():
        raise Refusal("wrong_state", f"{name}: this host's clock is not synchronised, no lifetime is judged by it")
    if found > clock.utc():
        raise Refusal("bad_arguments", f"{name} = {found.isoformat()} is later than now, {clock.utc().isoformat()}")
    return found


def _normal(arguments: Arguments) -> dict[str, JsonValue]:
    """Times alike, so that the same request is known again."""
    times = {name: instant(value) for name, value in arguments.items() if name == "before"}
    return {**dict(arguments), **{name: t.isoformat() for name, t in times.items() if t is not None}}


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise Refusal("bad_arguments", f"{name} must be a text of 1 to 200 characters")
    return value


def _why(arguments: Arguments) -> str:
    return _text(arguments, "why") if "why" in arguments else "by command"


def _client() -> Client:
    client = requesting()
    if client is None:
        raise Refusal("not_allowed", "a signed request of a client is wanted")
    return client
