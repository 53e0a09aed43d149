"""A self-test's report as one HTML file: no script, nothing from outside, every text escaped, light or dark as the
reader's system is, and fit for paper. Plots need matplotlib (extra `report`); without it the page says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from calibration.plot import Figure
from qmodd.report.style import STYLE
from qmodd.report.svg import NoPlots, draw
from qmodd.report.text import escape, seconds
from qmodd.selftest.bars import COLOURS, bar
from qmodd.selftest.golden import Z_LIMIT, limits_sha256
from qmodd.selftest.model import TEC_LANE, Finding, Level, Report, Verdict
from qmodd.selftest.words import allowed, by_level, evidence, shown, verdict, yes_or_no

SIGNS = {Verdict.PASSED: "✓", Verdict.WARNED: "!", Verdict.FAILED: "✗", Verdict.SKIPPED: "–"}
WORDS = {
    Verdict.PASSED: "passed",
    Verdict.WARNED: "unusual",
    Verdict.FAILED: "failed",
    Verdict.SKIPPED: "not judged",
}
ABOUT = {
    "power-on": "Without light: parts, supplies, converters, lines, memory, random numbers, cryptography.",
    "light-off": "Heaters, photodiodes and detectors in the dark, temperature control.",
    "light-on": "Light through every path of the module, and a small tone on every control.",
    "production": "The same over temperature, tuning ranges and burn-in.",
}
# Passed values of a level beyond so many are folded away.
FOLDED = 20
_STYLE = """
header .lead{font-size:1.35rem;font-weight:600;border-left:6px solid;padding:.35rem 0 .35rem .9rem;color:var(--ink)}
.lead.ok{border-color:var(--ok)}.lead.due{border-color:var(--due)}.lead.bad{border-color:var(--bad)}
.lead strong.ok{color:var(--ok)}.lead strong.bad{color:var(--bad)}.lead strong.due{color:var(--due)}
.suspects{background:var(--card);border-radius:10px;padding:1.1rem 1.25rem;margin:1rem 0;
border-left:6px solid var(--bad);box-shadow:0 1px 3px rgb(0 0 0/.14)}
.suspects ol{margin:.5rem 0 0;padding-left:1.4rem}.suspects li{margin:.6rem 0}
.suspects li>strong{font-size:1.1rem}.suspects ul{margin:.15rem 0 0;padding-left:1.1rem;font-size:.93rem}
table.checks{width:100%;table-layout:fixed;min-width:52rem;font-size:.88rem}
.plain{list-style:none;display:flex;flex-wrap:wrap;gap:.35rem .5rem;padding:0;margin:.75rem 0;font-size:.82rem}
.plain li{border:1px solid var(--grid);border-radius:99px;padding:.05rem .6rem;color:var(--muted)}
.plain li::before{content:"✓ ";color:var(--ok)}
table.checks td,table.checks th{padding:.32rem .8rem .32rem 0}
table.checks tbody th{font-weight:600;overflow-wrap:anywhere}
table.checks .part{color:var(--muted);font-weight:400;font-size:.82rem;display:block}
table.checks .badge{font-size:.74rem}
table.checks tr.note td{border-bottom:1px solid var(--grid);padding-top:0}
table.checks tr.noted>*{border-bottom:0}
table.checks tr.note div{border-left:3px solid;padding:.1rem .7rem;max-width:58rem}
.bar{display:block;min-width:160px}
.bar-bad{fill:color-mix(in srgb,var(--bad) 32%,var(--card))}
.bar-due{fill:color-mix(in srgb,var(--due) 40%,var(--card))}
.bar-ok{fill:color-mix(in srgb,var(--ok) 38%,var(--card))}
.bar-tick{stroke:var(--ink);stroke-width:1}
.bar-mark{fill:var(--ink);stroke:var(--card);stroke-width:1}
.bar-mark.bad{fill:var(--bad)}.bar-mark.due{fill:var(--due)}.bar-mark.ok{fill:var(--ink)}
.of{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;font-size:.82rem;margin:.6rem 0}
.of dt{color:var(--muted)}.of dd{margin:0;overflow-wrap:anywhere;font-family:ui-monospace,monospace}
.levels{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.8rem;margin:1rem 0}
.levels a{background:var(--card);border-radius:10px;padding:.8rem 1rem;text-decoration:none;color:var(--ink);
box-shadow:0 1px 3px rgb(0 0 0/.14);border-top:4px solid}
.levels strong{display:block}.levels span{color:var(--muted);font-size:.87rem}
.levels .ok{border-color:var(--ok)}.levels .due{border-color:var(--due)}.levels .bad{border-color:var(--bad)}
.levels .muted{border-color:var(--muted)}
"""


def page(report: Report, figures: Mapping[str, Figure] | None = None) -> str:
    """The whole file. `figures` by the names under which checks have left them."""
    certificate = report.passed and report.level is Level.PRODUCTION
    heading = f"{'Certificate' if certificate else 'Self-test'} of {report.serial}"
    body = "".join(_body(report, heading, figures or {}))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>{escape(heading)}: {escape(_state(report))}</title>'
        f'<style>{STYLE}{_STYLE}</style></head><body><a class="skip" href="#main">To the results</a>{body}'
        "</body></html>\n"
    )


def _state(report: Report) -> str:
    return "passed" if report.passed else "failed"


def _body(report: Report, heading: str, figures: Mapping[str, Figure]) -> Iterator[str]:
    levels = by_level(report.findings)
    state, _, rest = verdict(report).partition(":")
    yield f'<header><h1>{escape(heading)}</h1><p class="lead {_colour(report.findings)}">'
    yield f'<strong class="{_colour(report.findings)}">{escape(state)}:</strong>{escape(rest)}</p>'
    yield f'<p class="fine">{escape(_facts(report))}</p>{_of_what(report)}</header><main id="main">'
    yield "".join(_suspects(report))
    yield f'<nav class="levels" aria-label="Levels">{"".join(_card(report, n, f) for n, f in levels.items())}</nav>'
    yield _golden(report)
    for name, findings in levels.items():
        yield f'<section><h2 id="{escape(name)}">{escape(name.capitalize())}</h2>'
        yield f'<p class="fine">{escape(ABOUT.get(name, ""))}</p>{_tables(findings)}</section>'
    yield _plots(figures)
    yield "</main><footer>Bars: the value between its alarm limits (ticks); green is usual, amber a warning, red is "
    yield "beyond the limits. A limit on one side only has no tick at the other end. z: how many standard deviations "
    yield "of the golden module a value is away from its mean.</footer>"


def _facts(report: Report) -> str:
    kind = {"alice": "Transmitter", "bob": "Receiver"}.get(report.side, report.side)
    when = report.taken[:19].replace("T", " ")
    return f"{kind}, up to level {report.level}, {when} UTC, {seconds(report.seconds)} in all"


def _of_what(report: Report) -> str:
    """What the result holds for, as a certificate has to say; digests whole."""
    rows = {
        "Module": report.serial,
        "Controller": report.controller,
        "Firmware of its parts (SHA-256)": report.firmware_sha256,
        "Limits (SHA-256)": limits_sha256(report.findings),
    }
    said = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows.items() if text)
    return f'<dl class="of">{said}</dl>'


def _colour(findings: tuple[Finding, ...] | list[Finding]) -> str:
    found = {f.verdict for f in findings}
    worst = next((v for v in (Verdict.FAILED, Verdict.WARNED, Verdict.PASSED) if v in found), Verdict.SKIPPED)
    return COLOURS[worst]


def _suspects(report: Report) -> Iterator[str]:
    if report.passed:
        return
    yield '<section class="suspects" aria-labelledby="suspects"><h2 id="suspects" style="margin:0">What is to blame'
    yield "</h2>"
    more = len(report.failed) - sum(len(evidence(report, part)) for part in report.suspects)
    rest = f" It explains {more} more." if more and len(report.suspects) == 1 else f" They explain {more} more."
    rest = rest if more > 0 else ""
    count = "One part explains" if len(report.suspects) == 1 else f"{len(report.suspects)} parts explain"
    yield f'<p class="fine">{count} what failed, the most likely first.{rest}</p><ol>'
    for part in report.suspects:
        said = "".join(f"<li>{escape(f.why.removeprefix(f'{part}: '))}</li>" for f in evidence(report, part)[:6])
        yield f"<li><strong>{escape(part)}</strong><ul>{said}</ul></li>"
    yield "</ol></section>"


def _card(report: Report, name: str, findings: list[Finding]) -> str:
    counted = Counter(f.verdict for f in findings)
    said = ", ".join(f"{counted[v]} {WORDS[v]}" for v in Verdict if counted[v])
    took = f" in {seconds(report.level_seconds[name])}" if name in report.level_seconds else ", not run"
    if beside := report.level_seconds.get(f"{name}.{TEC_LANE}", 0.0):
        said += f"; temperature checks beside them in {seconds(beside)}"
    return (
        f'<a class="{_colour(findings)}" href="#{escape(name)}"><strong>{escape(name.capitalize())}{escape(took)}'
        f"</strong><span>{escape(said)}</span></a>"
    )


def _golden(report: Report) -> str:
    if report.mahalanobis is None:
        return ""
    compared = [f for f in report.findings if f.golden_z is not None]
    out = [f for f in compared if abs(f.golden_z or 0.0) > Z_LIMIT]
    unlike = ", ".join(f"{f.name} ({_z(f)})" for f in out) or "none"
    text = (
        f"Against the golden module: {len(compared)} values compared, Mahalanobis distance T² "
        f"{report.mahalanobis:.3g}; further out than {Z_LIMIT:g} standard deviations: {unlike}."
    )
    return f"<p>{escape(text)}</p>"


def _tables(findings: list[Finding]) -> str:
    """What needs a reader first; then all with a size, folded when there are many; at last what is only yes."""
    bad = [f for f in findings if f.verdict is not Verdict.PASSED]
    good = [f for f in findings if f.verdict is Verdict.PASSED and not yes_or_no(f)]
    plain = [f for f in findings if f.verdict is Verdict.PASSED and yes_or_no(f)]
    if len(good) <= FOLDED:
        tables = _table(bad + good) if bad or good else ""
    else:
        folded = f"<details><summary>{len(good)} values that passed</summary>{_table(good)}</details>"
        tables = (_table(bad) if bad else "") + folded
    if not plain:
        return tables
    names = "".join(f"<li>{escape(f.name)}</li>" for f in plain)
    return f'{tables}<ul class="plain" aria-label="In order">{names}</ul>'


def _table(findings: list[Finding]) -> str:
    order = {Verdict.FAILED: 0, Verdict.WARNED: 1, Verdict.SKIPPED: 2, Verdict.PASSED: 3}
    golden = any(f.golden_z is not None for f in findings)
    rows = "".join(_row(f, golden) for f in sorted(findings, key=lambda f: order[f.verdict]))
    heads = ["check", "", "value", "within its limits", "allowed", *(["z"] if golden else [])]
    cells = "".join(f'<th scope="col"{_NUMBER if h in ("value", "z") else ""}>{h}</th>' for h in heads)
    columns = "".join(
        f'<col style="width:{w}">' for w in ("27%", "7.5rem", "21%", "11rem", "22%", "5rem")[: len(heads)]
    )
    return (
        f'<div class="wide"><table class="checks"><colgroup>{columns}</colgroup><thead><tr>{cells}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


_NUMBER = ' class="n"'


def _row(f: Finding, golden: bool) -> str:
    colour = COLOURS[f.verdict]
    told = f.skipped if f.verdict is Verdict.SKIPPED else f.why.removeprefix(f"{f.part}: ")
    badge = f'<span class="badge {colour}"><span aria-hidden="true">{SIGNS[f.verdict]}</span> {WORDS[f.verdict]}</span>'
    cells = [
        f'<th scope="row">{escape(f.name)}<span class="part">{escape(f.part)}</span></th>',
        f"<td>{badge}</td>",
        f'<td class="n">{escape(shown(f))}</td>',
        f"<td>{bar(f)}</td>",
        f"<td>{escape(allowed(f))}</td>",
        *([f'<td class="n">{escape(_z(f))}</td>'] if golden else []),
    ]
    row = f"<tr{' class=noted' if told else ''}>{''.join(cells)}</tr>"
    if not told:
        return row
    return f'{row}<tr class="note"><td colspan="{len(cells)}"><div class="{colour}">{escape(told)}</div></td></tr>'


def _z(f: Finding) -> str:
    if f.golden_z is None:
        return ""
    text = f"{f.golden_z:+.1f}" if abs(f.golden_z) < 100.0 else ("> +99" if f.golden_z > 0.0 else "< -99")
    return text.replace("-", "−")


def _plots(figures: Mapping[str, Figure]) -> str:
    if not figures:
        return ""
    try:
        drawn = [f"<figure>{draw(figure, f'plot-{i}')}</figure>" for i, figure in enumerate(figures.values())]
    except NoPlots as e:
        return f'<section><h2>Curves</h2><p class="fine">{escape(e)}</p></section>'
    return f'<section><h2>Curves</h2><article><div class="figures">{"".join(drawn)}</div></article></section>'
