"""Thermal crosstalk between heaters, and phases set through it (reference control B3, pair A6): pure numerics.

phase_i = phi0_i + sum_j local_ij p_j + common_i d. `local` acts at once; d is the heater sum, W, as the die feels it:
through a lag of about 50 ms. With the die settled d = sum p, and the whole response is `Matrix.total`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from calibration.fit import PI, Array, FitRefused, judged, linear
from calibration.record import Record

# The die against its submount: 0.05 J/K over 1.0 K/W (reference pair A6.3).
DIE_TAU_S = 0.05
# The submount, from which the controller takes heat only within seconds (reference pair A6.5).
SUBMOUNT_J_PER_K = 8.0
# Shares of pi that a heater turns its neighbours by, and how much individuals differ (reference pair A6.2).
NEAR_SHARE, REACH = 0.04, 1.5


def lagged_sum(times_s: Array, sums_w: Array, at_s: Array, start_w: float, tau_s: float = DIE_TAU_S) -> Array:
    """Heater sum as the die feels it at `at_s`: sums_w[k] (W) holds from times_s[k], ascending; start_w before."""
    felt, now, level = start_w, float(times_s[0]) if len(times_s) else 0.0, start_w
    out = np.zeros(len(at_s))
    changes = list(zip(times_s, sums_w, strict=True))
    k = 0
    for i in np.argsort(at_s, kind="stable"):
        t = float(at_s[i])
        while k < len(changes) and changes[k][0] <= t:
            felt = level + (felt - level) * math.exp(-(float(changes[k][0]) - now) / tau_s)
            now, level = float(changes[k][0]), float(changes[k][1])
            k += 1
        out[i] = level + (felt - level) * math.exp(-max(0.0, t - now) / tau_s)
    return out


def stored_heat(times_s: Array, sums_w: Array, felt_w: Array, at_s: Array, mean_w: float) -> Array:
    """Heat above a mean that has reached the submount since the first change, J, at `at_s`, where the die feels
    `felt_w`: the rest of it is still in the die."""
    edges = np.append(times_s, math.inf)
    out = np.zeros(len(at_s))
    for start, end, level in zip(edges[:-1], edges[1:], sums_w, strict=True):
        out += (level - mean_w) * np.clip(np.minimum(at_s, end) - start, 0.0, None)
    return np.asarray(out - DIE_TAU_S * (felt_w - mean_w))


@dataclass(frozen=True)
class Prior:
    """What is known of one row before: rad/W, independent, with standard uncertainties (inf: nothing)."""

    local: Array
    local_sigma: Array
    common: float = 0.0
    common_sigma: float = math.inf


def distance_prior(n: int, i: int, p_pi_w: Array, p_pi_sigma_w: float, relative: float = 0.25) -> Prior:
    """Row i of n heaters in a line: its own P_pi as measured, its neighbours by their distance."""
    distance = np.abs(np.arange(n) - i)
    share = np.where(distance == 0, 1.0, NEAR_SHARE * np.exp(-distance / REACH))
    local = PI * share / p_pi_w
    sigma = np.where(distance == 0, local * p_pi_sigma_w / p_pi_w, local * relative)
    return Prior(local, sigma)


def two_levels(
    names: Sequence[str],
    top_w: Array,
    p_pi_w: Array,
    target_rad: Array,
    expected: Callable[[Array], Array],
    margin: float,
) -> Array:
    """Two powers of every element, W, shape (n, 2), about its target modulo pi while half of the others are up.

    All steps are the same, the mean P_pi, so that the heater sum does not change. `expected` gives the phases at powers
    (n,). Raises FitRefused, naming the heater that does not reach its upper level within `margin` of its range.
    """
    n = len(names)
    step, lower = float(p_pi_w.mean()), np.zeros(n)
    for _ in range(4):
        # Each element's phase in the middle between its levels, the others half way up.
        for i in range(n):
            powers = lower + step / 2.0
            powers[i] = 0.0
            start = float(expected(powers)[i])
            least = start + (margin * float(top_w[i]) + step / 2.0) * PI / float(p_pi_w[i])
            k = math.ceil((least - float(target_rad[i]) - PI / 2.0) / PI)
            lower[i] = (float(target_rad[i]) + PI / 2.0 + k * PI - start) * float(p_pi_w[i]) / PI - step / 2.0
    upper = lower + step
    if np.any(upper > (1.0 - margin / 2.0) * top_w):
        worst = int(np.argmax(upper / top_w))
        raise FitRefused(
            f"heater {names[worst]!r} reaches {top_w[worst] * 1e3:.0f} mW; {upper[worst] * 1e3:.0f} mW are needed"
        )
    return np.stack([lower, upper], axis=1)


@dataclass(frozen=True)
class RowFit:
    """One row: phase (rad) at the mean of the settings, local (n,) and common in rad/W; covariance over (phase,
    local..., common). Residuals in rad, in the order of the readings."""

    phase_rad: float
    at_w: Array
    at_die_w: float
    local: Array
    common: float
    covariance: Array
    residuals: Array
    reduced_chi2: float

    def phase_at(self, powers_w: Array, die_w: float | None = None) -> tuple[float, float]:
        """(phase, its standard uncertainty), rad, at other powers; the die settled unless `die_w` is given."""
        d = float(powers_w.sum()) if die_w is None else die_w
        g = np.concatenate([[1.0], powers_w - self.at_w, [d - self.at_die_w]])
        p = np.concatenate([[self.phase_rad], self.local, [self.common]])
        return float(g @ p), float(math.sqrt(max(0.0, g @ self.covariance @ g)))


def regress(
    phases: Array,
    sigma: Array,
    powers_w: Array,
    die_w: Array,
    at_s: Array,
    prior: Prior,
    *,
    walk_rad_per_root_s: float = 0.0,
    nuisance: Sequence[Array] = (),
    nuisance_sigma: Sequence[float] = (),
) -> RowFit:
    """Joint regression of one element's phases, (k,), unwrapped, at heater settings powers_w (k, n).

    Readings have independent noise `sigma` and share a random walk between times `at_s`, ascending. `nuisance` columns
    (k,) take what else is common to readings, each amplitude known to `nuisance_sigma`. Raises FitRefused when the
    settings do not determine the row or the scatter is beyond chance.
    """
    k, n = powers_w.shape
    centre, die_centre = powers_w.mean(axis=0), float(die_w.mean())
    columns = [np.ones(k), *(powers_w - centre).T, die_w - die_centre, *nuisance]
    design = np.stack(columns, axis=1)
    elapsed = at_s - at_s[0]
    noise = np.diag(np.square(sigma)) + walk_rad_per_root_s**2 * np.minimum.outer(elapsed, elapsed)
    root = np.linalg.cholesky(noise)
    known = np.concatenate([[0.0], prior.local, [prior.common], np.zeros(len(nuisance))])
    width = np.concatenate([[math.inf], prior.local_sigma, [prior.common_sigma], np.asarray(nuisance_sigma)])
    rows = np.flatnonzero(np.isfinite(width))
    a = np.vstack([np.linalg.solve(root, design), np.eye(len(known))[rows] / width[rows, None]])
    y = np.concatenate([np.linalg.solve(root, phases), known[rows] / width[rows]])
    fit = judged(linear(a, y, np.ones(len(y)), absolute=True), "crosstalk", bounded=True)
    p = fit.parameters
    keep = n + 2
    return RowFit(
        phase_rad=float(p[0]),
        at_w=centre,
        at_die_w=die_centre,
        local=p[1 : n + 1],
        common=float(p[n + 1]),
        covariance=fit.covariance[:keep, :keep],
        residuals=np.asarray(phases - design @ p),
        reduced_chi2=fit.reduced_chi2,
    )


@dataclass(frozen=True)
class Matrix:
    """All elements: phases without power (n,) rad; local (n, n) and common (n,) rad/W; column j: heated by j."""

    names: tuple[str, ...]
    phi0_rad: Array
    local: Array
    common: Array

    @classmethod
    def of(cls, record: Record, names: Sequence[str]) -> Matrix:
        """From a crosstalk record: theta_<seen>_<heated>, p_pi_<heated>_w, common_<seen>_rad_per_w, phi0_<seen>_rad.

        Raises KeyError when the record does not have them.
        """
        v = record.value
        local = [[PI * v[f"theta_{a}_{b}"] / v[f"p_pi_{b}_w"] for b in names] for a in names]
        common = np.array([v[f"common_{a}_rad_per_w"] for a in names])
        return cls(tuple(names), np.array([v[f"phi0_{a}_rad"] for a in names]), np.array(local), common)

    @property
    def total(self) -> Array:
        """rad/W with the die settled, (n, n)."""
        return np.asarray(self.local + self.common[:, None])

    def phases(self, powers_w: Array) -> Array:
        """rad, (n,), with the die settled."""
        return np.asarray(self.phi0_rad + self.total @ powers_w)

    def index(self, name: str) -> int:
        return self.names.index(name)


@dataclass(frozen=True)
class Solution:
    """Powers, W, and fringe orders by element; `margin`: share of the range that is free at both rails."""

    power_w: dict[str, float]
    order: dict[str, int]
    margin: float

    @property
    def total_w(self) -> float:
        return math.fsum(self.power_w.values())


def solve(
    matrix: Matrix,
    targets: Mapping[str, float],
    max_w: Mapping[str, float],
    fixed: Mapping[str, float] | None = None,
    *,
    margins: Sequence[float] = (0.1, 0.05, 0.02),
    turns: int = 3,
) -> Solution:
    """Powers that give every target phase (rad, modulo 2 pi) at once, least total power (reference control B3).

    min over integers k of ||Theta p - (phi* - phi0 + 2 pi k)|| within 0 <= p <= p_max less a margin: with as many
    targets as free heaters the norm is zero and the search is over k, `turns` to both sides of each element's own
    lowest. Elements without target keep the power in `fixed`. Raises FitRefused when no k fits the rails.
    """
    fixed = dict(fixed or {})
    free = [n for n in matrix.names if n in targets]
    if missing := [n for n in matrix.names if n not in targets and n not in fixed]:
        raise ValueError(f"{', '.join(missing)}: neither a target phase nor a fixed power")
    at = [matrix.index(n) for n in free]
    held = np.array([0.0 if n in targets else fixed[n] for n in matrix.names])
    block = matrix.total[np.ix_(at, at)]
    base = (matrix.phi0_rad + matrix.total @ held)[at]
    wanted = np.array([targets[n] for n in free]) - base
    low = np.ceil(-wanted / (2 * PI) - 1e-9)
    top = np.array([max_w[n] for n in free])
    ks = np.array(list(product(range(-1, turns + 1), repeat=len(free)))) + low
    powers = np.linalg.solve(block, (wanted + 2 * PI * ks).T).T
    for margin in margins:
        inside = np.all((powers >= margin * top) & (powers <= (1 - margin) * top), axis=1)
        if inside.any():
            best = int(np.where(inside, powers.sum(axis=1), math.inf).argmin())
            found = {**fixed, **{n: float(p) for n, p in zip(free, powers[best], strict=True)}}
            order = {n: int(k) for n, k in zip(free, ks[best], strict=True)}
            return Solution({n: found[n] for n in matrix.names}, order, margin)
    raise FitRefused(f"no heater powers give the phases of {', '.join(free)} within {margins[-1]:.0%} of the rails")


def adjust(matrix: Matrix, steps_rad: Mapping[str, float], ballast: str | None = None) -> dict[str, float]:
    """Power steps, W, that change the named phases by these angles and no other, the die settled.

    With a `ballast` (a heater that turns no phase) its step keeps the heater sum as it is, so that the die's part of
    the matrix never comes into play: right at once, not after the die's lag.
    """
    wanted = np.array([steps_rad.get(n, 0.0) for n in matrix.names])
    step = np.linalg.solve(matrix.total if ballast is None else matrix.local, wanted)
    out = {n: float(s) for n, s in zip(matrix.names, step, strict=True)}
    if ballast is not None:
        out[ballast] = -math.fsum(out.values())
    return out


def hop(matrix: Matrix, name: str, turns: int = 1, ballast: str | None = None) -> dict[str, float]:
    """Power steps, W, for `turns` times 2 pi of one element that leave all other phases where they are."""
    return adjust(matrix, {name: 2 * PI * turns}, ballast)
