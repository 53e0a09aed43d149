"""`qmodctl selftest` and `qmodctl monitors`: is the module good, and what do its monitors say."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qmodd.ctl_lab import Desk
from qmodd.messages import SelftestReport
from qmodd.selftest.model import Level
from qmodd.selftest.retained import report_of
from qmodd.selftest_cli.view import show

COMMANDS = ("selftest", "monitors")
Fetch = Callable[[], Awaitable[SelftestReport]]


def add_selftest_parsers(commands: Any, common: argparse.ArgumentParser) -> None:
    """Parsers of this file's commands."""
    test = commands.add_parser(
        "selftest",
        parents=[common],
        help="the last self-test, or a new one",
        epilog="example: qmodctl selftest QM-A-0001 --level light-on --html selftest.html",
    )
    test.add_argument("module")
    test.add_argument("--level", choices=[level.value for level in Level], help="test now, up to this level; keys stop")
    test.add_argument("--force", action="store_true", help="also the production level in service")
    test.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page")
    test.add_argument("--all", action="store_true", help="every value, not only those to look at")
    monitors = commands.add_parser(
        "monitors",
        parents=[common],
        help="values of one moment with limits and latched flags",
        epilog="example: qmodctl monitors QM-B-0001 --clear",
    )
    monitors.add_argument("module")
    monitors.add_argument("--last", action="store_true", help="the last frozen moment instead of a new one")
    monitors.add_argument("--clear", action="store_true", help="forget the latched flags once they are told")


async def run_selftest(arguments: argparse.Namespace, desk: Desk, fetch: Fetch) -> int:
    """A new test, and its report; status 1 when it has failed. Raises CtlError when it is refused."""
    wanted = {"level": arguments.level, "wait": True, "force": arguments.force}
    await desk.ask("selftest", wanted)
    return show_selftest(await fetch(), arguments, desk.out)


def show_selftest(told: SelftestReport, arguments: argparse.Namespace, out: Console) -> int:
    """Status 1 when the test has failed."""
    report = report_of(told, arguments.module)
    if arguments.html is not None:
        from qmodd.selftest.page import page

        arguments.html.write_text(page(report), encoding="utf-8")
    if arguments.json:
        sys.stdout.write(json.dumps(json.loads(told.payload())) + "\n")
    else:
        out.print(f"{told.level} self-test of {told.taken:%Y-%m-%d %H:%M:%S} UTC", markup=False, highlight=False)
        show(report, out, arguments.all)
        if told.left_out:
            out.print(f"{told.left_out} values that passed had no room in the message", markup=False, highlight=False)
    return 0 if told.passed else 1


async def run_monitors(arguments: argparse.Namespace, desk: Desk) -> int:
    """Status 1 when one of them is beyond an alarm limit, now or since the flags were last cleared."""
    found = await desk.ask("monitors", {"freeze": not arguments.last, "clear": arguments.clear})
    if desk.as_json:
        desk.show(found, "")
    else:
        desk.out.print(monitor_table(found))
    rows = found["monitors"]
    return 1 if any("alarm" in flag for row in rows for flag in row["latched"]) else 0


def monitor_table(found: dict[str, Any]) -> Table:
    """Alarm limits outside, warning limits within."""
    within = f"all within {found['span_s']:.2f} s"
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"{found['utc']}, {within}")
    for column in ("monitor", "value", "unit", "alarm", "warning", "usual", "warning", "alarm", "now", "latched"):
        table.add_column(column, justify="left" if column in ("monitor", "unit", "now", "latched") else "right")
    for row in found["monitors"]:
        limits = [_number(row[n]) for n in ("low_alarm", "low_warning", "high_warning", "high_alarm")]
        now = Text(row["unread"] or ", ".join(row["flags"]) or "", style=_style(row["flags"], row["unread"]))
        latched = Text(", ".join(row["latched"]), style=_style(row["latched"], ""))
        value = _number(row["value"])
        table.add_row(row["name"], value, row["unit"], *limits[:2], "to", *limits[2:], now, latched)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _style(flags: list[str], unread: str) -> str:
    if any("alarm" in flag for flag in flags):
        return "bold red"
    return "yellow" if flags or unread else ""
