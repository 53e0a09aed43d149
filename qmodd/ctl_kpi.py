"""`qmodctl kpi`: was the service what was promised, over a period; as a table, CSV or a page with plots."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qmodd.ctl_client import Session
from qmodd.ctl_errors import CtlError
from qmodd.ctl_fleet import rate
from qmodd.ctl_seen import read_kpi
from qmodd.monitoring.kpi import Sums
from qmodd.monitoring.kpi_report import FIGURES, Figure, History, ModuleReport, Report, as_json, csv_rows, report
from qmodd.report.text import seconds

UNITS = {"min": 60.0, "h": 3600.0, "d": 86_400.0}
# More modules than this get a line each instead of a column.
MOST_COLUMNS = 3
SIGN = {True: Text("kept", style="green"), False: Text("missed", style="bold red"), None: Text("-", style="dim")}


def add_kpi_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """The parser of `kpi`."""
    kpi = commands.add_parser(
        "kpi",
        parents=[common],
        help="service level over a period",
        epilog="example: qmodctl kpi QM-B-0001 --last 7d --min-availability 0.995 --min-skr 50000 --html sla.html",
    )
    kpi.add_argument("modules", nargs="*", metavar="module", help="these; none: all of the broker")
    kpi.add_argument("--last", default="24h", metavar="T", help="such as 90min, 24h, 30d; default 24h")
    kpi.add_argument(
        "--from", dest="start", metavar="UTC", help="instead of --last: begin, such as 2026-01-31 or 2026-01-31T12:00"
    )
    kpi.add_argument("--to", dest="stop", metavar="UTC", help="end, default now")
    for f in FIGURES:
        words = f"{'at least' if f.least else 'at most'} this {f.words} is promised ({f.says})"
        kpi.add_argument(f.option, dest=f.name, type=float, metavar="X", help=words)
    kpi.add_argument(
        "--history",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="also what is recorded here: kpi or event messages, or an event log, one a line; may be repeated",
    )
    kpi.add_argument("--offline", action="store_true", help="ask no broker: --history is all there is")
    kpi.add_argument("--save", type=Path, metavar="FILE", help="append what the broker has, for --history later")
    kpi.add_argument("--csv", type=Path, metavar="FILE", help="write every span as a row")
    kpi.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots (extra `report`)")


async def run_kpi(s: Session) -> int:
    """Status 1 when a promise was not kept, or nothing is known of a module. Raises CtlError, LinkDown."""
    a = s.arguments
    start, end = period(a, s.ctl.clock.utc())
    history = recorded(a.history)
    if not a.offline:
        await _ask(s, history)
    elif not a.history:
        raise CtlError(2, "--offline needs --history FILE")
    limits = {f.name: float(v) for f in FIGURES if (v := getattr(a, f.name)) is not None}
    made = report(history, start, end, limits, a.modules)
    if not made.modules:
        raise CtlError(3, "no module has published KPIs at this broker")
    _write(a, made)
    if history.strange:
        s.errors.print(f"{history.strange} lines of --history are no KPIs and no events", highlight=False)
    if s.as_json:
        sys.stdout.write(json.dumps(as_json(made)) + "\n")
    else:
        s.out.print(view(made))
    return 0 if made.kept else 1


async def _ask(s: Session, history: History) -> None:
    """What is retained, of every module that was named. Raises CtlError, LinkDown."""
    lines: list[bytes] = []
    for module in s.arguments.modules or [None]:
        for found in (await s.ctl.retained(module, "kpi")).values():
            told = read_kpi(found["kpi"])
            if told is None:
                s.errors.print("one module's KPIs are of another version of qmodd: left out", highlight=False)
                continue
            history.kpi(told)
            lines.append(found["kpi"])
    if s.arguments.save is not None:
        with s.arguments.save.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))


def recorded(paths: Sequence[Path]) -> History:
    """Raises CtlError for a file that cannot be read."""
    history = History()
    lines: list[str] = []
    for path in paths:
        try:
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as e:
            raise CtlError(2, f"--history {path}: {e.strerror}") from None
    history.lines(lines)
    return history


def period(arguments: argparse.Namespace, now: datetime) -> tuple[datetime, datetime]:
    """From and to, UTC. Raises CtlError when they make no period."""
    end = _time("--to", arguments.stop) if arguments.stop else now
    start = _time("--from", arguments.start) if arguments.start else end - _last(arguments.last)
    if start >= end:
        raise CtlError(2, f"the period from {start.isoformat()} to {end.isoformat()} is empty")
    return start, end


def _time(option: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CtlError(2, f"{option} {text!r}: not a time such as 2026-01-31 or 2026-01-31T12:00") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _last(text: str) -> timedelta:
    for unit, size in UNITS.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal() and float(number) > 0.0:
            try:
                return timedelta(seconds=float(number) * size)
            except OverflowError:
                break
    raise CtlError(2, f"--last {text!r}: not a time such as 90min, 24h or 30d")


def _write(a: argparse.Namespace, made: Report) -> None:
    """Raises CtlError when a file cannot be written, or drawn."""
    try:
        if a.csv is not None:
            with a.csv.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(csv_rows(made))
        if a.html is not None:
            from qmodd.ctl_kpi_page import page
            from qmodd.report.svg import NoPlots

            try:
                a.html.write_text(page(made), encoding="utf-8")
            except NoPlots as e:
                raise CtlError(2, f"--html: {e}") from None
    except OSError as e:
        raise CtlError(2, f"{e.filename}: {e.strerror}") from None


# for people


def shown(f: Figure, value: float | None) -> str:
    """With its unit."""
    if value is None:
        return "-"
    if f.unit == "1":
        return f"{value:.3%}" if f.least else f"{value:.2%}"
    return rate(value) if f.unit == "b/s" else seconds(value)


def view(r: Report) -> RenderableType:
    """A column a module, or a line a module where there are many; then what was missed."""
    table = _columns(r) if len(r.modules) <= MOST_COLUMNS else _lines(r)
    told = [_said(m) for m in r.modules if not m.kept]
    title = Text(f"{r.start:%Y-%m-%d %H:%M} to {r.end:%Y-%m-%d %H:%M} UTC", style="bold")
    return Group(title, table, *told)


def _columns(r: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for m in r.modules:
        table.add_column(m.module, justify="right")
    table.add_column("promised", justify="right")
    for i, f in enumerate(FIGURES):
        limit = r.limits.get(f.name)
        promised = "" if limit is None else f"{'≥' if f.least else '≤'} {shown(f, limit)}"
        table.add_row(f.words, *(_judged(m, i) for m in r.modules), promised)
    for name, text in _beside():
        table.add_row(Text(name, style="dim"), *(Text(text(m.sums), style="dim") for m in r.modules), "")
    return table


def _beside() -> Iterator[tuple[str, Callable[[Sums], str]]]:
    """What nobody promises, but has to be known beside it."""
    yield "keys delivered", lambda s: f"{s.keys_delivered:,}"
    yield "planned work", lambda s: seconds(s.planned_s)
    yield "down", lambda s: seconds(s.down_total_s)
    yield "daemon absent", lambda s: seconds(s.absent_s)
    yield "alarms", lambda s: f"{s.alarms_raised:,}"
    yield "counted", lambda s: seconds(s.covered_s)


def _judged(m: ModuleReport, i: int) -> Text:
    result = m.results[i]
    style = {True: "green", False: "bold red", None: ""}[result.kept]
    return Text(shown(result.figure, result.value), style=style)


def _lines(r: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = [(i, f) for i, f in enumerate(FIGURES) if f.name in ("availability", "skr_bps", "qber_z", "mttr_s")]
    table.add_column("module")
    for _, f in columns:
        table.add_column(f.short, justify="right")
    for name in ("keys", "planned"):
        table.add_column(name, justify="right")
    table.add_column("")
    for m in r.modules:
        cells = [_judged(m, i) for i, _ in columns]
        table.add_row(m.module, *cells, f"{m.sums.keys_delivered:,}", seconds(m.sums.planned_s), SIGN[_verdict(r, m)])
    return table


def _verdict(r: Report, m: ModuleReport) -> bool | None:
    return None if m.kept and not r.limits else m.kept


def _said(m: ModuleReport) -> Text:
    """Why a module is not in order, in words."""
    if not m.spans:
        return Text(f"{m.module}: nothing is known of this period", style="red")
    missed = [r for r in m.results if r.kept is False]
    parts = [
        f"{r.figure.words} {shown(r.figure, r.value)}, promised "
        f"{'at least' if r.figure.least else 'at most'} {shown(r.figure, r.limit)}"
        for r in missed
    ]
    if any(r.figure.name == "skr_bps" for r in missed):
        parts.append(f"the rate was below its floor in spans of together {seconds(m.missed_s('skr_bps'))}")
    return Text(f"{m.module}: {'; '.join(parts)}", style="red")
