"""How `qmodctl watch` draws: a panel a module while they fit, else a line a module. Made anew for every size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qmodd.clock import Clock
from qmodd.ctl_alarms import COLOURS as SEVERITIES
from qmodd.ctl_fleet import day_picture, fleet_view, rate
from qmodd.ctl_seen import Fleet, Seen, number
from qmodd.ctl_view import COLOURS
from qmodd.report.text import seconds
from qmodd.sparkline import trace

# A panel's lines besides its alarms and held outputs; more modules than fit so get a line each.
PANEL_LINES, MOST_PANELS = 10, 6
MOST_ALARMS, MOST_EVENTS = 5, 2
LABEL, VALUE = 8, 11
# Events that come with every block or batch say nothing that the numbers do not.
DULL = ("block.", "key.", "calibration.renewed", "loop.facts")


@dataclass
class WatchView:
    """What was heard, drawn as the terminal is now."""

    fleet: Fleet
    clock: Clock

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        modules = self.fleet.worst_first()
        if not modules:
            yield Text("listening; nothing heard yet", style="dim")
            return
        height = options.height or console.height
        if len(modules) == 1 or (len(modules) <= MOST_PANELS and len(modules) * PANEL_LINES <= max(height, 24)):
            for m in sorted(modules, key=lambda m: m.serial):
                yield panel(m, options.max_width, self.clock)
        else:
            yield fleet_view(modules, options.max_width)


def panel(m: Seen, width: int, clock: Clock) -> Panel:
    """One module in a frame: state and reason, pictures, lock, keys, alarms, what happened last."""
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    table.add_column(style="dim", no_wrap=True, width=LABEL)
    table.add_column(no_wrap=True, width=VALUE, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    room = max(8, width - LABEL - VALUE - 8)
    for label, value, picture in _numbers(m, room):
        table.add_row(label, value, picture)
    lines: list[RenderableType] = [_state(m, clock), table, *_alarms(m, clock), *_held(m), *_events(m)]
    colour = COLOURS.get(m.activity, "blue") if not m.alarms else SEVERITIES.get(m.alarms[0].severity, "yellow")
    return Panel(Group(*lines), title=_title(m), title_align="left", border_style=colour)


def _title(m: Seen) -> Text:
    return Text.assemble((m.serial, "bold"), " ", (m.activity, COLOURS.get(m.activity, "")))


def _state(m: Seen, clock: Clock) -> Text:
    alive = m.view.said.get("alive")
    version = str(alive.get("version", "")) if isinstance(alive, dict) else ""
    services = " ".join(m.field(n)[0] for n in ("administrative", "operational"))
    out = Text(overflow="ellipsis", no_wrap=True)
    if (silent := m.silent_s(clock.monotonic())) is not None:
        out.append(f"no telemetry for {seconds(silent)}; ", style="bold red")
    out.append(_reason(m), style="bold")
    out.append(f"  {services}{f', qmodd {version}' if version else ''}", style="dim")
    return out


def _reason(m: Seen) -> str:
    """Of the activity; in service of what is not in order, if anything."""
    if not m.online:
        return "offline: its will or its goodbye was the last word"
    operational, why = m.field("operational")
    served = m.activity in ("ready", "keying")
    return why if served and operational != "enabled" and why else m.field("activity")[1]


def _numbers(m: Seen, room: int) -> Iterator[tuple[str, Text | str, Text | str]]:
    keys, phase = m.group("keys"), m.group("phase")
    yield "QBER Z", _share(keys.get("qber_z")), Text(trace(m.qber_z, room), style="yellow")
    yield "QBER X", _share(keys.get("qber_x")), _sifted(m)
    skr = number(keys.get("secret_rate_bps"))
    yield "SKR", rate(skr) if skr else "-", Text(trace(m.skr_bps, room), style="green")
    day = m.kpi.last_24h if m.kpi else None
    available = "-" if day is None or day.availability is None else f"{day.availability:.2%}"
    yield "24 h", available, Text(day_picture(m, room), style="green")
    if phase:
        yield "lock", *_lock(phase, m)
    yield "keys", _count(keys.get("created_count")), _keys(keys, m)


def _sifted(m: Seen) -> Text:
    sifted = number(m.group("link").get("sifted_rate_per_s"))
    progress = number(m.group("keys").get("block_progress"))
    parts = [] if sifted is None else [f"sifted {sifted / 1e3:,.1f} k/s"]
    parts += [] if progress is None else [f"block {progress:.0%}"]
    return Text(", ".join(parts), style="dim")


def _lock(phase: Mapping[str, Any], m: Seen) -> tuple[Text, Text]:
    locked = bool(phase.get("locked"))
    state = Text("locked" if locked else "not locked", style="green" if locked else "red")
    error, visibility = number(phase.get("error_deg")), number(phase.get("visibility"))
    uptime = m.kpi.last_24h.lock_uptime if m.kpi else None
    parts = [] if error is None else [f"error {error:+.1f}°"]
    parts += [] if visibility is None else [f"visibility {visibility:.1%}"]
    parts += [] if uptime is None else [f"24 h {uptime:.2%}"]
    return state, Text(", ".join(parts), style="dim")


def _keys(keys: Mapping[str, Any], m: Seen) -> Text:
    waiting, sent = number(keys.get("distilled_count")), number(keys.get("delivered_count"))
    parts = [] if waiting is None else [f"{waiting:,.0f} waiting"]
    parts += [] if not sent else [f"{sent:,.0f} on their way"]
    latency = m.kpi.last_24h.latency_mean_s if m.kpi else None
    parts += [] if latency is None else [f"usable after {seconds(latency)}"]
    return Text(", ".join(parts), style="dim")


def _alarms(m: Seen, clock: Clock) -> Iterator[Text]:
    now = clock.utc()
    for a in m.alarms[:MOST_ALARMS]:
        line = Text(overflow="ellipsis", no_wrap=True)
        line.append(f"{a.severity} {a.id}", style=SEVERITIES.get(a.severity, ""))
        age = max(0.0, (now - a.occurred).total_seconds())
        care = f", {a.acknowledged}" if a.acknowledged else ""
        line.append(f" for {seconds(age)}{care}: {a.why}")
        yield line
    if m.approvals:
        yield Text(f"{m.approvals} waiting for a second person: qmodctl approvals {m.serial}", style="yellow")
    if len(m.alarms) > MOST_ALARMS:
        yield Text(f"and {len(m.alarms) - MOST_ALARMS} more alarms", style="red")


def _held(m: Seen) -> Iterator[Text]:
    """Outputs that are held off, those with one reason together."""
    state = m.view.said.get("state")
    held: dict[str, list[str]] = {}
    for i in state.get("inhibited", []) if isinstance(state, dict) else []:
        held.setdefault(str(i.get("why")), []).append(str(i.get("output")))
    for why, outputs in held.items():
        text = (
            f"{len(outputs)} outputs held off: {why}" if len(outputs) > 3 else f"{', '.join(outputs)} held off: {why}"
        )
        yield Text(text, style="yellow", overflow="ellipsis", no_wrap=True)


def _events(m: Seen) -> Iterator[Text]:
    told = [e for e in m.events if not str(e.get("event", "")).startswith(DULL)]
    for e in told[-MOST_EVENTS:]:
        fields = e.get("fields") or {}
        shown = " ".join(str(fields[n]) for n in ("value", "name", "alarm", "stage", "why") if fields.get(n))
        text = f"{_clock(e.get('t'))} {e.get('event')} {shown}"
        yield Text(text, style="dim", overflow="ellipsis", no_wrap=True)


def _clock(t: Any) -> str:
    try:
        return f"{datetime.fromisoformat(str(t)):%H:%M:%S}"
    except ValueError:
        return "--:--:--"


def _share(value: Any) -> str:
    shown = number(value)
    return f"{shown:.2%}" if shown else "-"


def _count(value: Any) -> str:
    shown = number(value)
    return "-" if shown is None else f"{shown:,.0f}"
