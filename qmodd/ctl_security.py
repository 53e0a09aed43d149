"""`qmodctl approvals, approve, reject`: what waits for a second person, and the second person's word.

What is shown comes from a broker; what is approved is named by a digest of its content. An approval that does not fit
its own name is never sent.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from qmodd.approvals import is_genuine
from qmodd.ctl_client import Session
from qmodd.ctl_errors import CtlError
from qmodd.messages import Approval

TOPIC = "approval/"
# Digits of an approval's name that have to be given at least.
LEAST_DIGITS = 6


def add_security_parsers(commands: Any, common: argparse.ArgumentParser) -> None:
    """Parsers of `approvals`, `approve` and `reject`."""
    shown = commands.add_parser(
        "approvals",
        parents=[common],
        help="what waits for a second person",
        epilog="example: qmodctl approvals; qmodctl approvals QM-A-0001 --json",
    )
    shown.add_argument("module", nargs="?")
    for name, text in (
        ("approve", "allow what another client has asked for: purge, rekey, zeroise"),
        ("reject", "refuse it, or take it back"),
    ):
        one = commands.add_parser(name, parents=[common], help=text, epilog=f"example: qmodctl {name} QM-A-0001 3f9ac2")
        one.add_argument("module")
        one.add_argument("approval", metavar="ID", help=f"its name, or at least {LEAST_DIGITS} digits of it")
        if name == "reject":
            one.add_argument("--why", default="by command", help="for the event log")


async def run_approvals(s: Session) -> int:
    """Status 1 when something waits. Raises LinkDown, CtlError for a module that is not known."""
    retained = await s.ctl.retained(s.arguments.module, f"{TOPIC}+", "alive")
    found = {module: approvals_in(said) for module, said in retained.items()}
    waiting = [a for one in found.values() for a in one]
    if s.as_json:
        told = [{**json.loads(a.payload()), "genuine": is_genuine(a)} for a in waiting]
        sys.stdout.write(json.dumps({"approvals": told}) + "\n")
    elif waiting:
        s.out.print(_table(waiting, s.ctl.clock.utc()))
    else:
        s.out.print("nothing waits for approval")
    return 1 if waiting else 0


async def run_approve(s: Session) -> int:
    """The action is done when this returns 0. Raises CtlError: refused, not known, or not what it says it is."""
    approval = await _chosen(s)
    if not s.as_json:
        s.out.print(f"approving for {approval.by}: {words(approval)}", markup=False, highlight=False)
    done = await s.desk().ask("approve", {"approval": approval.id})
    return s.desk().show(done, f"done: {approval.command}")


async def run_reject(s: Session) -> int:
    approval = await _chosen(s)
    left = await s.desk().ask("reject", {"approval": approval.id, "why": s.arguments.why})
    return s.desk().show(left, f"rejected: {words(approval)}")


def approvals_in(said: Mapping[str, bytes]) -> list[Approval]:
    """By topic suffix; the one that ends first is first. What another version of qmodd wrote is left out."""
    found = []
    for suffix, payload in said.items():
        if suffix.startswith(TOPIC) and payload:
            try:
                found.append(Approval.model_validate_json(payload))
            except ValidationError:
                continue
    return sorted(found, key=lambda a: a.until)


def choose(approvals: Sequence[Approval], digits: str, module: str) -> Approval:
    """Raises CtlError when none, or more than one, begins so, or when it is not what it says it is."""
    if len(digits) < LEAST_DIGITS:
        raise CtlError(2, f"{digits!r}: at least {LEAST_DIGITS} digits of an approval's name are wanted")
    fitting = [a for a in approvals if a.id.startswith(digits.lower())]
    if len(fitting) != 1:
        waiting = ", ".join(a.id[:12] for a in approvals) or "none"
        raise CtlError(1, f"{len(fitting)} approvals of {module} begin with {digits!r}; waiting are: {waiting}")
    (approval,) = fitting
    if not is_genuine(approval) or approval.module != module:
        raise CtlError(
            1, f"{approval.id[:12]} is not what the broker shows for it ({words(approval)}); nothing was sent"
        )
    return approval


def words(approval: Approval) -> str:
    """The command as one would type it."""
    values = " ".join(f"{name}={json.dumps(value)}" for name, value in sorted(approval.arguments.items()))
    return f"{approval.command} {values} on {approval.module}".replace("  ", " ")


async def _chosen(s: Session) -> Approval:
    module = s.arguments.module
    retained = await s.ctl.retained(module, f"{TOPIC}+", "alive")
    return choose(approvals_in(retained.get(module, {})), s.arguments.approval, module)


def _table(approvals: Sequence[Approval], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("module", "id", "command", "asked by", "left"):
        table.add_column(column, justify="right" if column == "left" else "left")
    for a in approvals:
        left_s = max(0.0, (a.until - now).total_seconds())
        shown = " ".join(f"{name}={value}" for name, value in sorted(a.arguments.items()))
        mark = "" if is_genuine(a) else " (not genuine)"
        table.add_row(a.module, a.id[:12], f"{a.command} {shown}{mark}".strip(), a.by, f"{left_s / 60:.0f} min")
    return table
