"""A report as one HTML file: no script, nothing from outside, every text escaped, plots inline, light or dark as the
reader's system is, and fit for paper."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from calibration.record import Record
from calibration.units import unit_of
from qmodd.report.dag import SIGNS, Node, State, draw_graph
from qmodd.report.model import Entry, Report, Side
from qmodd.report.style import STYLE
from qmodd.report.svg import draw
from qmodd.report.text import escape, quantity, seconds, title

WORDS: dict[State, str] = {
    "good": "still good",
    "renewed": "checked and renewed",
    "redone": "calibrated",
    "due": "due",
    "refused": "refused",
    "waiting": "waiting",
    "unknown": "not asked for",
}
DISTURBS = ("nothing", "keys of this module stop", "keys of both modules stop")
# A list of residuals longer than this is a plot's matter, not a table's.
MOST_RESIDUALS = 16
# Values in one table; matrices have a figure.
FOLDED = 14


def page(report: Report) -> str:
    """The whole file. Raises NoPlots when figures cannot be drawn here."""
    heading = f"Calibration of {' and '.join(s.serial or s.side for s in report.sides)}"
    body = "".join(_body(report, heading))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>{escape(heading)}</title><style>{STYLE}</style></head>'
        f'<body><a class="skip" href="#main">To the results</a>{body}</body></html>\n'
    )


def _body(report: Report, heading: str) -> Iterator[str]:
    yield f'<header><h1>{escape(heading)}</h1><p class="lead">{_headline(report)}</p>'
    told = f"{report.what}, {_time(report.taken)}, {report.seconds:.1f} s from power-on"
    yield f'<p class="fine">{escape(told)}</p>'
    yield '</header><main id="main"><section aria-labelledby="summary"><h2 id="summary">At a glance</h2>'
    yield f'<p class="legend">{_legend(report)}</p>'
    for side in report.sides:
        yield f'<figure class="graph"><figcaption>{escape(side.heading)}: what rests on what</figcaption>{_graph(side)}'
        yield "</figure>"
    yield "".join(_refusals(report))
    yield "</section>"
    for side in report.sides:
        yield f'<section><h2 id="{escape(side.side)}">{escape(side.heading)}</h2>{_index(side)}'
        yield "".join(_entry(side, entry) for entry in side.entries)
        yield "</section>"
    yield "</main><footer>Uncertainties are one standard deviation. Raw readings are kept under the digest given with "
    yield "each record.</footer>"


def _headline(report: Report) -> str:
    states = [e.state for e in report.entries]
    refused = [e for e in report.entries if e.state == "refused"]
    good = sum(s in ("good", "renewed", "redone") for s in states)
    if refused:
        return f"<strong>{len(refused)} refused</strong>, {good} of {len(states)} calibrations are good."
    return f"{good} of {len(states)} calibrations are good."


def _legend(report: Report) -> str:
    present = [s for s in SIGNS if any(e.state == s for e in report.entries)]
    return " ".join(_badge(state) for state in present)


def _badge(state: State) -> str:
    sign, colour = SIGNS[state]
    return f'<span class="badge {colour}"><span aria-hidden="true">{sign}</span> {WORDS[state]}</span>'


def _graph(side: Side) -> str:
    nodes = [Node(e.name, e.needs, e.state, f"#{_id(side, e)}") for e in side.entries]
    return draw_graph(nodes, f"graph-{side.side}", f"Calibration graph of {side.heading}")


def _refusals(report: Report) -> Iterator[str]:
    refused = [(s, e) for s in report.sides for e in s.entries if e.state == "refused"]
    if refused:
        items = "".join(
            f'<li><a href="#{_id(s, e)}">{escape(title(e.name))}</a> ({escape(s.heading)}): {escape(e.why)}</li>'
            for s, e in refused
        )
        yield f'<div class="refusals" role="note"><h3>Refused</h3><ul>{items}</ul></div>'


def _index(side: Side) -> str:
    rows = "".join(
        f'<tr><th scope="row"><a href="#{_id(side, e)}">{escape(title(e.name))}</a></th><td>{_badge(e.state)}</td>'
        f'<td class="n">{e.seconds:.2f} s</td><td>{escape(_until(e))}</td><td>{escape(e.why)}</td></tr>'
        for e in side.entries
    )
    return (
        '<div class="wide"><table><thead><tr><th scope="col">calibration</th><th scope="col">state</th>'
        '<th scope="col" class="n">took</th><th scope="col">valid until</th><th scope="col">why</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _entry(side: Side, entry: Entry) -> str:
    return "".join(_entry_parts(side, entry))


def _entry_parts(side: Side, entry: Entry) -> Iterator[str]:
    here = _id(side, entry)
    yield f'<article aria-labelledby="{here}"><h3 id="{here}">{escape(title(entry.name))} {_badge(entry.state)}</h3>'
    for paragraph in entry.about.split("\n\n"):
        yield f"<p>{escape(' '.join(paragraph.split()))}</p>"
    if entry.equation:
        yield f'<p class="equation"><span class="sr">Model: </span>{escape(entry.equation)}</p>'
    if entry.state in ("refused", "waiting"):
        yield f'<p class="why" role="note">{escape(entry.why)}</p>'
    if entry.record is not None:
        yield _figures(here, entry)
        yield _values(entry.record)
        yield _residuals(entry.record)
    yield _facts(entry)
    yield "</article>"


def _figures(here: str, entry: Entry) -> str:
    if entry.no_figures:
        return f'<p class="fine">No plots: {escape(entry.no_figures)}.</p>'
    drawn = [f"<figure>{draw(figure, f'{here}-{i}')}</figure>" for i, figure in enumerate(entry.figures)]
    return f'<div class="figures">{"".join(drawn)}</div>' if drawn else ""


def _values(record: Record) -> str:
    rows = []
    for name, value in record.value.items():
        shown, sigma, unit = quantity(value, record.sigma(name), unit_of(name))
        rows.append(
            f'<tr><th scope="row"><code>{escape(name)}</code></th><td class="n">{escape(shown)}</td>'
            f'<td class="n">{escape("± " + sigma if sigma else "")}</td><td>{escape(unit)}</td></tr>'
        )
    table = (
        '<div class="wide"><table class="values"><thead><tr><th scope="col">value</th><th scope="col" class="n">is</th>'
        '<th scope="col" class="n">uncertainty</th><th scope="col">unit</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    if len(rows) <= FOLDED:
        return table
    return f"<details><summary>{len(rows)} values</summary>{table}</details>"


def _residuals(record: Record) -> str:
    if not record.residuals and not record.residual_rms:
        return ""
    text = f"Residuals: {record.residual_rms:.3g} rms"
    if record.residuals:
        largest = max(record.residuals, key=abs)
        text += f" over {len(record.residuals)} readings, largest {largest:.3g}"
    listed = ""
    if 0 < len(record.residuals) <= MOST_RESIDUALS:
        listed = f' <span class="fine">({escape(", ".join(f"{r:.2g}" for r in record.residuals))})</span>'
    return f"<p>{escape(text)}.{listed}</p>"


def _facts(entry: Entry) -> str:
    facts: list[tuple[str, str]] = [
        ("rests on", ", ".join(title(n) for n in entry.needs) or "nothing"),
        ("holds for", seconds(entry.valid_s)),
        ("to redo", f"{seconds(entry.cost_s)}; {DISTURBS[entry.disturbs]}"),
    ]
    if (record := entry.record) is not None:
        facts += _record_facts(record, entry)
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return f'<dl class="facts">{rows}</dl>'


def _record_facts(record: Record, entry: Entry) -> Iterator[tuple[str, str]]:
    temperatures = ", ".join(f"{name} {c:.2f} °C" for name, c in record.conditions.temperatures_c.items())
    yield "record", f"version {record.version} of {_time(record.created)}, by {record.conditions.operator}"
    yield "valid until", _until(entry)
    if temperatures:
        yield "taken at", temperatures
    if record.parents:
        yield "parents", ", ".join(f"{name} {version}" for name, version in record.parents.items())
    if record.raw_sha256:
        yield "raw readings", f"SHA-256 {record.raw_sha256[:16]}…"
    if record.conditions.firmware_sha256:
        yield "devices and firmware", f"SHA-256 {record.conditions.firmware_sha256[:16]}…"


def _until(entry: Entry) -> str:
    return _time(entry.valid_until) if entry.valid_until is not None else "-"


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def _id(side: Side, entry: Entry) -> str:
    return escape(f"{side.side}-{entry.name}")
