"""From the sweeps of a transmitter to findings: half periods, extinctions, losses (reference pair A2, A6, A7).

Limits are those of the population that the modules are drawn from, with room for what a reading is uncertain by; where
a loss is at one photodiode only, the photodiode is to blame, where everything behind it shares it, the path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10, nan, pi

import numpy as np

from calibration.fit import Array, FitRefused, Fringe, fit_fringe
from calibration.plot import Plot, Series
from qmodd.selftest.alice_chain import FLOOR_A, Sweep
from qmodd.selftest.model import Finding, Limits

# P_pi n(40 mW, 8 %), V_pi n(4.0 V, 0.2 V), both cut at three deviations (pair A7); 3 % of reading and crosstalk.
P_PI_W = Limits(0.0290, 0.0512, 0.0320, 0.0480)
# The die's warming turns the AMZI's phase, too: 15.6 % of 4.5 deg/mW once it has settled (pair A6.3).
P_PI_PHASE_W = Limits(0.0240, 0.0512)
V_PI_V = Limits(3.25, 4.75, 3.5, 4.5)
# What a search looks through: far more than the limits, so that a weak element is measured and not only refused.
P_PI_SEARCH_W, V_PI_SEARCH_V = (0.018, 0.110), (2.4, 9.0)
LEAST_DB = {"carver": 22.3, "state": 18.8, "decoy": 19.3, "shutter": 26.0}
LONG_ARM_DB = Limits(0.55, 2.1)
# Loss of each section, dB: design, and three deviations plus taps and responsivities (1 % each at both ends).
SECTIONS: dict[str, tuple[str, str, float, float]] = {
    "laser": ("laser", "pa6", 1.5, 0.75),
    "filter": ("pa6", "pa0", 0.01, 0.75),
    "amzi_input": ("pa0", "pa1", 10.31, 1.45),
    "state": ("pa1", "pa3", 6.2, 1.75),
    "shutter": ("pa3", "pa4", 0.22, 0.75),
}


@dataclass(frozen=True)
class Curve:
    """A fitted sweep, or why there is none."""

    fringe: Fringe | None
    why: str = ""


def curve(x: Array, y: Array, search: tuple[float, float], least_visibility: float, residual_max: float = 0.1) -> Curve:
    """Sinusoid through readings with a relative noise; never raises."""
    level = np.maximum(y, 1e-4 * float(np.max(y)) + 1e-15)
    sigma = 0.004 * level + 1e-3 * float(np.max(y))
    try:
        found = fit_fringe(
            x, y, *search, sigma=sigma, absolute=False, visibility_min=least_visibility, residual_max=residual_max
        )
    except FitRefused as e:
        return Curve(None, str(e))
    return Curve(found)


def ratio(sweep: Sweep, over: str, under: str) -> Array:
    return np.asarray(sweep.rows[over] / np.maximum(sweep.rows[under], FLOOR_A))


def half_period(name: str, found: Curve, limits: Limits, unit: str, part: str, needs: tuple[str, ...]) -> Finding:
    """P_pi or V_pi."""
    f = found.fringe
    sigma = float(np.sqrt(max(0.0, f.covariance[3, 3]))) if f else 0.0
    return Finding(name, f.x_pi if f else nan, unit, limits, part, needs, found.why, sigma=sigma)


def extinction(name: str, element: str, least: float, most: float, part: str, needs: tuple[str, ...]) -> Finding:
    """10 log10(most/least); never infinite, for nothing is darker than the photodiode can tell."""
    db = 10.0 * log10(max(most, 1e-15) / max(least, 1e-13))
    hint = f"least {least:.3g}, most {most:.3g}: it does not close"
    return Finding(name, db, "dB", Limits(low=LEAST_DB[element]), part, needs, hint)


def losses(laser_dbm: float, watts: Mapping[str, float], needs: Callable[[str], tuple[str, ...]]) -> list[Finding]:
    """Of every section between photodiodes. A section that loses too much, followed by one that loses as much too
    little, is a photodiode that sees too little."""
    power = {"laser": 1e-3 * 10.0 ** (laser_dbm / 10.0), **watts}
    excess, loss = {}, {}
    for name, (before, after, design, room) in SECTIONS.items():
        loss[name] = -10.0 * log10(max(power[after], 1e-15) / max(power[before], 1e-15))
        excess[name] = (loss[name] - design) / room
    names = list(SECTIONS)
    blame = {n: f"path {n}" for n in names}
    for first, second in pairwise(names):
        if abs(excess[first]) > 1.0 and excess[first] * excess[second] < 0.0 and abs(excess[second]) > 0.6:
            blame[first] = blame[second] = f"photodiode {SECTIONS[first][1]}"
    out = []
    for name, (before, after, design, room) in SECTIONS.items():
        limits = Limits.around(design, room, 0.85 * room)
        less = loss[name] - design
        hint = (
            f"{abs(less):.1f} dB {'more' if less > 0.0 else 'less'} than designed is lost between {before} and {after}"
        )
        if name == names[-1]:
            hint += f"; or photodiode {after}: nothing stands behind it"
        out.append(Finding(f"loss.{name}", loss[name], "dB", limits, blame[name], needs(name), hint))
    return out


def long_arm(found: Curve, needs: tuple[str, ...]) -> Finding:
    """The second output's light against the coupler: all into the short arm over all into the long one."""
    f = found.fringe
    db = 10.0 * log10((1.0 + f.visibility) / max(1e-3, 1.0 - f.visibility)) if f else nan
    return Finding("loss.amzi", db, "dB", LONG_ARM_DB, "path amzi", needs, found.why or "loss of the AMZI's long arm")


def null_of(found: Curve, reach: float) -> float | None:
    """The setting next to 0 at which least light passes."""
    return _nearest(found, pi, -reach, reach)


def peak_of(found: Curve, reach: float) -> float | None:
    return _nearest(found, 0.0, -reach, reach)


def power_for(found: Curve, phase: float, top: float) -> float | None:
    """The least power with a phase."""
    if found.fringe is None:
        return None
    roots = found.fringe.roots(phase, 0.0, top)
    return roots[0] if roots else None


def _nearest(found: Curve, phase: float, low: float, high: float) -> float | None:
    if found.fringe is None:
        return None
    roots = found.fringe.roots(phase, low, high)
    return min(roots, key=abs) if roots else None


def figure(title: str, unit: str, scale: float, curves: Mapping[str, tuple[Array, Array, Curve]]) -> Plot:
    series: list[Series] = []
    for name, (x, y, found) in curves.items():
        most = float(np.max(y)) or 1.0
        series.append(Series(name, (scale * x).tolist(), (y / most).tolist()))
        if found.fringe is not None:
            fine = np.linspace(float(x[0]), float(x[-1]), 120)
            series.append(Series("", (scale * fine).tolist(), [found.fringe(float(v)) / most for v in fine], "line"))
    return Plot(title, unit, "light over the largest (1)", series)


def steadiness(
    rows: Sequence[Mapping[str, float]], limits: Limits, parts: Mapping[str, str], needs: tuple[str, ...]
) -> list[Finding]:
    """Relative noise of the light at the first photodiode, then of each one's light over that before it.

    `parts`: photodiodes in the order in which light passes them, and what may be restless before each. Noise that the
    next ratio shows, too, is the photodiode's own.
    """
    diodes = list(parts)
    logs = {d: np.log(np.maximum([row[d] for row in rows], FLOOR_A)) for d in diodes}
    noise = {d: float(np.std(logs[d] - logs[b])) if b else float(np.std(logs[d])) for b, d in _before(diodes)}
    out = []
    for n, d in enumerate(diodes):
        after = diodes[n + 1] if n + 1 < len(diodes) else None
        own = after is not None and noise[after] > limits.high and noise[d] > limits.high
        # What was restless before the first of two noisy ratios is told there.
        echo = n > 0 and noise[diodes[n - 1]] > limits.high and noise[d] > limits.high
        part = f"photodiode {diodes[n - 1]}" if echo else f"photodiode {d}" if own else parts[d]
        waits = tuple(x for x in (*needs, f"photodiode {d}", "modulator decoy") if x != part)
        hint = "restless, or it comes and goes; relative to the light before it"
        out.append(Finding(f"noise.{d}", noise[d], "1", limits, part, waits, hint))
    return out


def _before(diodes: Sequence[str]) -> list[tuple[str | None, str]]:
    return list(zip((None, *diodes[:-1]), diodes, strict=True))
