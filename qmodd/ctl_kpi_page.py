"""The service level report as one HTML file: no script, nothing from outside, plots inline. Needs extra `report`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from calibration.plot import Plot, Series
from qmodd.ctl_kpi import shown
from qmodd.monitoring.kpi import DAY_S, Sums
from qmodd.monitoring.kpi_report import FIGURES, ModuleReport, Report, Result, Span
from qmodd.report.style import STYLE
from qmodd.report.svg import draw
from qmodd.report.text import escape, seconds

BADGES = {
    True: '<span class="badge ok"><span aria-hidden="true">✓</span> kept</span>',
    False: '<span class="badge bad"><span aria-hidden="true">✗</span> missed</span>',
    None: '<span class="badge muted">not judged</span>',
}
Value = Callable[[Sums], float | None]
Curve = tuple[str, Value]
NAMES = ".name{white-space:nowrap}"
# Beyond so many hours the axis counts days.
MOST_HOURS = 72.0


def page(r: Report) -> str:
    """The whole file. Raises qmodd.report.svg.NoPlots when figures cannot be drawn here."""
    heading = "Service level report"
    body = "".join(_body(r, heading))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>{escape(heading)}</title><style>{STYLE}{NAMES}</style>'
        f'</head><body><a class="skip" href="#main">To the results</a>{body}</body></html>\n'
    )


def _body(r: Report, heading: str) -> Iterator[str]:
    yield f'<header><h1>{heading}</h1><p class="lead">{_headline(r)}</p>'
    yield f'<p class="fine">{r.start:%Y-%m-%d %H:%M} to {r.end:%Y-%m-%d %H:%M} UTC</p></header><main id="main">'
    yield f'<section aria-labelledby="summary"><h2 id="summary">At a glance</h2>{_summary(r)}</section>'
    for m in r.modules:
        yield f'<section><h2 id="{escape(m.module)}">{escape(m.module)}</h2>{"".join(_module(m))}</section>'
    yield "</main><footer>Availability is the share of keying in all time but planned work; time without a daemon "
    yield "counts as an outage. The rate is over the same time, outages included. MTTR is how long an alarm's "
    yield "condition lasted.</footer>"


def _headline(r: Report) -> str:
    if not r.limits:
        return f"{len(r.modules)} modules; nothing was promised, so nothing is judged."
    missed = [m.module for m in r.modules if not m.kept]
    if not missed:
        return f"<strong>Kept</strong> by all {len(r.modules)} modules."
    return f"<strong>Missed</strong> by {len(missed)} of {len(r.modules)} modules: {escape(', '.join(missed))}."


def _summary(r: Report) -> str:
    head = "".join(f'<th scope="col" class="n">{escape(f.short)}</th>' for f in FIGURES)
    promised = "".join(f'<td class="n">{_promised(r, f.name)}</td>' for f in FIGURES)
    rows = "".join(
        f'<tr><th scope="row" class="name"><a href="#{escape(m.module)}">{escape(m.module)}</a></th>'
        f"{''.join(_cell(x) for x in m.results)}<td>{_badge(r, m)}</td></tr>"
        for m in r.modules
    )
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">module</th>{head}<th scope="col"></th></tr></thead>'
        f'<tbody>{rows}<tr><th scope="row">promised</th>{promised}<td></td></tr></tbody></table></div>'
    )


def _promised(r: Report, name: str) -> str:
    f = next(f for f in FIGURES if f.name == name)
    limit = r.limits.get(name)
    return "" if limit is None else f"{'≥' if f.least else '≤'} {escape(shown(f, limit))}"


def _cell(x: Result) -> str:
    colour = {True: " ok", False: " bad", None: ""}[x.kept]
    mark = {True: "", False: '<span class="sr">missed: </span>', None: ""}[x.kept]
    return f'<td class="n{colour}">{mark}{escape(shown(x.figure, x.value))}</td>'


def _badge(r: Report, m: ModuleReport) -> str:
    return BADGES[None if m.kept and not r.limits else m.kept]


def _module(m: ModuleReport) -> Iterator[str]:
    if not m.spans:
        yield '<p class="why" role="note">Nothing is known of this period.</p>'
        return
    yield f"<p>{_time_spent(m.sums)}</p>"
    below_s = m.missed_s("skr_bps")
    if below_s:
        yield f'<p class="why" role="note">The rate was below its floor in spans of together {seconds(below_s)}.</p>'
    figures = [draw(plot, f"{m.module}-{i}") for i, plot in enumerate(plots(m))]
    yield f'<div class="figures">{"".join(f"<figure>{f}</figure>" for f in figures)}</div>'
    yield _facts(m.sums)


def _time_spent(s: Sums) -> str:
    parts = [f"{seconds(s.keying_s)} keying", *(f"{seconds(v)} {escape(n)}" for n, v in sorted(s.down_s.items()))]
    parts += [f"{seconds(s.absent_s)} without a daemon"] if s.absent_s else []
    parts += [f"{seconds(s.planned_s)} of planned work"] if s.planned_s else []
    return f"Of {seconds(s.covered_s)}: {', '.join(parts)}."


def _facts(s: Sums) -> str:
    facts = (
        ("keys", f"{s.keys_delivered:,} delivered, {s.keys_usable:,} usable at both sites"),
        ("blocks", f"{s.blocks:,} kept, {s.blocks_aborted:,} without a key"),
        ("worst block", f"QBER Z {s.qber_z_max:.2%}, X {s.qber_x_max:.2%}"),
        ("alarms", f"{s.alarms_raised:,} raised, {s.alarms_acknowledged:,} acknowledged, {s.alarms_cleared:,} cleared"),
        ("oldest key", f"{seconds(s.latency_max_s)} old when it became usable" if s.keys_usable else "-"),
    )
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return f'<dl class="facts">{rows}</dl>'


def plots(m: ModuleReport) -> Iterator[Plot]:
    """Rate, error rates and availability over the period, each with what was promised."""
    limits = {x.figure.name: x.limit for x in m.results}
    yield _plot(m, "Secret key rate", "kb/s", [("rate", lambda s: _scaled(s.skr_bps, 1e-3))], limits["skr_bps"], 1e-3)
    errors: list[Curve] = [
        ("QBER Z", lambda s: _scaled(s.qber_z, 100.0)),
        ("QBER X", lambda s: _scaled(s.qber_x, 100.0)),
    ]
    yield _plot(m, "Error rates", "%", errors, limits["qber_z"], 100.0)
    shares: list[Curve] = [
        ("availability", lambda s: _scaled(s.availability, 100.0)),
    ]
    if m.sums.lock_uptime is not None:
        shares.append(("lock uptime", lambda s: _scaled(s.lock_uptime, 100.0)))
    yield _plot(m, "Availability", "%", shares, limits["availability"], 100.0)


def _plot(m: ModuleReport, title: str, unit: str, curves: Sequence[Curve], limit: float | None, scale: float) -> Plot:
    zero, size, label = _axis(m.spans)
    series = [made for name, value in curves if (made := _steps(m.spans, name, value, zero, size)) is not None]
    if limit is not None:
        ends = [(m.spans[0].start - zero) / size, (m.spans[-1].start + m.spans[-1].width_s - zero) / size]
        series.append(Series(f"promised {curves[0][0]}", ends, [limit * scale] * 2, "line"))
    return Plot(title, label, f"{title.lower()} ({unit})", series)


def _steps(spans: Sequence[Span], name: str, value: Value, zero: float, size: float) -> Series | None:
    """A value from the beginning of its span to the end; None where there is none at all."""
    x: list[float] = []
    y: list[float] = []
    for s in spans:
        v = value(s.sums)
        if v is not None:
            x += [(s.start - zero) / size, (s.start + s.width_s - zero) / size]
            y += [v, v]
    return Series(name, x, y, "line") if x else None


def _axis(spans: Sequence[Span]) -> tuple[float, float, str]:
    """The midnight before the first span, the unit in s, and the words for both."""
    zero = spans[0].start // DAY_S * DAY_S
    hours = (spans[-1].start + spans[-1].width_s - zero) / 3600.0
    size, unit = (3600.0, "hours") if hours <= MOST_HOURS else (DAY_S, "days")
    return zero, size, f"{unit} since {datetime.fromtimestamp(zero, UTC):%Y-%m-%d} 00:00 UTC"


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
