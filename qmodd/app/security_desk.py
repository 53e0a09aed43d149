"""Commands that two persons answer for: what was asked for is kept, told, approved by another, done, each on record.

An action that was approved is owed: a process that ends before it is done takes it up again at its next start.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from qmodd.app.rekeying import Rekeying
from qmodd.app.wiring import Wiring
from qmodd.app.zeroising import Zeroising
from qmodd.approvals import FILE, Approvals, NotApproved
from qmodd.messages import Approval, Client
from qmodd.randomness import Randomness
from qmodd.requests import Refusal

TICK_S = 1.0
TOPIC = "approval/"
MOST_ARGUMENTS = 400


@dataclass(frozen=True)
class Action:
    """`check` raises Refusal while it cannot be done; `do` gets the arguments and by whom, and may be repeated after a
    crash."""

    check: Callable[[Mapping[str, JsonValue]], None]
    do: Callable[[Mapping[str, JsonValue], str], Awaitable[dict[str, Any]]]


@dataclass
class SecurityDesk:
    """`actions` by command. `run` lives as long as core."""

    wiring: Wiring
    randomness: Randomness
    zeroising: Zeroising
    rekeying: Rekeying
    actions: Mapping[str, Action] = field(default_factory=dict)
    approvals: Approvals = field(init=False)
    _tampered: asyncio.Event = field(default_factory=asyncio.Event)
    _why_tampered: str = ""

    def __post_init__(self) -> None:
        config = self.wiring.config
        self.approvals = Approvals(
            config.module.state_dir / FILE,
            self.wiring.clock,
            config.module.serial,
            self.randomness,
            config.safety.approval_s,
        )
        self.wiring.tampered = self._struck

    # the life of core

    async def resume(self) -> None:
        """At a start, before anything else runs: what is owed is done, what is told is brought in line."""
        if self.approvals.damaged:
            self._event("approval.file_damaged", why=self.approvals.damaged)
        self.zeroising.at_start()
        await self.rekeying.resume()
        for owed in self.approvals.unfinished():
            try:
                await self._do(owed.approval, owed.approved_by)
            except Refusal:
                continue  # on record
        self._reconcile()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._tampered.wait()
                self._tampered.clear()
                await self.zeroising.run(self._why_tampered, "tamper contact")
            except TimeoutError:
                pass
            await self.tick()

    async def tick(self) -> None:
        """What time alone brings about."""
        self._expire()
        await self.rekeying.step()

    def _struck(self, why: str) -> None:
        """The mark, and the key that opens the others, at once; the rest by `run`."""
        self._why_tampered = why
        self.zeroising.begin(why, "tamper contact")
        self._tampered.set()

    def _expire(self) -> None:
        for approval in self.approvals.expire():
            self._event("approval.expired", approval)
            self._publish(approval.id, b"")

    # what clients ask

    def ask(self, command: str, arguments: Mapping[str, JsonValue], who: Client) -> dict[str, Any]:
        """Raises Refusal: it cannot be done as things are, or too many wait."""
        self.actions[command].check(arguments)
        try:
            approval, new = self.approvals.ask(command, arguments, who)
        except NotApproved as e:
            raise Refusal(e.code, str(e)) from None
        if new:
            self._publish(approval.id, approval.payload())
            self._event("approval.wanted", approval, by=approval.by, until=approval.until.isoformat())
        return {"done": False, "approval": approval.model_dump(mode="json")}

    async def approve(self, id: str, who: Client) -> dict[str, Any]:
        """Done when it returns. Raises Refusal; while the action cannot be done, the approval goes on waiting."""
        try:
            approval = self.approvals.check(id, who)
            self.actions[approval.command].check(approval.arguments)
            self.approvals.approve(id, who)
        except NotApproved as e:
            self._event("approval.refused", approval=id[:64], by=who.name, why=str(e))
            raise Refusal(e.code, str(e)) from None
        self._event("approval.given", approval, by=who.name, asked_by=approval.by)
        result = await self._do(approval, who.name)
        return {"done": True, "command": approval.command, **result}

    def reject(self, id: str, who: Client, why: str) -> dict[str, Any]:
        """By anybody of the role, who asked for it included. Raises Refusal."""
        try:
            approval = self.approvals.reject(id)
        except NotApproved as e:
            raise Refusal(e.code, str(e)) from None
        self._event("approval.rejected", approval, by=who.name, asked_by=approval.by, why=why)
        self._publish(approval.id, b"")
        return self.pending()

    def pending(self) -> dict[str, Any]:
        return {"approvals": [a.model_dump(mode="json") for a in self.approvals.pending()]}

    # inside

    async def _do(self, approval: Approval, approved_by: str) -> dict[str, Any]:
        by = f"{approval.by} and {approved_by}"
        try:
            result = await self.actions[approval.command].do(approval.arguments, by)
        except Refusal as e:
            self._event("approval.failed", approval, why=str(e))
            raise
        else:
            self._event("approval.done", approval, by=by)
        finally:
            # Not on cancellation: the stop of core leaves it owed.
            if (task := asyncio.current_task()) is None or not task.cancelling():
                self.approvals.done(approval.id)
                self._publish(approval.id, b"")
        return result

    def _reconcile(self) -> None:
        """Retained topics as the file is."""
        wanted = {a.id: a.payload() for a in self.approvals.pending()}
        there = {s.removeprefix(TOPIC): p for s, p in self.wiring.outbox.retained(TOPIC).items() if p}
        for id in sorted(there.keys() - wanted.keys()):
            self._publish(id, b"")
        for id, payload in wanted.items():
            if there.get(id) != payload:
                self._publish(id, payload)

    def _publish(self, id: str, payload: bytes) -> None:
        self.wiring.outbox.put(f"approval/{id}", payload, kind="alarm", retain=True)

    def _event(self, name: str, about: Approval | None = None, **fields: str) -> None:
        shown = {}
        if about is not None:
            arguments = json.dumps(about.arguments, sort_keys=True)[:MOST_ARGUMENTS]
            shown = {"approval": about.id, "command": about.command, "arguments": arguments}
        self.wiring.events.record(name, {k: v[:480] for k, v in {**shown, **fields}.items() if v})
