"""`qmodctl alarms`: what a module complains of, the gravest first, with who takes care of it and where to read on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qmodd.messages import Alarm
from qmodd.report.text import seconds

GRAVEST_FIRST = ("critical", "major", "minor", "warning", "indeterminate")
COLOURS = {"critical": "bold red", "major": "red", "minor": "yellow", "warning": "cyan"}


def add_alarm_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """The parser of `alarms`."""
    alarms = commands.add_parser(
        "alarms",
        parents=[common],
        help="active alarms",
        epilog="example: qmodctl alarms QM-B-0001; then: qmodctl do QM-B-0001 acknowledge alarm=no-light",
    )
    alarms.add_argument("module")


def alarms_in(said: Mapping[str, Any]) -> list[Alarm]:
    """The alarms among what a module has said, by topic below its root; those of another version are left out."""
    found: list[Alarm] = []
    for topic, body in said.items():
        if topic.startswith("alarm/"):
            try:
                found.append(Alarm.model_validate_json(json.dumps(body)))
            except ValidationError:
                continue
    return sorted(found, key=lambda a: (GRAVEST_FIRST.index(a.severity), a.raised))


def show_alarms(alarms: Sequence[Alarm], as_json: bool, out: Console, now: datetime) -> int:
    """Status 1 when there is one that nobody has shelved."""
    if as_json:
        sys.stdout.write(json.dumps({"alarms": [json.loads(a.payload()) for a in alarms]}) + "\n")
    elif alarms:
        out.print(_table(alarms, now))
        for a in alarms:
            out.print(f"{a.id}: {a.problem}: {a.why} ({a.runbook})", markup=False, highlight=False)
    else:
        out.print("no alarms")
    return 1 if any(a.shelved_until is None for a in alarms) else 0


def _table(alarms: Sequence[Alarm], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("alarm", "severity", "for", "times", "taken care of by"):
        table.add_column(column, justify="right" if column in ("for", "times") else "left")
    for a in alarms:
        since = seconds(max(0.0, (now - a.occurred).total_seconds()))
        severity = Text(a.severity, style=COLOURS.get(a.severity, ""))
        table.add_row(a.id, severity, since, str(a.count), _care(a))
    return table


def _care(a: Alarm) -> str:
    if a.shelved_until is not None:
        return f"shelved until {a.shelved_until:%Y-%m-%d %H:%M}"
    return a.acknowledged or "nobody"
