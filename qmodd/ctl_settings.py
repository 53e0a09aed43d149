"""`qmodctl get, set, undo`: settings of a module, as they are in force."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from qmodd.ctl_client import Session
from qmodd.ctl_errors import CtlError
from qmodd.messages import Reply, Setting, SettingValue

TOPIC = "settings/"
WAITS = {
    "now": "at once",
    "block": "from the next block on",
    "run": "from the next run on",
    "session": "when the module next comes up (`safe`, then `start`)",
    "restart": "when core is next started",
    "file": "in the configuration file only",
}
COUNTS = {**{word: word for word in WAITS}, "now": "at once", "file": "-"}


def add_settings_parsers(commands: Any, common: argparse.ArgumentParser) -> None:
    """Parsers of `get`, `set` and `undo`."""
    get = commands.add_parser(
        "get",
        parents=[common],
        help="settings in force, with limits and origin",
        epilog="example: qmodctl get QM-A-0001 keys; qmodctl get QM-A-0001 keys.store_limit",
    )
    get.add_argument("module")
    get.add_argument("path", nargs="?", default="", metavar="PATH", help="one setting, or a section; none: all")
    get.add_argument("--changed", action="store_true", help="only what differs from the configuration file, or waits")
    one = commands.add_parser(
        "set",
        parents=[common],
        help="set a value over the configuration file",
        epilog="example: qmodctl set QM-A-0001 uplink.telemetry_period_s 5; qmodctl set QM-A-0001 keys.sync_s --file",
    )
    one.add_argument("module")
    one.add_argument("path", metavar="PATH", help="such as keys.store_limit")
    one.add_argument("value", nargs="?", metavar="VALUE", help="in the setting's unit")
    one.add_argument("--file", action="store_true", help="the configuration file's value again")
    undo = commands.add_parser(
        "undo",
        parents=[common],
        help="a setting as it was before its last change",
        epilog="example: qmodctl undo QM-A-0001 keys.store_limit",
    )
    undo.add_argument("module")
    undo.add_argument("path", metavar="PATH", help="such as keys.store_limit")


async def run_get(s: Session) -> int:
    """Raises LinkDown; CtlError for a module or a path that is not known."""
    retained = await s.ctl.retained(s.arguments.module, f"{TOPIC}#")
    found = settings_in(retained.get(s.arguments.module, {}))
    if not found:
        raise CtlError(3, f"the broker knows no settings of {s.arguments.module}")
    chosen = choose(found, s.arguments.path)
    if s.arguments.changed:
        chosen = [one for one in chosen if one.origin == "set" or one.pending is not None or one.note]
    if s.as_json:
        sys.stdout.write(json.dumps({"settings": [one.model_dump(mode="json") for one in chosen]}) + "\n")
    elif [one.path for one in chosen] == [s.arguments.path]:
        s.out.print(details(chosen[0]), markup=False, highlight=False)
    else:
        s.out.print(table(chosen) if chosen else Text("every setting is the configuration file's"))
    return 0


async def run_set(s: Session) -> int:
    """Status 1 when the module refuses it. Raises LinkDown, CtlError."""
    if s.arguments.file is (s.arguments.value is not None):
        raise CtlError(2, "set wants a VALUE, or --file for the configuration file's")
    wanted = {"file": True} if s.arguments.file else {"value": parse_value(s.arguments.value)}
    path, module = s.arguments.path, s.arguments.module
    return _answered(s, await s.ctl.do(s.client(), module, f"set/{path}", wanted))


async def run_undo(s: Session) -> int:
    """As `set`."""
    return _answered(s, await s.ctl.do(s.client(), s.arguments.module, "undo", {"setting": s.arguments.path}))


def settings_in(said: Mapping[str, bytes]) -> dict[str, Setting]:
    """The settings among what is retained, by path; those of another version of qmodd are left out."""
    found: dict[str, Setting] = {}
    for topic, payload in said.items():
        try:
            one = Setting.model_validate_json(payload)
        except ValidationError:
            continue
        if topic == f"{TOPIC}{one.path}":
            found[one.path] = one
    return dict(sorted(found.items()))


def choose(found: Mapping[str, Setting], path: str) -> list[Setting]:
    """One, those of a section, or all. Raises CtlError with close ones."""
    chosen = [one for name, one in found.items() if not path or name == path or name.startswith(f"{path.rstrip('.')}.")]
    if chosen:
        return chosen
    near = difflib.get_close_matches(path, found, 3) or [n for n in found if n.endswith(f".{path}")]
    sections = sorted({name.partition(".")[0] for name in found})
    meant = f"did you mean {' or '.join(near)}?" if near else f"sections are {', '.join(sections)}"
    raise CtlError(2, f"no setting {path!r}; {meant}")


def parse_value(text: str) -> Any:
    """As JSON where it is JSON, else the text itself: 5, true, throughput."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def table(settings: Sequence[Setting]) -> Table:
    """A line each."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("setting", "value", "allowed", "from", "counts"):
        out.add_column(column, no_wrap=column in ("setting", "counts"), overflow="fold")
    for one in settings:
        value = Text(f"{shown(one.value)} {one.unit}".rstrip(), style="bold yellow" if one.origin == "set" else "")
        if one.pending is not None:
            value.append(f" ({shown(one.pending)} waits)", style="cyan")
        origin = f"{one.set_by}, {one.set_at[:10]}" if one.origin == "set" else "file"
        out.add_row(one.path, value, allowed(one), origin, COUNTS[one.applies])
    return out


def details(one: Setting) -> str:
    """Everything about one setting, a line a fact."""
    unit = f" {one.unit}" if one.unit else ""
    lines = [f"{one.path} = {shown(one.value)}{unit}", f"  {one.description}"]
    if one.pending is not None:
        lines.append(f"  waits: {shown(one.pending)}{unit}, {WAITS[one.applies]}")
    origin = f"set by {one.set_by} at {one.set_at}" if one.origin == "set" else "from the configuration file"
    lines.append(f"  {origin}; the file says {shown(one.default)}{unit}")
    if one.applies == "file":
        lines.append(f"  can be changed {WAITS['file']}")
    else:
        lines.append(
            f"  allowed: {allowed(one)}{unit}; by {' or '.join(one.roles)}; a change counts {WAITS[one.applies]}"
        )
    if one.safe_side is not None:
        lines.append(f"  a safety limit: only {one.safe_side} than the file's value")
    if one.before is not None:
        lines.append(f"  undo returns to {shown(one.before)}{unit}")
    if one.note:
        lines.append(f"  note: {one.note}")
    return "\n".join(lines)


def allowed(one: Setting) -> str:
    """Limits or choices in words."""
    if one.choices:
        return ", ".join(shown(c) for c in one.choices)
    if one.kind == "boolean":
        return "true, false"
    if one.low is not None and one.high is not None:
        return f"{one.low:.7g} to {one.high:.7g}"
    limits = (("above", one.above), ("from", one.low), ("below", one.below), ("to", one.high))
    return " ".join(f"{word} {limit:.7g}" for word, limit in limits if limit is not None) or "any"


def shown(value: SettingValue) -> str:
    """As one would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _answered(s: Session, reply: Reply) -> int:
    if s.as_json:
        sys.stdout.write(reply.model_dump_json() + "\n")
        return 0 if reply.ok else 1
    if not reply.ok:
        error = reply.error
        raise CtlError(1, f"refused ({error.code}): {error.message}" if error else "refused")
    found = dict(reply.result or {})
    changed = found.pop("changed", True)
    try:
        text = details(Setting.model_validate_json(json.dumps(found)))
    except ValidationError:
        text = json.dumps(found)
    s.out.print(text if changed else f"nothing to change:\n{text}", markup=False, highlight=False)
    return 0
