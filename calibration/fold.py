"""Time tags folded modulo the symbol period, whose length on the receiver's clock is found, not given.

Pure numerics, after the frame synchronisation of the reference pair (B3.1): the first harmonic of the tags at the
nominal period, searched over the clocks' possible offset on a short span, then refined over spans four times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.fit import FitRefused

Floats = npt.NDArray[np.float64]
BINS = 400  # histogram cells a period: 20 ps each at 8 ns
FIRST = 200  # tags of the first, short span


@dataclass(frozen=True)
class Period:
    """The symbol period on the tag clock: `offset` is relative to nominal, phases count from `origin_ps`."""

    period_ps: float
    offset: float
    origin_ps: int
    score: float

    def fold(self, t: npt.NDArray[np.int64]) -> Floats:
        """Phase of tags in [0, period), ps; shape as t."""
        return np.asarray(np.mod((t - self.origin_ps).astype(np.float64), self.period_ps))


def find_period(t: npt.NDArray[np.int64], nominal_ps: float, offset_max: float) -> Period:
    """Symbol period from ascending tags (ps) of one detector. Raises FitRefused: too few tags, no periodicity."""
    if len(t) < 50:
        raise FitRefused(f"{len(t)} tags; 50 are needed to find the symbol period")
    origin = int(t[0])
    x = (t - origin).astype(np.float64)
    first = min(len(x), FIRST)
    step = min(0.25 * nominal_ps / max(float(x[first - 1]), nominal_ps), offset_max)
    offsets = np.arange(-offset_max, offset_max + step, step)
    power = np.array([_power(x[:first], nominal_ps * (1.0 + y)) for y in offsets])
    best, needed = int(power.argmax()), 3.0 * math.log(len(offsets)) + 10.0
    if power[best] < needed:
        raise FitRefused(f"tags show no symbol period: peak {power[best]:.1f}, {needed:.1f} is needed")
    offset = _refine(x, nominal_ps, float(offsets[best]), first)
    return Period(nominal_ps * (1.0 + offset), offset, origin, float(power[best]))


def _power(x: Floats, period: float) -> float:
    return float(abs(np.exp((2j * np.pi / period) * x).sum()) ** 2 / len(x))


def _refine(x: Floats, nominal: float, offset: float, span: int) -> float:
    while True:
        m = min(len(x), span)
        for _ in range(2):
            period = nominal * (1.0 + offset)
            parts = np.array_split(x[:m], max(4, min(32, m // 25)))
            angle = np.unwrap([float(np.angle(np.exp((2j * np.pi / period) * s).sum())) for s in parts])
            middle = np.array([float(s.mean()) for s in parts])
            slope = float(np.polyfit(middle - middle.mean(), angle, 1)[0])
            offset += slope / (2.0 * np.pi) * nominal * (1.0 + offset)
        if m == len(x):
            return offset
        span *= 4


def histogram(phase: Floats, period_ps: float) -> Floats:
    """Counts per cell of period/BINS, smoothed over 5 cells round the circle; shape (BINS,)."""
    h = np.bincount((phase * (BINS / period_ps)).astype(np.int64) % BINS, minlength=BINS).astype(np.float64)
    return np.asarray(sum(np.roll(h, k) for k in range(-2, 3)), dtype=np.float64)


def strongest(phase: Floats, period_ps: float, offsets_ps: tuple[float, ...] = (0.0,)) -> tuple[float, float]:
    """(position of the first peak, weakest share) of a comb of peaks at known distances, ps.

    The position maximises the geometric mean of the comb's heights, then is sharpened by the centroids within 150 ps;
    the share is the weakest peak's part of the strongest one's height.
    """
    h = histogram(phase, period_ps)
    cells = [round(o * BINS / period_ps) for o in offsets_ps]
    comb = np.stack([np.roll(h, -c) for c in cells])
    at = int(np.prod(comb + 1e-9, axis=0).argmax())
    position = (at + 0.5) * period_ps / BINS
    for _ in range(3):
        shifts = [s for o in offsets_ps if (s := _centroid(phase, position + o, period_ps)) is not None]
        position += float(np.mean(shifts)) if shifts else 0.0
    heights = comb[:, at]
    return position % period_ps, float(heights.min() / max(float(heights.max()), 1.0))


def spread(phase: Floats, period_ps: float, position_ps: float, offsets_ps: tuple[float, ...] = (0.0,)) -> float:
    """Standard uncertainty of the position that `strongest` found, from the scatter of the clicks in its peaks, ps."""
    variances = []
    for o in offsets_ps:
        d = wrap(phase - position_ps - o, period_ps)
        near = d[np.abs(d) < 150.0]
        if len(near) < 2:
            return math.inf
        variances.append(float(near.var(ddof=1)) / len(near))
    return math.sqrt(math.fsum(variances)) / len(offsets_ps)


def wrap(x: Floats | float, period_ps: float) -> Floats:
    """Into [-period/2, period/2)."""
    return np.asarray(np.mod(np.asarray(x) + period_ps / 2.0, period_ps) - period_ps / 2.0)


def _centroid(phase: Floats, at: float, period_ps: float) -> float | None:
    d = wrap(phase - at, period_ps)
    near = d[np.abs(d) < 150.0]
    return float(near.mean()) if len(near) else None


def gated(phase: Floats, period_ps: float, centre_ps: float, half_ps: float) -> int:
    """Tags within half_ps of a bin's centre."""
    return int(np.count_nonzero(np.abs(wrap(phase - centre_ps, period_ps)) < half_ps))
