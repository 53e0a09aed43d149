"""Small pictures of numbers over time, in block characters."""

from __future__ import annotations

from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"
# Where there was no number.
NOTHING = "·"
# A change of less than this share is noise.
STEADY = 0.2


def sparkline(values: Sequence[float | None], width: int, low: float | None = None, high: float | None = None) -> str:
    """The newest `width` values, right-aligned; scaled from `low` to `high`, or from the least to the greatest."""
    shown = list(values)[-width:] if width > 0 else []
    known = [v for v in shown if v is not None]
    if not known:
        return NOTHING * len(shown)
    bottom = min(known) if low is None else low
    top = max(known) if high is None else high
    return "".join(NOTHING if v is None else _level(v, bottom, top) for v in shown)


def trace(values: Sequence[float | None], width: int) -> str:
    """As `sparkline`, for what is never negative: what is steady is drawn steady, at half the height, and what changes
    fills the height; never from below zero."""
    known = [v for v in list(values)[-width:] if v is not None]
    if not known:
        return sparkline(values, width)
    least, most = min(known), max(known)
    around = max(most - least, STEADY * most)
    return sparkline(values, width, max(0.0, least - 0.5 * around), most + 0.5 * around)


def _level(value: float, bottom: float, top: float) -> str:
    if top <= bottom:
        return LEVELS[0] if value <= bottom else LEVELS[-1]
    share = (value - bottom) / (top - bottom)
    return LEVELS[max(0, min(len(LEVELS) - 1, int(share * len(LEVELS))))]


def thinned(values: Sequence[float | None], width: int) -> list[float | None]:
    """At most `width` means over neighbours, so that a long history fits."""
    if width <= 0 or len(values) <= width:
        return list(values) if width > 0 else []
    out: list[float | None] = []
    for i in range(width):
        part = [v for v in values[i * len(values) // width : (i + 1) * len(values) // width] if v is not None]
        out.append(sum(part) / len(part) if part else None)
    return out
