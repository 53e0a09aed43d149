"""`python -m qmodd.report.pages`: the reference pages of the calibrations, with values and plots of an emulated pair.

One page a calibration, for both modules where both have it; an index with the graphs; one picture for the front page.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from calibration.plot import Figure, Plot
from calibration.procedure import Disturbs, Procedure
from calibration.units import unit_of
from qmodd.report.collect import about
from qmodd.report.dag import Node, draw_graph
from qmodd.report.meanings import meaning
from qmodd.report.model import Entry, Report
from qmodd.report.poster import poster
from qmodd.report.refusals import refusals
from qmodd.report.svg import draw, standalone
from qmodd.report.text import quantity, seconds, title

WIDTH = 116
SEED = 1
# More would only be more of the same.
MOST_FIGURES = 4
MOST_SVG_BYTES = 40_000
SIDES = {"alice": "transmitter", "bob": "receiver"}
DISTURBS = {
    Disturbs.NOTHING: "nothing: it may run while keys are made",
    Disturbs.KEYS: "keys of this module stop",
    Disturbs.LINK: "keys stop on both modules: it needs the transmitter's light",
}
INDEX = "README.md"
PICTURE = "calibration-report.svg"
MADE = "<!-- Made by `python -m qmodd.report.pages`; change the procedure's own words instead. -->"

Pages = dict[str, str]


def pages(procedures: Mapping[str, Mapping[str, Procedure]], report: Report) -> Pages:
    """Every file of the directory by name, text and pictures. `procedures`: by side, then by name."""
    found: Pages = {}
    entries = {side.side: {e.name: e for e in side.entries} for side in report.sides}
    names = list(dict.fromkeys(n for own in procedures.values() for n in own))
    for name in names:
        sides = {s: own[name] for s, own in procedures.items() if name in own}
        found[f"{name}.md"] = _page(name, sides, {s: entries[s][name] for s in sides})
        for file, figure in _figures({s: entries[s][name] for s in sides}):
            found[file] = standalone(draw(figure, "f"))
    for side in report.sides:
        nodes = [Node(e.name, e.needs) for e in side.entries]
        found[f"{side.side}.svg"] = standalone(draw_graph(nodes, "g", f"Calibrations of the {SIDES[side.side]}"))
    found[INDEX] = _index(procedures)
    return found


def _page(name: str, sides: Mapping[str, Procedure], entries: Mapping[str, Entry]) -> str:
    return "\n".join(_page_lines(name, sides, entries)) + "\n"


def _page_lines(name: str, sides: Mapping[str, Procedure], entries: Mapping[str, Entry]) -> Iterator[str]:
    first = next(iter(sides.values()))
    yield f"# {title(name)}"
    yield ""
    yield MADE
    yield ""
    yield from _paragraphs(about(first))
    yield from _model(first)
    yield from _facts(sides)
    yield from _check(first)
    yield from _refused(first)
    for side, entry in entries.items():
        yield from _values(name, side, entry)
    yield from _plots(entries)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from _wrapped(" ".join(paragraph.split()))
        yield ""


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _model(procedure: Procedure) -> Iterator[str]:
    if procedure.equation:
        yield from ("## Model", "", "```", *procedure.equation.splitlines(), "```", "")


def _facts(sides: Mapping[str, Procedure]) -> Iterator[str]:
    first = next(iter(sides.values()))
    needs = " ".join(f"[{title(n)}]({n}.md)" for n in first.needs) or "nothing"
    yield from ("## When and at what cost", "", "| | |", "|---|---|")
    yield f"| of | {' and '.join(SIDES[s] for s in sides)} |"
    yield f"| rests on | {needs} |"
    yield f"| holds for | {seconds(first.valid_s)} |"
    yield f"| takes | {seconds(first.cost_s)} |"
    yield f"| disturbs | {DISTURBS[first.disturbs]} |"
    yield f"| made | {'later, in service: keys do not rest on it' if first.deferred else 'at start: keys rest on it'} |"
    yield ""


def _check(procedure: Procedure) -> Iterator[str]:
    yield from ("## Check", "")
    own = type(procedure).check
    if own is Procedure.check:
        yield from _wrapped(
            "Of its state only: the record is there and was not refuted, its parents are the same, its time and the "
            "temperature window have not passed."
        )
        yield ""
        return
    text = inspect.cleandoc(own.__doc__) if own.__doc__ else "A few readings against the record."
    yield from _paragraphs(text)
    renews = "A passed check renews the record." if procedure.renews else "A record whose time has passed is redone."
    yield from _wrapped(f"{renews} The check disturbs {DISTURBS[procedure.check_disturbs].partition(':')[0]}.")
    yield ""


def _refused(procedure: Procedure) -> Iterator[str]:
    found = refusals(procedure)
    if found:
        yield from ("## Refused when", "", "Its own diagnoses, `…` being what is filled in:", "")
        for text in found:
            yield from _wrapped(f"- {_safe(text)}", "  ")
        yield ""


def _safe(text: str) -> str:
    """A message as Markdown text."""
    return re.sub(r"([<>*_`|\[\]])", r"\\\1", text)


def _values(name: str, side: str, entry: Entry) -> Iterator[str]:
    if entry.record is None:
        return
    yield from (f"## Values of the {SIDES[side]}", "", f"Of the emulated pair with seed {SEED}.", "")
    yield from ("| value | unit | meaning | found | uncertainty |", "|---|---|---|---|---|")
    for value, number in entry.record.value.items():
        shown, sigma, unit = quantity(number, entry.record.sigma(value), unit_of(value))
        found = f"{shown} {unit}".strip()
        plus_minus = f"± {sigma} {unit}".strip() if sigma else ""
        yield f"| `{value}` | {_unit(value)} | {meaning(name, value)} | {found} | {plus_minus} |"
    yield ""


def _unit(value: str) -> str:
    return unit_of(value).replace("|", "\\|")


def _figures(entries: Mapping[str, Entry]) -> Iterator[tuple[str, Figure]]:
    for side, entry in entries.items():
        for i, figure in enumerate(entry.figures[:MOST_FIGURES]):
            yield f"{entry.name}-{side}-{i}.svg", figure


def _plots(entries: Mapping[str, Entry]) -> Iterator[str]:
    figures = list(_figures(entries))
    if figures:
        yield from ("## Plots", "")
        for file, figure in figures:
            yield f"![{_alt(figure, WIDTH - len(file))}]({file})"
            yield ""


def _alt(figure: Figure, room: int) -> str:
    """One line that fits; the picture itself carries the whole description."""
    axes = f"{figure.y_label} over {figure.x_label}" if isinstance(figure, Plot) else "a matrix"
    text = re.sub(r"[\[\]]", "", f"{figure.title}: {axes}")
    return textwrap.shorten(text, room, placeholder=" …")


def _index(procedures: Mapping[str, Mapping[str, Procedure]]) -> str:
    return "\n".join(_index_lines(procedures)) + "\n"


def _index_lines(procedures: Mapping[str, Mapping[str, Procedure]]) -> Iterator[str]:
    yield from ("# Calibrations", "", MADE, "")
    yield from _wrapped(
        "What each module measures of itself, what rests on what, and one page each: model, cost, check, diagnoses, "
        "values, plots. Values and plots are those of an emulated pair; `qmodd calibrate --emulated --html FILE` makes "
        "the same for any other."
    )
    yield ""
    for side, own in procedures.items():
        heading = SIDES[side].capitalize()
        yield from (f"## {heading}", "", f"![Graph of the {SIDES[side]}'s calibrations]({side}.svg)", "")
        yield from ("| calibration | what it finds | holds for | takes |", "|---|---|---|---|")
        for name, procedure in own.items():
            line = about(procedure).split("\n\n")[0].split(". ")[0]
            words = " ".join(line.split()).rstrip(".").replace("|", "\\|")
            holds, takes = seconds(procedure.valid_s), seconds(procedure.cost_s)
            yield f"| [{title(name)}]({name}.md) | {words} | {holds} | {takes} |"
        yield ""


def without_numbers(text: str) -> str:
    """A page without what changes with the last digit of a simulation: the columns `found` and `uncertainty`."""
    lines = []
    for line in text.splitlines():
        cells = line.split(" | ")
        lines.append(" | ".join(cells[:3]) if line.startswith("| `") and len(cells) >= 5 else line)
    return "\n".join(lines)


def write(directory: Path, found: Pages) -> None:
    """Files of earlier calibrations that are no more go away."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in [*directory.glob("*.md"), *directory.glob("*.svg")]:
        if old.name not in found:
            old.unlink()
    for name, text in found.items():
        (directory / name).write_text(text, encoding="utf-8")


def of_an_emulated_pair() -> tuple[dict[str, dict[str, Procedure]], Report]:
    """Procedures of both sides, and the report of a pair that was calibrated from power-on."""
    from qmodd.calibrate.emulated import Told, calibrate_pair
    from qmodd.report.collect import report_of
    from sim.scenario import Scenario

    with tempfile.TemporaryDirectory(prefix="qmodd-pages-") as directory:
        pair = calibrate_pair(Path(directory), Scenario(seed=SEED), Told())
        pair.run.close()
    serials = {side: site.core.config.module.serial for side, site in pair.run.sites.items()}
    report = report_of(pair.walks, serials, pair.seconds, f"emulated pair, seed {SEED}")
    return {side: {p.name: p for p in walk.graph} for side, walk in pair.walks.items()}, report


def main(argv: Sequence[str]) -> int:
    """Writes below docs/ of the source tree, or below the directory that is given."""
    docs = Path(argv[0]) if argv else Path(__file__).resolve().parents[2] / "docs"
    procedures, report = of_an_emulated_pair()
    write(docs / "reference" / "calibration", pages(procedures, report))
    (docs / PICTURE).write_text(poster(report), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
