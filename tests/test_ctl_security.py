"""`qmodctl approvals, approve, reject`: what is shown, what is sent, and what a broker cannot make anybody approve."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from qmodd.approvals import approval_id
from qmodd.ctl_client import Session
from qmodd.ctl_errors import CtlError
from qmodd.ctl_lab import Desk
from qmodd.ctl_security import add_security_parsers, choose, run_approvals, run_approve, run_reject, words
from qmodd.messages import Approval, Reply
from tests.uplink_fakes import MODULE, START, HandClock


def approval(**changes: Any) -> Approval:
    draft = Approval(
        **{
            "id": "0" * 32,
            "module": MODULE,
            "command": "purge",
            "arguments": {"before": "2026-01-01T00:00:00+00:00"},
            "by": "ann",
            "kid": "a" * 32,
            "asked": START,
            "until": START + timedelta(minutes=15),
            "nonce": "b" * 32,
            **changes,
        }
    )
    return draft.model_copy(update={"id": approval_id(draft.model_dump(mode="json"))})


@dataclass
class Fake:
    """Stands for a session: what is retained, and what was sent."""

    approvals: list[Approval]
    argv: list[str]
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    out: Console = field(default_factory=lambda: Console(file=io.StringIO(), width=160))

    def __post_init__(self) -> None:
        parser = argparse.ArgumentParser()
        common = argparse.ArgumentParser(add_help=False)
        common.add_argument("--json", action="store_true")
        add_security_parsers(parser.add_subparsers(dest="what"), common)
        self.arguments = parser.parse_args(self.argv)
        self.ctl = SimpleNamespace(retained=self.retained, clock=HandClock())

    @property
    def as_json(self) -> bool:
        return bool(self.arguments.json)

    async def retained(self, module: str | None, *_topics: str) -> dict[str, dict[str, bytes]]:
        return {MODULE: {f"approval/{a.id}": a.payload() for a in self.approvals} | {"approval/x": b"", "alive": b"{}"}}

    def desk(self) -> Desk:
        async def send(command: str, arguments: dict[str, Any]) -> Reply:
            self.sent.append((command, arguments))
            return Reply(id="01234567-0123-0123-0123-0123456789ab", ok=True, result={"done": True})

        return Desk(send, self.as_json, self.out)

    @property
    def session(self) -> Session:
        return cast(Session, self)

    @property
    def text(self) -> str:
        return cast(io.StringIO, self.out.file).getvalue()


async def test_what_waits_is_shown() -> None:
    fake = Fake([approval(), approval(command="zeroise", arguments={"why": "sold"}, by="ben")], ["approvals", MODULE])
    assert await run_approvals(fake.session) == 1
    for word in ("purge before=2026-01-01", "zeroise why=sold", "ann", "ben", "15 min", approval().id[:12]):
        assert word in fake.text


async def test_nothing_waits() -> None:
    fake = Fake([], ["approvals"])
    assert await run_approvals(fake.session) == 0
    assert "nothing waits" in fake.text


async def test_json_says_what_is_genuine(capsys: pytest.CaptureFixture[str]) -> None:
    good = approval()
    bad = good.model_copy(update={"command": "zeroise"})
    assert await run_approvals(Fake([good, bad], ["approvals", "--json"]).session) == 1
    told = json.loads(capsys.readouterr().out)["approvals"]
    assert [a["genuine"] for a in told] in ([True], [False])  # one topic: the later one stands


async def test_approve_sends_the_whole_name() -> None:
    one = approval()
    fake = Fake([one], ["approve", MODULE, one.id[:8]])
    assert await run_approve(fake.session) == 0
    assert fake.sent == [("approve", {"approval": one.id})]
    assert "approving for ann: purge before=" in fake.text


async def test_reject_says_why() -> None:
    one = approval()
    fake = Fake([one], ["reject", MODULE, one.id, "--why", "not today"])
    assert await run_reject(fake.session) == 0
    assert fake.sent == [("reject", {"approval": one.id, "why": "not today"})]


@pytest.mark.parametrize("change", [{"command": "rekey"}, {"arguments": {}}, {"module": "QM-B-0001"}, {"by": "eve"}])
async def test_what_a_broker_has_changed_is_not_approved(change: dict[str, Any]) -> None:
    shown = approval(command="zeroise", arguments={"why": "x"}).model_copy(update=change)
    fake = Fake([shown], ["approve", MODULE, shown.id])
    with pytest.raises(CtlError, match="not what the broker shows"):
        await run_approve(fake.session)
    assert fake.sent == []


def test_names_have_to_be_clear() -> None:
    one, other = approval(), approval(by="ben")
    with pytest.raises(CtlError, match="at least 6 digits") as e:
        choose([one], one.id[:5], MODULE)
    assert e.value.status == 2
    with pytest.raises(CtlError, match="0 approvals"):
        choose([one, other], "f" * 32 if not one.id.startswith("f") else "0" * 32, MODULE)
    assert choose([one, other], one.id.upper()[:10], MODULE) == one


def test_words_are_what_one_would_type() -> None:
    assert words(approval(command="rekey", arguments={})) == f"rekey on {MODULE}"
