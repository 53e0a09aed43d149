"""Figures of calibrations as SVG that takes its colours from the page around it. Needs the extra `report`."""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calibration.plot import Figure, Heatmap, Plot, Series
from qmodd.report.text import escape

# Colours drawn by matplotlib, each replaced by a variable of the style sheet: the page decides, light or dark.
INK, GRID, MARK = "#010101", "#020202", "#030303"
SERIES = ("#010111", "#010112", "#010113", "#010114", "#010115", "#010116", "#010117", "#010118")
VARIABLES = {INK: "ink", GRID: "grid", MARK: "mark", **{c: f"s{i}" for i, c in enumerate(SERIES)}}
# Points have a shape each, so that they can be told apart without colour.
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH, HEIGHT = 5.6, 3.3
SMALLEST = 1e-12
# A line is drawn through at most so many points, a file of readings must not become a picture of megabytes.
MOST_POINTS = 400
# All readings of a figure; of more, every second, third, ... is drawn, and the legend says so.
MOST_MARKERS = 240

# As the style sheet of the report has them for light; a file of its own carries them itself.
LIGHT = {
    "ink": "#1d2733",
    "grid": "#d5dbe2",
    "mark": "#9a3412",
    "s0": "#1256a0",
    "s1": "#b45309",
    "s2": "#0f766e",
    "s3": "#a21caf",
    "s4": "#4d7c0f",
    "s5": "#b91c1c",
    "s6": "#4338ca",
    "s7": "#475569",
    "ok": "#15803d",
    "due": "#b45309",
    "bad": "#b91c1c",
    "muted": "#5b6673",
    "card": "#ffffff",
}
DARK = {
    "ink": "#e5e9ef",
    "grid": "#3a4552",
    "mark": "#fdba74",
    "s0": "#7cb7ff",
    "s1": "#fbbf24",
    "s2": "#5eead4",
    "s3": "#f0abfc",
    "s4": "#bef264",
    "s5": "#fca5a5",
    "s6": "#a5b4fc",
    "s7": "#cbd5e1",
    "ok": "#4ade80",
    "due": "#fbbf24",
    "bad": "#fca5a5",
    "muted": "#a3adb9",
    "card": "#18212b",
}


class NoPlots(Exception):
    """matplotlib is not installed; the message says how to get it."""


def draw(figure: Figure, name: str = "f") -> str:
    """One figure as an `<svg>` element. `name` makes its inner ids unique in a page. Raises NoPlots."""
    plt = _matplotlib()
    with plt.rc_context(_SETTINGS), warnings.catch_warnings():
        # Text stays text: it is the reader's font that has to have the sign, not the one that measures here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas = plt.figure(figsize=_size(figure), layout="constrained")
        try:
            axes = canvas.add_subplot()
            if isinstance(figure, Plot):
                _plot(axes, figure)
            else:
                _heatmap(axes, figure)
            out = io.StringIO()
            canvas.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        finally:
            plt.close(canvas)
    return _inline(out.getvalue(), figure, name)


def standalone(svg: str, colours: Mapping[str, str] = LIGHT) -> str:
    """An `<svg>` element as a file of its own, which any program can show: on a card, its colours written out."""
    head, rest = svg.split(">", 1)
    text = f'{head} xmlns="http://www.w3.org/2000/svg"><rect width="100%" height="100%" fill="var(--card)"/>{rest}\n'
    return re.sub(r"var\(--(\w+)\)", lambda m: colours[m[1]], text)


def described(figure: Figure) -> str:
    """What there is to see, in words, for those who cannot see it."""
    if isinstance(figure, Heatmap):
        flat = [v for row in figure.values for v in row]
        unit = f" {figure.unit}" if figure.unit else ""
        extremes = f", from {min(flat):.3g} to {max(flat):.3g}{unit}" if flat else ""
        return f"{figure.title}: matrix of {len(figure.rows)} rows and {len(figure.columns)} columns{extremes}."
    kinds = {"points": "readings", "line": "model", "steps": "histogram"}
    parts = [f"{s.label} ({kinds[s.style]}, {len(s.x)} values)" for s in figure.series]
    marks = [f"{text} at {x:.4g}" for x, text in figure.marks]
    told = f"{figure.title}: {figure.y_label} over {figure.x_label}. {'; '.join(parts)}."
    return f"{told} Marked: {'; '.join(marks)}." if marks else told


def ready() -> None:
    """Raises NoPlots when nothing can be drawn here."""
    _matplotlib()


def _matplotlib() -> Any:
    try:
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot
    except ImportError as e:
        raise NoPlots("plots need matplotlib: install the extra, `pip install 'qmodd[report]'`") from e
    return pyplot


_SETTINGS: dict[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "qmodd",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "lines.linewidth": 1.5,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
}


def _size(figure: Figure) -> tuple[float, float]:
    if isinstance(figure, Plot):
        return WIDTH, HEIGHT
    return max(3.6, 1.7 + 0.62 * len(figure.columns)), max(2.2, 1.3 + 0.42 * len(figure.rows))


def _plot(axes: Any, plot: Plot) -> None:
    labels: dict[str, int] = {}
    room = max(8, MOST_MARKERS // max(1, sum(s.style == "points" for s in plot.series)))
    for series in plot.series:
        # A model has the colour of the readings it goes through: those with the same name.
        number = labels.setdefault(_stem(series.label), len(labels))
        _draw(axes, series, number, room)
    for x, text in plot.marks:
        axes.axvline(x, color=MARK, linewidth=1.1, linestyle=(0, (4, 2)))
        label = _plain(text)
        axes.annotate(
            label,
            (x, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="left",
            fontsize=8,
            color=MARK,
        )
    axes.set_title(_wrapped(plot.title, WIDTH), loc="left")
    axes.set_xlabel(_plain(plot.x_label))
    axes.set_ylabel(_plain(plot.y_label))
    if plot.log_y:
        axes.set_yscale("log")
    if len(plot.series) > 1:
        columns = math.ceil(len(plot.series) / 4)
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2), ncols=max(2, min(4, columns)), borderaxespad=0.0)


def _stem(label: str) -> str:
    return re.sub(r"[\s,:]*\(?\b(model|fit|fitted|read|reading|readings|measured|data)\b\)?[\s,:]*", "", label) or label


def _draw(axes: Any, series: Series, number: int, room: int) -> None:
    colour, shape = SERIES[number % len(SERIES)], SHAPES[number % len(SHAPES)]
    step = max(1, math.ceil(len(series.x) / (room if series.style == "points" else MOST_POINTS)))
    x, y = np.asarray(series.x, dtype=float)[::step], np.asarray(series.y, dtype=float)[::step]
    label = _plain(series.label)
    if step > 1 and series.style == "points":
        label += f" (1 of {step})"
    if series.style == "line":
        axes.plot(x, y, color=colour, label=label)
    elif series.style == "steps":
        axes.plot(x, y, color=colour, label=label, drawstyle="steps-mid", linewidth=1.0)
    else:
        sigma = None if series.sigma is None else np.asarray(series.sigma, dtype=float)[::step]
        bars = {"fmt": shape, "color": colour, "markersize": 5.0, "elinewidth": 1.0, "capsize": 2.0, "label": label}
        axes.errorbar(x, y, yerr=sigma, **bars)


def _heatmap(axes: Any, figure: Heatmap) -> None:
    values = np.asarray(figure.values, dtype=float)
    largest = float(np.nanmax(np.abs(values))) if values.size else 0.0
    axes.grid(False)
    axes.set_title(_wrapped(figure.title, _size(figure)[0]), loc="left")
    axes.set_xticks(range(len(figure.columns)), [_plain(c) for c in figure.columns], rotation=30, ha="right")
    axes.set_yticks(range(len(figure.rows)), [_plain(r) for r in figure.rows])
    axes.set_xlim(-0.5, max(1, len(figure.columns)) - 0.5)
    axes.set_ylim(max(1, len(figure.rows)) - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (i, j), value in np.ndenumerate(values):
        share = abs(value) / largest if largest > SMALLEST else 0.0
        # Only the fill fades; the number on it stays ink and readable.
        axes.add_patch(_cell(i, j, share))
        axes.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=8)
    if figure.unit not in ("", "1"):
        axes.set_xlabel(f"values in {_plain(figure.unit)}", fontsize=8)


def _cell(i: int, j: int, share: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((j - 0.46, i - 0.44), 0.92, 0.88, facecolor=SERIES[0], alpha=0.04 + 0.5 * share, linewidth=0)


def _wrapped(title: str, inches: float) -> str:
    return _plain("\n".join(textwrap.wrap(title, int(11.5 * inches))))


def _plain(text: str) -> str:
    """matplotlib reads $ as mathematics; a micro written as u is meant as µ."""
    return re.sub(r"\bu(?=[AVWs]\b)", "µ", text).replace("$", r"\$")


def _inline(text: str, figure: Figure, name: str) -> str:
    """matplotlib's file as an element: unique ids, colours as variables, a title and a description in words."""
    body = text[text.index("<svg") :]
    size = re.search(r'viewBox="([^"]+)"', body)
    box = size[1] if size else "0 0 400 240"
    width = float(box.split()[2])
    body = re.sub(r"^<svg[^>]*>", "", body, count=1, flags=re.S)
    body = body[: body.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r"font: (\w+ )?(\d+ )?([\d.]+)px [^;\"]*", r"font: \1\2\3px system-ui, sans-serif", body)
    # Shorter coordinates, inside tags only: what is written stays as it is.
    body = re.sub(r"<[^>]*>", lambda m: re.sub(r"(\d+\.\d{2})\d+", r"\1", m[0]), re.sub(r"\n\s*", "\n", body)).strip()
    title, told = escape(figure.title), escape(described(figure))
    return (
        f'<svg role="img" aria-labelledby="{name}-title {name}-desc" viewBox="{box}" width="{width:.0f}" '
        f'style="max-width:100%;height:auto"><title id="{name}-title">{title}</title>'
        f'<desc id="{name}-desc">{told}</desc>{body}</svg>'
    )


def draw_all(figures: Sequence[Figure], name: str) -> list[str]:
    """Each as an element, with ids after `name`. Raises NoPlots."""
    return [draw(figure, f"{name}-{i}") for i, figure in enumerate(figures)]
