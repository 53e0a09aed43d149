"""One picture of a report, for the front page of the documentation: the graphs, and a plot of each main calibration."""

from __future__ import annotations

import re
from collections.abc import Iterator

from calibration.plot import Figure
from qmodd.report.dag import Node, draw_graph
from qmodd.report.model import Report
from qmodd.report.svg import draw, standalone
from qmodd.report.text import escape

# What is shown where there is such a figure: fringe, I-V, bias, delay, crosstalk, mean photon number.
CHOICE = (
    ("alice", "heater_iv"),
    ("alice", "carver_bias"),
    ("alice", "crosstalk"),
    ("bob", "arm_phase"),
    ("bob", "detector_bias"),
    ("bob", "detector_delay"),
)
COLUMNS, CELL_W, CELL_H, PAD = 3, 400.0, 256.0, 14.0
WIDTH = COLUMNS * CELL_W + (COLUMNS + 1) * PAD


def poster(report: Report) -> str:
    """A file of its own. Raises NoPlots."""
    body, y = [], PAD
    for side in report.sides:
        graph = draw_graph([Node(e.name, e.needs, e.state) for e in side.entries], f"p-{side.side}", side.heading)
        part, height = _placed(graph, PAD, y + 26.0, WIDTH - 2 * PAD)
        body.append(f'<text x="{PAD}" y="{y + 16:.0f}" font-weight="600">{escape(side.heading)}</text>{part}')
        y += height + 26.0 + PAD
    for i, figure in enumerate(_chosen(report)):
        row, column = divmod(i, COLUMNS)
        x, top = PAD + column * (CELL_W + PAD), y + row * (CELL_H + PAD)
        frame = f'<rect x="{x:.0f}" y="{top:.0f}" width="{CELL_W}" height="{CELL_H}" rx="8" fill="none" '
        frame += 'stroke="var(--grid)"/>'
        body.append(frame + _placed(draw(figure, f"p{i}"), x + 4, top + 4, CELL_W - 8, CELL_H - 8)[0])
    rows = -(-len(_chosen(report)) // COLUMNS)
    height = y + rows * (CELL_H + PAD)
    heading = f"Calibration report: {report.what}, {report.seconds:.0f} s from power-on"
    return standalone(
        f'<svg role="img" aria-labelledby="p-title" viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}" '
        'font-family="system-ui, sans-serif" font-size="14" fill="var(--ink)">'
        f'<title id="p-title">{escape(heading)}</title>{"".join(body)}</svg>'
    )


def _chosen(report: Report) -> list[Figure]:
    return list(_pick(report))


def _pick(report: Report) -> Iterator[Figure]:
    for wanted, name in CHOICE:
        for side in report.sides:
            for entry in side.entries:
                if side.side == wanted and entry.name == name and entry.figures:
                    yield entry.figures[0]


def _placed(svg: str, x: float, y: float, width: float, height: float | None = None) -> tuple[str, float]:
    """A picture inside another one: where, and how high it is there."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None
    w, h = float(box[1]), float(box[2])
    scale = min(1.0 if height is None else width / w, width / w, (height or h) / h)
    where = f'x="{x:.1f}" y="{y:.1f}" width="{w * scale:.1f}" height="{h * scale:.1f}" '
    inner = re.sub(r'\bwidth="[\d.]+" style="[^"]*"', where, svg, count=1)
    return inner.replace('role="img" ', "", 1), h * scale
