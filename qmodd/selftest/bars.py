"""A value inside its limits as a small drawing: alarm limits, warning limits within them, and where the value is."""

from __future__ import annotations

import math

from qmodd.report.text import escape
from qmodd.selftest.model import Finding, Limits, Verdict
from qmodd.selftest.words import allowed, shown

WIDTH, HEIGHT, TRACK, TOP = 160.0, 18.0, 6.0, 6.0
# What is drawn beyond the alarm limits, as a share of what lies between them.
MARGIN = 0.18
COLOURS = {Verdict.PASSED: "ok", Verdict.WARNED: "due", Verdict.FAILED: "bad", Verdict.SKIPPED: "muted"}


def bar(finding: Finding) -> str:
    """An `<svg>` element; "" where there is nothing to draw: no value, no limits, or one that must be exact."""
    limits = finding.limits
    span = scale(limits, finding.value)
    if span is None or finding.verdict is Verdict.SKIPPED:
        return ""
    low, high = span

    def x(value: float) -> float:
        return WIDTH * min(1.0, max(0.0, (value - low) / (high - low)))

    warn = (max(limits.low, limits.warn_low), min(limits.high, limits.warn_high))
    parts = [
        _zone("bar-bad", 0.0, WIDTH),
        _zone("bar-due", x(limits.low), x(limits.high)),
        _zone("bar-ok", x(warn[0]), x(warn[1])),
        *(_tick(x(v)) for v in (limits.low, limits.high) if math.isfinite(v)),
        _mark(x(finding.value), finding.value < low, finding.value > high, COLOURS[finding.verdict]),
    ]
    told = f"{shown(finding)}, allowed {allowed(finding)}"
    return (
        f'<svg class="bar" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" width="{WIDTH:g}" height="{HEIGHT:g}" role="img" '
        f'aria-label="{escape(told)}">{"".join(parts)}</svg>'
    )


def scale(limits: Limits, value: float) -> tuple[float, float] | None:
    """What the ends of a bar stand for; with a limit on one side only, the other end is beyond the value or zero."""
    low, high = limits.low, limits.high
    if math.isnan(value) or low == high or (math.isinf(low) and math.isinf(high)):
        return None
    if math.isinf(low):
        low = min(0.0, value) if high > 0.0 else min(value, 2.0 * high)
        low = low if low < high else high - 1.0
        return low, high + MARGIN * (high - low)
    if math.isinf(high):
        high = max(value, low + abs(low)) if low else max(value, 1.0)
        high = high if high > low and math.isfinite(high) else low + max(1.0, abs(low))
        return low - MARGIN * (high - low), high
    margin = MARGIN * (high - low)
    return low - margin, high + margin


def _zone(name: str, left: float, right: float) -> str:
    wide = max(0.0, right - left)
    return f'<rect class="{name}" x="{left:.1f}" y="{TOP:g}" width="{wide:.1f}" height="{TRACK:g}"/>'


def _tick(x: float) -> str:
    return f'<line class="bar-tick" x1="{x:.1f}" x2="{x:.1f}" y1="3" y2="15"/>'


def _mark(x: float, below: bool, above: bool, colour: str) -> str:
    """A diamond; at an end, an arrow that points to where the value is."""
    y = TOP + 0.5 * TRACK
    if below:
        points = f"1,{y:g} 9,{y - 6:g} 9,{y + 6:g}"
    elif above:
        points = f"{WIDTH - 1:g},{y:g} {WIDTH - 9:g},{y - 6:g} {WIDTH - 9:g},{y + 6:g}"
    else:
        x = min(WIDTH - 6.0, max(6.0, x))
        points = f"{x - 5:.1f},{y:g} {x:.1f},{y - 7:g} {x + 5:.1f},{y:g} {x:.1f},{y + 7:g}"
    return f'<polygon class="bar-mark {colour}" points="{points}"/>'
