"""Two-person approval: what one security client asks for and another one has to allow, durably.

An approval is named by a digest of what it is for, so that whoever approves it has signed for exactly that command with
exactly those arguments, whatever a broker showed him. It is used once. It expires by a synchronised clock, and by the
time that this process has seen pass: a clock that is wrong never makes it live longer than its lifetime from a start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from qmodd.clock import Clock
from qmodd.durable import write_whole
from qmodd.messages import Approval, Client
from qmodd.randomness import Randomness

FILE = "approvals.json"
NONCE_BYTES = 16
MOST_PENDING = 16


class NotApproved(Exception):
    """`code` as in a refusal: not_allowed, wrong_state, bad_arguments, busy."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def approval_id(body: Mapping[str, Any]) -> str:
    """Of an Approval's other fields as JSON has them: 32 hex digits."""
    signed = {k: v for k, v in body.items() if k != "id"}
    text = json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(b"qmodd-approval-v1|" + text.encode()).hexdigest()[:32]


def is_genuine(approval: Approval) -> bool:
    """Whether the id is the digest of the rest."""
    return approval.id == approval_id(approval.model_dump(mode="json"))


@dataclass(frozen=True)
class Asked:
    """One that is kept. `approved_by` is set from the approval on until the action is done."""

    approval: Approval
    approved_by: str = ""

    @property
    def what(self) -> str:
        return f"{self.approval.command} by {self.approval.by}"


@dataclass
class Approvals:
    """On disk before anything is answered. Raises OSError where the disk does not take it: nothing has changed then."""

    path: Path
    clock: Clock
    module: str
    randomness: Randomness
    lifetime_s: float = 900.0
    # Why the file of before was not used; "" when it was, or there was none.
    damaged: str = ""
    _asked: dict[str, Asked] = field(default_factory=dict)
    _deadline_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._asked = {a.approval.id: a for a in _load(self.path)}
        except (OSError, ValueError, KeyError, TypeError) as e:
            self.damaged = f"{self.path.name} cannot be read ({type(e).__name__}): what was asked has to be asked again"
            self.path.replace(self.path.with_suffix(".damaged"))
        now_s, utc = self.clock.monotonic(), self.clock.utc()
        for id, asked in self._asked.items():
            left_s = (asked.approval.until - utc).total_seconds()
            self._deadline_s[id] = now_s + min(max(left_s, 0.0), self.lifetime_s)

    # reading

    def pending(self) -> list[Approval]:
        """What waits, the oldest first."""
        return [a.approval for a in self._asked.values() if not a.approved_by]

    def unfinished(self) -> list[Asked]:
        """Approved, and not known to be done: the process ended in between."""
        return [a for a in self._asked.values() if a.approved_by]

    def get(self, id: str) -> Approval:
        """Raises NotApproved for one that does not wait."""
        found = self._asked.get(id)
        if found is None:
            waiting = ", ".join(a.id for a in self.pending()) or "none"
            raise NotApproved("bad_arguments", f"no approval {id!r}; waiting are: {waiting}")
        if found.approved_by:
            raise NotApproved("wrong_state", f"{found.what} was approved by {found.approved_by} already")
        if self._over(id, found.approval):
            raise NotApproved("wrong_state", f"{found.what} expired at {found.approval.until.isoformat()}; ask again")
        return found.approval

    # changes

    def ask(self, command: str, arguments: Mapping[str, JsonValue], who: Client) -> tuple[Approval, bool]:
        """What waits now, and whether that is new: the same client asking for the same again gets the same approval.

        Raises NotApproved when another client has asked for it, or too many wait.
        """
        for waiting in self.pending():
            if (waiting.command, waiting.arguments) == (command, dict(arguments)) and not self._over(
                waiting.id, waiting
            ):
                if waiting.by == who.name:
                    return waiting, False
                raise NotApproved(
                    "wrong_state", f"{command} was asked for by {waiting.by}: approve {waiting.id} instead"
                )
        if len(self._asked) >= MOST_PENDING:
            raise NotApproved("busy", f"{MOST_PENDING} requests wait for approval; reject some or wait for their end")
        approval = self._made(command, arguments, who)
        self._write({**self._asked, approval.id: Asked(approval)})
        self._deadline_s[approval.id] = self.clock.monotonic() + self.lifetime_s
        return approval, True

    def _made(self, command: str, arguments: Mapping[str, JsonValue], who: Client) -> Approval:
        now = self.clock.utc().astimezone(UTC)
        body: dict[str, Any] = {
            "module": self.module,
            "command": command,
            "arguments": dict(arguments),
            "by": who.name,
            "kid": who.kid,
            "asked": now,
            "until": now + timedelta(seconds=self.lifetime_s),
            "nonce": self.randomness.bytes(NONCE_BYTES).hex(),
        }
        draft = Approval(id="0" * 32, **body)
        return draft.model_copy(update={"id": approval_id(draft.model_dump(mode="json"))})

    def check(self, id: str, who: Client) -> Approval:
        """What `who` may approve now. Raises NotApproved: it is over, or he has asked for it himself."""
        approval = self.get(id)
        if who.name == approval.by or who.kid == approval.kid:
            same = who.name if who.name == approval.by else f"{who.name}, who signs with the key of {approval.by},"
            why = f"{same} has asked for {approval.command}: another person has to approve it"
            raise NotApproved("not_allowed", why)
        return approval

    def approve(self, id: str, who: Client) -> Approval:
        """From now on the action is owed: it is done, or taken up again after a restart. Raises as `check`."""
        approval = self.check(id, who)
        self._write({**self._asked, id: replace(self._asked[id], approved_by=who.name)})
        return approval

    def reject(self, id: str) -> Approval:
        """Raises NotApproved for one that does not wait."""
        approval = self.get(id)
        self._forget(id)
        return approval

    def done(self, id: str) -> None:
        """The approved action has ended, well or not. May be repeated."""
        if id in self._asked:
            self._forget(id)

    def expire(self) -> list[Approval]:
        """Those whose time is over; they are forgotten."""
        over = [a for a in self.pending() if self._over(a.id, a)]
        if over:
            gone = {a.id for a in over}
            self._write({id: asked for id, asked in self._asked.items() if id not in gone})
        return over

    # inside

    def _over(self, id: str, approval: Approval) -> bool:
        if self.clock.utc_synchronised() and self.clock.utc() > approval.until:
            return True
        return self.clock.monotonic() > self._deadline_s[id]

    def _forget(self, id: str) -> None:
        self._write({other: asked for other, asked in self._asked.items() if other != id})

    def _write(self, asked: dict[str, Asked]) -> None:
        body = [{"approval": a.approval.model_dump(mode="json"), "approved_by": a.approved_by} for a in asked.values()]
        write_whole(self.path, json.dumps({"approvals": body}, indent=1), 0o600)
        self._asked = asked


def _load(path: Path) -> Iterator[Asked]:
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    for entry in raw["approvals"]:
        try:
            approval = Approval.model_validate_json(json.dumps(entry["approval"]))
        except ValidationError:
            raise ValueError("an entry is not an approval") from None
        if not is_genuine(approval):
            raise ValueError("an entry was changed")
        yield Asked(approval, str(entry["approved_by"]))


def instant(text: object) -> datetime | None:
    """ISO 8601 with a zone, as a time of UTC; None if it is none."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None
