"""The calibration graph as a picture: what rests on what, each box in the colour and with the sign of its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from qmodd.report.text import escape, title

State = Literal["good", "redone", "renewed", "due", "refused", "waiting", "unknown"]

# A sign each, so that the state can be told without colour.
SIGNS: Mapping[State, tuple[str, str]] = {
    "good": ("✓", "ok"),
    "renewed": ("✓", "ok"),
    "redone": ("↻", "s0"),
    "due": ("…", "due"),
    "refused": ("✗", "bad"),
    "waiting": ("◦", "muted"),
    "unknown": ("", "muted"),
}
BOX_W, BOX_H, GAP_X, GAP_Y, EDGE = 132.0, 30.0, 50.0, 14.0, 14.0
# A long chain goes on below, as text does.
COLUMNS, BAND_GAP = 5, 34.0


@dataclass(frozen=True)
class Node:
    """One calibration: what it needs directly, its state, and where a click leads (empty: nowhere)."""

    name: str
    needs: tuple[str, ...]
    state: State = "unknown"
    href: str = ""


def draw_graph(nodes: Sequence[Node], name: str, heading: str) -> str:
    """An `<svg>` element, columns from left to right. Nodes are ordered so that each follows what it needs; a need that
    is not among them is left out."""
    known = {n.name for n in nodes}
    nodes = [replace(n, needs=tuple(d for d in n.needs if d in known)) for n in nodes]
    kept = _reduced(nodes)
    columns = _columns(nodes)
    spots, bands = _spots(columns, kept)
    width = min(len(columns), COLUMNS) * (BOX_W + GAP_X) - GAP_X + 2 * EDGE
    height = bands[-1] + EDGE
    edges = "".join(_edge(spots[need], spots[node.name], bands) for node in nodes for need in kept[node.name])
    boxes = "".join(_box(node, *spots[node.name]) for node in nodes)
    told = "; ".join(f"{n.name} ({n.state}) rests on {', '.join(n.needs) or 'nothing'}" for n in nodes)
    return (
        f'<svg role="img" aria-labelledby="{name}-title {name}-desc" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" style="max-width:100%;height:auto" font-family="system-ui, sans-serif" font-size="12">'
        f'<title id="{name}-title">{escape(heading)}</title><desc id="{name}-desc">{escape(told)}.</desc>'
        f"{edges}{boxes}</svg>"
    )


def _reduced(nodes: Sequence[Node]) -> dict[str, list[str]]:
    """Needs without those that follow from another need: fewer lines, the same meaning."""
    below: dict[str, set[str]] = {}
    for n in nodes:
        below[n.name] = {m for need in n.needs for m in (need, *below.get(need, ()))}
    return {n.name: [d for d in n.needs if not any(d in below[o] for o in n.needs if o != d)] for n in nodes}


def _columns(nodes: Sequence[Node]) -> list[list[str]]:
    depth: dict[str, int] = {}
    for n in nodes:
        depth[n.name] = 1 + max((depth[need] for need in n.needs), default=-1)
    columns: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=0))]
    for n in nodes:
        columns[depth[n.name]].append(n.name)
    return columns


def _spots(
    columns: Sequence[Sequence[str]], needs: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[float, float]], list[float]]:
    """Upper left corners, and the lower end of each band. A box stands near the mean height of what it needs."""
    spots: dict[str, tuple[float, float]] = {}
    ends: list[float] = []
    top = EDGE
    for first in range(0, len(columns), COLUMNS):
        band = columns[first : first + COLUMNS]
        tallest = max(len(c) for c in band)
        for i, column in enumerate(band):
            near = {n: [y for x, y in (spots[d] for d in needs[n]) if y >= top] for n in column}
            _stack(column, near, (EDGE + i * (BOX_W + GAP_X), top), tallest, spots)
        ends.append(top + tallest * (BOX_H + GAP_Y) - GAP_Y)
        top = ends[-1] + BAND_GAP
    return spots, ends


def _stack(
    column: Sequence[str],
    near: Mapping[str, Sequence[float]],
    corner: tuple[float, float],
    tallest: int,
    spots: dict[str, tuple[float, float]],
) -> None:
    x, y = corner
    room = (tallest - len(column)) * (BOX_H + GAP_Y)
    for k, n in enumerate(sorted(column, key=lambda n: (_mean(near[n]), column.index(n)))):
        latest = corner[1] + room + k * (BOX_H + GAP_Y)
        y = min(latest, max(y, _mean(near[n])))
        spots[n] = (x, y)
        y += BOX_H + GAP_Y


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _edge(a: tuple[float, float], b: tuple[float, float], bands: Sequence[float]) -> str:
    x0, y0, x1, y1 = a[0] + BOX_W, a[1] + BOX_H / 2, b[0], b[1] + BOX_H / 2
    bend = 0.5 * GAP_X
    end = next(e for e in bands if e > y0)
    if y1 < end:
        path = f"M{x0:.1f} {y0:.1f}C{x0 + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    else:  # round the end of the line and back to its beginning
        lane = end + 0.5 * BAND_GAP
        right, left = x0 + 0.4 * bend, max(3.0, x1 - 0.3 * bend)
        path = f"M{x0:.1f} {y0:.1f}H{right:.1f}V{lane:.1f}H{left:.1f}V{y1:.1f}H{x1:.1f}"
    return (
        f'<path d="{path}" fill="none" stroke="var(--muted)" stroke-opacity=".6" stroke-width="1.3" '
        'stroke-linejoin="round"/>'
    )


def _box(node: Node, x: float, y: float) -> str:
    sign, colour = SIGNS[node.state]
    label = title(node.name)
    mark = f'<text x="{x + BOX_W - 14:.1f}" y="{y + 20:.1f}" fill="var(--{colour})" text-anchor="middle">{sign}</text>'
    box = (
        f'<g><rect x="{x:.1f}" y="{y:.1f}" width="{BOX_W}" height="{BOX_H}" rx="6" fill="var(--card)" '
        f'stroke="var(--{colour})" stroke-width="1.6"/><rect x="{x:.1f}" y="{y:.1f}" width="{BOX_W}" '
        f'height="{BOX_H}" rx="6" fill="var(--{colour})" fill-opacity=".09"/>'
        f'<text x="{x + 10:.1f}" y="{y + 19.5:.1f}" fill="var(--ink)">{escape(label)}</text>{mark}</g>'
    )
    return f'<a href="{escape(node.href)}">{box}</a>' if node.href else box
