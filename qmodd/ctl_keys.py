"""`qmodctl keys`: where a module's keys are, who waits for whom, and the story of one of them. Never a bit of a key."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qmodd.ctl_client import Session
from qmodd.ctl_errors import CtlError

IN_ORDER = "in order"
# The states of a recipient's keys in the order in which a key passes through them, and what its allocation is.
STATES = ("distilled", "delivered", "acknowledged", "usable", "revoking", "revoked", "expired", "purged")
ALLOCATION = ("share", "key_bits", "depth")
WAITING = {
    "batches_open": "batches sent that their recipient has not acknowledged",
    "waiting_for_far_site": "keys acknowledged here that the far site's recipient has not got yet",
    "notices_open": "notices that a recipient has not acknowledged",
    "revoking": "keys of which the revocation is not complete",
}


def add_keys_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """The parser of `keys`."""
    keys = commands.add_parser(
        "keys",
        parents=[common],
        help="keys by state and recipient, or the story of one",
        epilog="example: qmodctl keys QM-A-0001; qmodctl keys QM-A-0001 --provenance 0f6c...",
    )
    keys.add_argument("module")
    keys.add_argument("--provenance", metavar="KEY_ID", help="where this key came from and where it went")


async def run_keys(s: Session) -> int:
    """Status 1 when the account of keys does not add up, or there is no such key. Raises CtlError when refused."""
    if s.arguments.provenance is not None:
        return await _provenance(s)
    desk = s.desk()
    found = await desk.ask("keys", {})
    if s.as_json:
        desk.show(found, "")
    else:
        s.out.print(keys_view(found))
    return 0 if found.get("account", IN_ORDER) == IN_ORDER else 1


async def _provenance(s: Session) -> int:
    try:
        key_id = str(uuid.UUID(s.arguments.provenance))
    except ValueError:
        raise CtlError(2, f"--provenance {s.arguments.provenance!r}: not a key id (a UUID)") from None
    desk = s.desk()
    found = await desk.ask("provenance", {"key_id": key_id})
    if s.as_json:
        desk.show(found, "")
    else:
        s.out.print(provenance_view(found))
    return 0


def keys_view(found: Mapping[str, Any]) -> RenderableType:
    """Counts by recipient, then all, then what waits, then whether it adds up."""
    recipients: Mapping[str, Mapping[str, Any]] = found.get("recipients", {})
    present = [n for n in STATES if any(n in r for r in recipients.values())]
    allocated = [n for n in ALLOCATION if any(n in r for r in recipients.values())]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("recipient")
    for name in (*present, *allocated):
        table.add_column(name.replace("_", " "), justify="right")
    for name, counts in recipients.items():
        table.add_row(name, *(_number(counts.get(n)) for n in (*present, *allocated)))
    states = ", ".join(f"{n:,} {state}" for state, n in found.get("states", {}).items() if n)
    lines = [Text(f"{found.get('created', 0):,} created{': ' + states if states else ''}")]
    for name, meaning in WAITING.items():
        if found.get(name):
            lines.append(Text(f"{found[name]:,} {meaning}", style="yellow"))
    account = str(found.get("account", ""))
    if account and account != IN_ORDER:
        lines.append(Text(f"the account does not add up: {account}", style="bold red"))
    return Group(table, *lines) if recipients else Group(*lines)


def provenance_view(found: Mapping[str, Any]) -> RenderableType:
    """One line a fact; the block's record below it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in found.items():
        if name in ("times", "block") or value in (None, ""):
            continue
        table.add_row(name.replace("_", " "), _text(value))
    for name, at in (found.get("times") or {}).items():
        table.add_row(name, str(at) if at else Text("not yet", style="dim"))
    for name, value in (found.get("block") or {}).items():
        table.add_row(f"block {name.replace('_', ' ')}", _text(value))
    return table


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
