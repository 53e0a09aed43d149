"""`qmodctl fleet`: every module of a broker in a line, the worst first, and what they add up to."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from qmodd.ctl_alarms import COLOURS as SEVERITIES
from qmodd.ctl_alarms import GRAVEST_FIRST
from qmodd.ctl_client import Session
from qmodd.ctl_seen import WANTED, Fleet, Seen, number, receivers
from qmodd.ctl_view import COLOURS
from qmodd.sparkline import sparkline, thinned

LISTEN_S = 2.5
# Below this width the pictures give their room to the reasons.
ROOM_FOR_PICTURES, PICTURE = 110, 16


def add_fleet_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """The parser of `fleet`."""
    fleet = commands.add_parser(
        "fleet",
        parents=[common],
        help="all modules of a broker, the worst first",
        epilog="example: qmodctl fleet --listen 5; qmodctl watch for the same, live",
    )
    fleet.add_argument(
        "--listen", type=float, default=LISTEN_S, metavar="S", help="wait at most so long for telemetry, default 2.5"
    )


async def run_fleet(s: Session) -> int:
    """Status 1 unless every module is online and in service without an alarm."""
    fleet = await listened(s, s.arguments.listen)
    modules = fleet.worst_first()
    if s.as_json:
        sys.stdout.write(json.dumps({"modules": [row(m) for m in modules], "totals": totals(modules)}) + "\n")
    elif modules:
        # Reasons are cut to the width of the terminal, and not at all where there is none.
        out = Console() if s.out.is_terminal else Console(file=s.out.file, width=200)
        out.print(fleet_view(modules, out.width))
    else:
        s.out.print("the broker knows no module")
    return 0 if modules and all(good(m) for m in modules) else 1


async def listened(s: Session, seconds: float) -> Fleet:
    """Everything that is retained, and what is said within the time; ends early once all that are online have spoken.

    Raises LinkDown.
    """
    fleet, clock, done = Fleet(), s.ctl.clock, asyncio.Event()

    def hear(topic: str, payload: bytes) -> None:
        fleet.hear(topic, payload, clock.monotonic())
        waiting = [m for m in fleet.modules.values() if m.online and not m.group("keys")]
        if fleet.modules and not waiting:
            done.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(s.ctl.watch((), WANTED, hear), name="listening")
        ended = asyncio.ensure_future(done.wait())
        # An early end gives what is retained, of all modules, its time first.
        await asyncio.wait({task}, timeout=min(1.0, seconds))
        await asyncio.wait({task, ended}, timeout=max(0.0, seconds - 1.0), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not task.done():
            task.cancel()
    return fleet


def good(m: Seen) -> bool:
    return m.online and m.field("operational")[0] == "enabled" and not m.alarms


def row(m: Seen) -> dict[str, Any]:
    """For programs; null where nothing is known."""
    day = m.kpi.last_24h if m.kpi else None
    return {
        "module": m.serial,
        "online": m.online,
        "activity": m.activity,
        "administrative": m.field("administrative")[0],
        "operational": m.field("operational")[0],
        "why": m.why,
        "alarms": [{"id": a.id, "severity": a.severity} for a in m.alarms],
        "skr_bps": number(m.group("keys").get("secret_rate_bps")),
        "qber_z": number(m.group("keys").get("qber_z")) or None,
        "availability_24h": day.availability if day else None,
        "skr_24h_bps": day.skr_bps if day else None,
        "lock_uptime_24h": day.lock_uptime if day else None,
        "keys_delivered_24h": day.keys_delivered if day else None,
        "latency_mean_24h_s": day.latency_mean_s if day else None,
    }


def totals(modules: Sequence[Seen]) -> dict[str, Any]:
    """Rates are summed over receivers, keys over all modules: every site has its recipients."""
    alarms = Counter(str(a.severity) for m in modules for a in m.alarms)
    ends = receivers(modules)
    days = [m.kpi.last_24h for m in modules if m.kpi]
    available = [d.availability for d in days if d.availability is not None]
    return {
        "modules": len(modules),
        "keying": sum(m.activity == "keying" for m in modules),
        "offline": sum(not m.online for m in modules),
        "alarms": {s: alarms[s] for s in GRAVEST_FIRST if alarms[s]},
        "links": len(ends),
        "skr_bps": sum(number(m.group("keys").get("secret_rate_bps")) or 0.0 for m in ends),
        "keys_delivered_24h": sum(d.keys_delivered for d in days),
        "availability_24h": sum(available) / len(available) if available else None,
        "availability_24h_min": min(available, default=None),
    }


def fleet_view(modules: Sequence[Seen], width: int) -> RenderableType:
    """One line a module, cut to the width, and a line of totals."""
    pictures = width >= ROOM_FOR_PICTURES
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("module", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("alarms", no_wrap=True)
    for name in ("SKR", "QBER", "24 h"):
        table.add_column(name, no_wrap=True, justify="right")
    if pictures:
        table.add_column("SKR, 24 h", no_wrap=True)
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=1)
    for m in modules:
        table.add_row(*_cells(m, pictures))
    return Group(table, Text(), *_told(totals(modules)))


def _cells(m: Seen, pictures: bool) -> list[RenderableType]:
    r = row(m)
    day = r["availability_24h"]
    cells: list[RenderableType] = [
        m.serial,
        Text(r["activity"], style=COLOURS.get(r["activity"], "")),
        alarm_count(m),
        rate(r["skr_bps"]),
        "-" if r["qber_z"] is None else f"{r['qber_z']:.2%}",
        "-" if day is None else f"{day:.2%}",
    ]
    if pictures:
        cells.append(Text(day_picture(m, PICTURE), style="green"))
    return [*cells, Text(m.why, style="" if good(m) else "yellow")]


def alarm_count(m: Seen) -> Text:
    """How many of the gravest kind, and how many besides."""
    alarms = m.alarms
    if not alarms:
        return Text("-")
    gravest = alarms[0].severity
    n = sum(a.severity == gravest for a in alarms)
    more = f"+{len(alarms) - n}" if len(alarms) > n else ""
    return Text(f"{n} {gravest}{more}", style=SEVERITIES.get(gravest, ""))


def day_picture(m: Seen, width: int) -> str:
    """Secret key rate of the last 24 h, oldest first."""
    if m.kpi is None:
        return ""
    return sparkline(thinned([b.skr_bps for b in m.kpi.bins_15min], width), width, low=0.0)


def rate(bps: float | None) -> str:
    """Bits a second in five characters or a few more."""
    if bps is None:
        return "-"
    for size, unit in ((1e9, "Gb/s"), (1e6, "Mb/s"), (1e3, "kb/s")):
        if bps >= size:
            return f"{bps / size:.1f} {unit}"
    return f"{bps:.0f} b/s"


def _told(t: dict[str, Any]) -> list[Text]:
    named = ", ".join(f"{n} {severity}" for severity, n in t["alarms"].items()) or "none"
    first = f"{t['modules']} modules: {t['keying']} keying, {t['offline']} offline; alarms: {named}"
    day = "" if t["availability_24h"] is None else f", availability {t['availability_24h']:.3%}"
    least = "" if t["availability_24h_min"] is None else f" (least {t['availability_24h_min']:.2%})"
    second = f"{t['links']} links: {rate(t['skr_bps'])}; 24 h: {t['keys_delivered_24h']:,} keys delivered{day}{least}"
    return [Text(first, style="bold"), Text(second)]
