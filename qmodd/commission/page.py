"""The commissioning report as one HTML file: no script, nothing from outside, every text escaped, fit for paper."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from qmodd.commission.findings import Gate, Heard, Pair
from qmodd.report.style import STYLE
from qmodd.report.text import escape

_OWN = """
.lead{font-size:1.3rem;font-weight:600;border-left:6px solid;padding:.35rem 0 .35rem .9rem}
.lead.ok{border-color:var(--ok)}.lead.bad{border-color:var(--bad)}.lead.due{border-color:var(--due)}
table.gates{width:100%}table.gates td:first-child{white-space:nowrap}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(21rem,1fr));gap:1rem}
.signatures{display:grid;grid-template-columns:1fr 1fr;gap:2.5rem;margin-top:3rem}
.signatures div{border-top:1px solid var(--muted);padding-top:.3rem;color:var(--muted);font-size:.87rem}
"""
BADGES = {True: ("ok", "passed"), False: ("bad", "not passed"), None: ("due", "open")}
NAMES = {"alice": "Transmitter", "bob": "Receiver", "": "Module"}
AREAS = {"board": "Board", "product": "Module", "record": "qmodd record"}


def page(pair: Pair, what: str, taken: datetime) -> str:
    """The whole file. `what`: where this was read (an emulated pair, a broker, a local socket)."""
    heading = f"Commissioning of {' and '.join(sorted(pair.modules)) or 'a pair'}"
    body = "".join(_body(pair, heading, what, taken))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>{escape(heading)}</title>'
        f"<style>{STYLE}{_OWN}</style></head><body>{body}</body></html>\n"
    )


def _body(pair: Pair, heading: str, what: str, taken: datetime) -> Iterator[str]:
    gates = pair.gates()
    kind, text = _verdict(gates)
    yield f'<header><h1>{escape(heading)}</h1><p class="lead {kind}">{escape(text)}</p>'
    yield f'<p class="fine">{escape(what)}, {taken:%Y-%m-%d %H:%M} UTC</p></header><main>'
    yield '<section><h2>Gates</h2><article><div class="wide"><table class="gates"><thead><tr><th>gate</th>'
    yield "<th>read</th><th>limit</th><th>result</th></tr></thead><tbody>"
    yield "".join(_row(g) for g in gates)
    yield "</tbody></table></div></article></section>"
    yield '<section><h2>Modules</h2><div class="pair">'
    for side in ("alice", "bob"):
        if (heard := pair.side(side)) is not None:
            yield _module(side, heard)
    yield "</div></section>"
    yield "".join(_blocks(pair))
    yield '<div class="signatures"><div>commissioned by, date</div><div>handed over to, date</div></div></main>'


def _verdict(gates: list[Gate]) -> tuple[str, str]:
    failed = [g.name for g in gates if g.ok is False]
    left = [g.name for g in gates if g.ok is None]
    if failed:
        return "bad", f"Not fit for service: {', '.join(failed)}"
    if left:
        return "due", f"Not complete: {', '.join(left)}"
    return "ok", "Fit for service: every gate is passed"


def _row(gate: Gate) -> str:
    kind, word = BADGES[gate.ok]
    hint = f'<br><span class="muted">{escape(gate.hint)}</span>' if gate.hint else ""
    return (
        f"<tr><td>{escape(gate.name)}</td><td>{escape(gate.read)}{hint}</td><td>{escape(gate.limit)}</td>"
        f'<td><span class="badge {kind}">{word}</span></td></tr>'
    )


def _module(side: str, heard: Heard) -> str:
    told = heard.said.get("assembly") or {}
    fru = told.get("fru") or {}
    rows = [("controller", heard.serial), ("serial", told.get("module", "")), ("factory record", _record(told))]
    out = f"<article><h3>{NAMES[side]} {escape(str(told.get('module', '')))}</h3>{_table(rows)}"
    for area, title in AREAS.items():
        if isinstance(values := fru.get(area), dict):
            shown = [(k.replace("_", " "), _short(v)) for k, v in values.items() if v not in ("", None)]
            out += f"<p class='fine'>{title}</p>{_table(shown)}"
    return out + "</article>"


def _record(told: dict[str, Any]) -> str:
    slot = told.get("slot") or {}
    where = f", slot {slot['slot']}, sequence {slot['sequence']}" if slot else ""
    return f"from {told.get('factory_record', '')}{where}"


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:16]}…" if len(text) == 64 else text


def _table(rows: list[tuple[str, Any]]) -> str:
    cells = "".join(f"<tr><td class='muted'>{escape(n)}</td><td>{escape(str(v))}</td></tr>" for n, v in rows)
    return f"<table style='min-width:0'><tbody>{cells}</tbody></table>"


def _blocks(pair: Pair) -> Iterator[str]:
    blocks = pair.blocks()
    if not blocks:
        return
    yield "<section><h2>First blocks</h2><article><div class='wide'><table><thead><tr><th class='n'>at</th>"
    yield "<th class='n'>key bits</th><th class='n'>rate</th><th class='n'>QBER Z</th><th class='n'>QBER X</th>"
    yield "<th>made with</th></tr></thead><tbody>"
    for at, b in blocks[:8]:
        rate = float(b["key_bits"]) / float(b["seconds"]) if float(b["seconds"]) > 0.0 else 0.0
        yield f"<tr><td class='n'>{at:.0f} s</td><td class='n'>{int(b['key_bits']):,}</td>"
        yield f"<td class='n'>{rate:,.0f} b/s</td>"
        yield f"<td class='n'>{float(b['qber_z']):.2%}</td><td class='n'>{float(b['qber_x']):.2%}</td>"
        yield f"<td>{escape(str(b.get('modules', '')))}</td></tr>"
    yield "</tbody></table></div></article></section>"
