"""How `qmodctl` shows modules to people: a table that fits a terminal of 80 columns, reasons in full below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Summary = Mapping[str, Any]
COLOURS = {
    "keying": "green",
    "ready": "cyan",
    "safe": "red",
    "offline": "red",
    "locked": "yellow",
    "degraded": "yellow",
}
NUMBERS = ("QBER Z", "QBER X", "secret", "phase")


def in_order(m: Summary) -> bool:
    return bool(m["alive"] == "online" and m["operational"] == "enabled" and not m["alarms"])


def status_view(modules: Sequence[Summary]) -> RenderableType:
    """One row a module, then every reason in a line of its own."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("module", "alive", "state", "service", *NUMBERS):
        table.add_column(name, no_wrap=True, justify="right" if name in NUMBERS else "left")
    reasons: list[Text] = []
    for m in modules:
        service = m["administrative"] if m["administrative"] == "locked" else m["operational"]
        states = [_coloured(text) for text in (m["alive"], m["activity"], service)]
        table.add_row(m["module"], *states, *_numbers(m))
        reasons += _reasons(m)
    return Group(table, *reasons)


def _coloured(value: str) -> Text:
    return Text(value, style=COLOURS.get(value, ""))


def _numbers(m: Summary) -> tuple[str, str, str, str]:
    keys, phase = (m["telemetry"].get(g, {}) for g in ("keys", "phase"))
    return (
        _shown(keys.get("qber_z"), "{:.2%}"),
        _shown(keys.get("qber_x"), "{:.2%}"),
        _shown(keys.get("secret_rate_bps"), "{:,.0f} b/s"),
        _shown(phase.get("error_deg"), "{:+.1f}°"),
    )


def _shown(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) and value != 0.0 else "-"


def _reasons(m: Summary) -> list[Text]:
    out = []
    for name in dict.fromkeys(m[f"{n}_why"] for n in ("activity", "operational")):
        if name:
            out.append(Text(f"{m['module']}: {name}"))
    held: dict[str, list[str]] = {}
    for i in m["inhibited"]:
        held.setdefault(i["why"], []).append(i["output"])
    for why, outputs in held.items():
        out.append(Text(f"{m['module']}: {', '.join(outputs)} held off: {why}", style="yellow"))
    if waiting := m.get("approvals"):
        text = f"{m['module']}: {len(waiting)} approval{'s' * (len(waiting) > 1)} wait: qmodctl approvals {m['module']}"
        out.append(Text(text, style="yellow"))
    if m["alarms"]:
        out.append(Text(f"{m['module']}: alarms {', '.join(m['alarms'])}", style="red"))
    return out
