"""Pure numerics of the calibrations: arrays in; parameters, covariance and residuals out.

A fit that cannot be trusted raises `FitRefused` with its reason, so that a bad number is never stored. Standard
uncertainties come from `sigma` (per reading): as given with `absolute`, else scaled by the scatter of the residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.chance import upper_tail

Array = npt.NDArray[np.floating[Any]]

PI = math.pi


class FitRefused(Exception):
    """The readings do not support a result; the message says which limit was missed, with both numbers."""


# A chi-square less likely than this is no chance: the readings do not obey the model, or they are no readings.
IMPOSSIBLE = 1e-9
# Rarer than this, the scatter is taken to be larger than stated: it goes into the covariance.
UNLIKELY = 0.01
# What scatters more than this many times its stated noise is refused however many readings there are.
SCATTER_MAX = 6.0


@dataclass(frozen=True)
class LeastSquares:
    """Parameters (k,), covariance (k, k), residuals y - model (n,) and their rms (unit of y), chi2 per degree of
    freedom, degrees of freedom."""

    parameters: Array
    covariance: Array
    residual_rms: float
    reduced_chi2: float
    residuals: Array
    dof: int


def linear(design: Array, y: Array, sigma: Array | None = None, *, absolute: bool = False) -> LeastSquares:
    """Weighted linear least squares; design (n, k), y and sigma (n,)."""
    s = np.ones(len(y)) if sigma is None else sigma
    a, b = design / s[:, None], y / s
    solution, _, rank, _ = np.linalg.lstsq(a, b, rcond=None)
    if rank < design.shape[1]:
        raise FitRefused(f"{len(y)} readings determine only {rank} of {design.shape[1]} parameters")
    return _finish(solution, a, b - a @ solution, y - design @ solution, absolute)


def _finish(p: Array, jacobian: Array, scaled: Array, residual: Array, absolute: bool) -> LeastSquares:
    dof = max(1, len(scaled) - len(p))
    chi2 = float(scaled @ scaled) / dof
    covariance = np.linalg.inv(jacobian.T @ jacobian)
    if not absolute:
        covariance = covariance * chi2
    rms = float(np.sqrt(np.mean(residual**2)))
    return LeastSquares(p, covariance, rms, chi2, np.asarray(residual), max(0, len(scaled) - len(p)))


def judged(fit: LeastSquares, what: str = "the fit", *, bounded: bool = False) -> LeastSquares:
    """A fit with absolute sigma, if its chi-square is one that chance gives.

    Between unlikely and impossible the covariance is scaled by it. Raises FitRefused when the scatter is far above the
    stated noise, or so far below that the readings cannot be what they are said to be (repeated, made up). `bounded`:
    sigma holds limits of what the model leaves out, too, so that a small scatter says nothing.
    """
    if fit.dof == 0:
        return fit
    chi2 = fit.reduced_chi2 * fit.dof
    above = upper_tail(chi2, fit.dof)
    if fit.reduced_chi2 > SCATTER_MAX**2 and above < IMPOSSIBLE:
        raise FitRefused(
            f"{what}: the readings scatter {math.sqrt(fit.reduced_chi2):.1f} times as much as their noise explains "
            f"(chi-square {chi2:.0f} at {fit.dof} degrees of freedom; the limit is {SCATTER_MAX:.0f} times)"
        )
    if 1.0 - above < IMPOSSIBLE and not bounded:
        raise FitRefused(
            f"{what}: the readings scatter {math.sqrt(fit.reduced_chi2):.2g} times as much as their noise "
            f"(chi-square {chi2:.1e} at {fit.dof} degrees of freedom): too good to be readings"
        )
    if above < UNLIKELY:
        return replace(fit, covariance=fit.covariance * fit.reduced_chi2)
    return fit


def added(fit_of: Callable[[Array], Array], y: Array, variants: Iterable[Array]) -> Array:
    """Covariance of what is common to all readings (an amplifier's law, a resistance): the fit repeated with each of
    them one standard uncertainty off. `fit_of` maps readings to parameters (k,); result (k, k)."""
    centre = fit_of(y)
    out = np.zeros((len(centre), len(centre)))
    for variant in variants:
        moved = fit_of(variant) - centre
        out += np.outer(moved, moved)
    return out


def gauss_newton(
    model: Callable[[Array], Array], start: Array, y: Array, sigma: Array, *, absolute: bool = False, steps: int = 60
) -> LeastSquares:
    """Weighted non-linear least squares with step halving; the Jacobian by central differences.

    Raises FitRefused when it does not converge or a parameter is not determined.
    """
    p = start.astype(np.float64)
    scaled = (y - model(p)) / sigma
    for _ in range(steps):
        jacobian = _jacobian(model, p) / sigma[:, None]
        step, _, rank, _ = np.linalg.lstsq(jacobian, scaled, rcond=1e-12)
        if rank < len(p):
            raise FitRefused(f"the readings determine only {rank} of {len(p)} parameters")
        size = 1.0
        while size > 1e-4:
            trial = (y - model(p + size * step)) / sigma
            if trial @ trial <= scaled @ scaled:
                break
            size /= 2
        else:
            break
        p, done = p + size * step, bool(scaled @ scaled - trial @ trial < 1e-10 * (1e-30 + scaled @ scaled))
        scaled = trial
        if done:
            break
    jacobian = _jacobian(model, p) / sigma[:, None]
    try:
        return _finish(p, jacobian, scaled, scaled * sigma, absolute)
    except np.linalg.LinAlgError:
        raise FitRefused("a parameter is not determined by the readings") from None


def _jacobian(model: Callable[[Array], Array], p: Array) -> Array:
    columns = []
    for i, value in enumerate(p):
        h = 1e-6 * max(abs(float(value)), 1e-3)
        up, down = p.copy(), p.copy()
        up[i] += h
        down[i] -= h
        columns.append((model(up) - model(down)) / (2 * h))
    return np.stack(columns, axis=1)


# ---------------------------------------------------------------- heaters


@dataclass(frozen=True)
class Resistance:
    """R(P) = r0 (1 + rho P); ohm and 1/W. Covariance over (r0_ohm, rho_per_w)."""

    r0_ohm: float
    rho_per_w: float
    covariance: Array
    residual_rms: float
    residuals: Array = field(default_factory=lambda: np.zeros(0))

    def current(self, watts: float) -> float:
        """A for a wanted power, by fixed point of P = I^2 R(P) (reference control B1)."""
        return math.sqrt(watts / (self.r0_ohm * (1.0 + self.rho_per_w * watts)))

    def power(self, amperes: float) -> float:
        """W at a current: the fixed point of P = I^2 R(P). Raises FitRefused near thermal runaway."""
        gain = amperes**2 * self.r0_ohm * self.rho_per_w
        if gain >= 0.5:
            raise FitRefused(f"I^2 R0 rho = {gain:.2f} at {amperes * 1e3:.1f} mA; 0.5 is the limit before runaway")
        return amperes**2 * self.r0_ohm / (1.0 - gain)


def fit_resistance(current_a: Array, voltage_v: Array, sigma_v: float | Array | None = None) -> Resistance:
    """R(P) from at least 5 points of I-V (reference control B1).

    R = V/I is linear in P = V I. `sigma_v` is absolute, V. Raises FitRefused with fewer points, a negative resistance,
    or a scatter that `sigma_v` does not explain. Residuals in V.
    """
    if len(current_a) < 5:
        raise FitRefused(f"{len(current_a)} I-V points; 5 are needed")
    r = voltage_v / current_a
    design = np.stack([np.ones_like(r), voltage_v * current_a], axis=1)
    sigma = (1.0 if sigma_v is None else sigma_v) / current_a
    fit = linear(design, r, np.broadcast_to(sigma, r.shape), absolute=sigma_v is not None)
    if sigma_v is not None:
        fit = judged(fit, "I-V")
    r0, slope = (float(x) for x in fit.parameters)
    if r0 <= 0:
        raise FitRefused(f"resistance at zero power is {r0:.3g} ohm; it must be positive")
    t = np.array([[1.0, 0.0], [-slope / r0**2, 1.0 / r0]])
    residuals = np.asarray(fit.residuals * current_a)
    rms = float(np.sqrt(np.mean(residuals**2)))
    return Resistance(r0, slope / r0, t @ fit.covariance @ t.T, rms, residuals)


# ---------------------------------------------------------------- fringes and bias curves


@dataclass(frozen=True)
class Fringe:
    """y = offset [1 + visibility cos(phi0 + pi x / x_pi)]. Covariance over (offset, visibility, phi0_rad, x_pi)."""

    offset: float
    visibility: float
    phi0_rad: float
    x_pi: float
    covariance: Array
    residual_rms: float
    residuals: Array = field(default_factory=lambda: np.zeros(0))
    reduced_chi2: float = 1.0
    dof: int = 0

    @property
    def parameters(self) -> Array:
        """(offset, visibility, phi0_rad, x_pi)."""
        return np.array([self.offset, self.visibility, self.phi0_rad, self.x_pi])

    def phase(self, x: float) -> float:
        return self.phi0_rad + PI * x / self.x_pi

    def __call__(self, x: float) -> float:
        return self.offset * (1.0 + self.visibility * math.cos(self.phase(x)))

    def sigma_phase(self, x: float) -> float:
        """Standard uncertainty of the phase at x, rad."""
        g = np.array([0.0, 0.0, 1.0, -PI * x / self.x_pi**2])
        return float(math.sqrt(max(0.0, g @ self.covariance @ g)))

    def roots(self, target_rad: float, low: float, high: float) -> list[float]:
        """All x in [low, high] whose phase equals the target modulo 2 pi, ascending."""
        first = (target_rad - self.phi0_rad) * self.x_pi / PI
        period = 2.0 * self.x_pi
        k = math.ceil((low - first) / period)
        found = []
        while first + k * period <= high:
            found.append(first + k * period)
            k += 1
        return found


def fit_fringe(
    x: Array,
    y: Array,
    x_pi_low: float,
    x_pi_high: float,
    *,
    sigma: Array | None = None,
    absolute: bool = True,
    visibility_min: float = 0.1,
    residual_max: float = 0.1,
) -> Fringe:
    """Sinusoid by variable projection (reference control B2): linear for a given x_pi, which is searched on a grid.

    x, y (n,), n >= 6, unevenly spaced against aliasing. `sigma` (n,) is absolute; without it, or where it is a weight
    only (`absolute` False), the scatter of the residuals has to do. Raises FitRefused: too few points, weak fringe
    (visibility below `visibility_min`), x_pi at the edge of its range, scatter above `residual_max` of the amplitude or
    beyond chance for `sigma`, or a second period that explains the readings as well.
    """
    if len(x) < 6:
        raise FitRefused(f"{len(x)} points; 6 are needed")
    s = np.ones(len(y)) if sigma is None else sigma
    grid = _periods(x, x_pi_low, x_pi_high)
    cost = np.array([_projected(x, y, s, float(g))[1] for g in grid])
    best = int(cost.argmin())
    p, _ = _projected(x, y, s, float(grid[best]))
    fit = gauss_newton(
        lambda q: _sinusoid(x, q), np.append(p, grid[best]), y, s, absolute=absolute and sigma is not None
    )
    fringe = _as_fringe(fit)
    _check_fringe(fringe, (x_pi_low, x_pi_high), visibility_min, residual_max)
    _check_alias(grid, cost, fringe, len(x), fit.reduced_chi2 * max(1, len(x) - 4))
    return _as_fringe(judged(fit, "fringe")) if absolute and sigma is not None else fringe


def refine_fringe(start: Fringe, x: Array, y: Array, sigma: Array) -> Fringe:
    """The same fit from a fringe that is near already, without search or judgement; its phase stays on its turn."""
    c, s = math.cos(start.phi0_rad), -math.sin(start.phi0_rad)
    m = start.offset * start.visibility
    fit = gauss_newton(
        lambda q: _sinusoid(x, q), np.array([start.offset, m * c, m * s, start.x_pi]), y, sigma, absolute=True
    )
    found = _as_fringe(fit)
    turns = round((start.phi0_rad - found.phi0_rad) / (2 * PI))
    return replace(found, phi0_rad=found.phi0_rad + 2 * PI * turns)


def _periods(x: Array, low: float, high: float) -> Array:
    """Half periods, even in frequency: neighbours differ by 0.04 rad over the span of x: no minimum is missed."""
    steps = int(np.clip((x.max() - x.min()) * PI * (1 / low - 1 / high) / 0.04, 60, 1000))
    return np.asarray(1.0 / np.linspace(1 / high, 1 / low, steps))


def _projected(x: Array, y: Array, sigma: Array, x_pi: float) -> tuple[Array, float]:
    a = np.stack([np.ones_like(x), np.cos(PI * x / x_pi), np.sin(PI * x / x_pi)], axis=1) / sigma[:, None]
    p, *_ = np.linalg.lstsq(a, y / sigma, rcond=None)
    r = y / sigma - a @ p
    return p, float(r @ r)


def _sinusoid(x: Array, q: Array) -> Array:
    return np.asarray(q[0] + q[1] * np.cos(PI * x / q[3]) + q[2] * np.sin(PI * x / q[3]))


def _as_fringe(fit: LeastSquares) -> Fringe:
    a, c, s, x_pi = (float(v) for v in fit.parameters)
    m = math.hypot(c, s)
    if m == 0.0 or a == 0.0:
        raise FitRefused("no fringe: the readings do not change")
    # a + c cos u + s sin u = a [1 + m/a cos(u + phi0)], phi0 = atan2(-s, c)
    t = np.zeros((4, 4))
    t[0, 0] = 1.0
    t[1, :3] = (-m / a**2, c / (m * a), s / (m * a))
    t[2, 1:3] = (s / m**2, -c / m**2)
    t[3, 3] = 1.0
    covariance = t @ fit.covariance @ t.T
    phi0 = math.atan2(-s, c)
    return Fringe(a, m / a, phi0, x_pi, covariance, fit.residual_rms, fit.residuals, fit.reduced_chi2, fit.dof)


def _check_fringe(f: Fringe, limits: tuple[float, float], visibility_min: float, residual_max: float) -> None:
    if not visibility_min <= f.visibility <= 1.5:
        raise FitRefused(f"fringe visibility {f.visibility:.3f}; {visibility_min:.2f} to 1 is expected")
    amplitude = abs(f.offset) * f.visibility
    if f.residual_rms > residual_max * amplitude:
        share = f.residual_rms / amplitude
        raise FitRefused(f"residuals are {share:.1%} of the fringe's amplitude; the limit is {residual_max:.0%}")
    if not limits[0] <= f.x_pi <= limits[1]:
        raise FitRefused(f"half period {f.x_pi:.4g} is outside its range {limits[0]:.4g} to {limits[1]:.4g}")


def _check_alias(grid: Array, cost: Array, fringe: Fringe, n: int, floor: float) -> None:
    """Another local minimum of the projected cost that fits nearly as well means an ambiguous period."""
    inner = (cost[1:-1] < cost[:-2]) & (cost[1:-1] < cost[2:])
    minima = [float(cost[i + 1]) for i in np.flatnonzero(inner) if abs(grid[i + 1] / fringe.x_pi - 1) > 0.1]
    if minima and min(minima) < floor * (1.0 + 8.0 / max(1, n - 4)) + 1e-300:
        raise FitRefused("two periods explain the readings equally well: take more, unevenly spaced points")


@dataclass(frozen=True)
class Operating:
    """A chosen heater power: W, fringe order k, and the share of the range that is kept free at both rails."""

    power_w: float
    order: int
    margin: float


def choose_power(
    fringe: Fringe, target_rad: float, max_w: float, margins: Sequence[float] = (0.1, 0.05, 0.02)
) -> Operating:
    """The least power with the wanted phase (modulo 2 pi) that keeps a margin from both rails (reference control B2).

    The first margin that leaves a root is taken: 10 % wherever the heater reaches 2 P_pi within it; an individual that
    needs more power for pi gets less margin, which is told. Raises FitRefused when even the last has none.
    """
    for margin in margins:
        roots = fringe.roots(target_rad, margin * max_w, (1.0 - margin) * max_w)
        if roots:
            order = round((fringe.phase(roots[0]) - target_rad) / (2 * PI))
            return Operating(roots[0], order, margin)
    raise FitRefused(
        f"phase {target_rad:.2f} rad is out of reach: half period {fringe.x_pi * 1e3:.1f} mW in {max_w * 1e3:.0f} mW"
    )


# ---------------------------------------------------------------- local searches


@dataclass(frozen=True)
class Point:
    """A position found on a curve with its uncertainty; `value` and `slope` of the curve there."""

    x: float
    sigma: float
    value: float
    slope: float


def zero_crossing(x: Array, y: Array, sigma: Array | None = None) -> Point:
    """Where a straight line through the readings crosses zero. Raises FitRefused when its slope is not significant."""
    centre = float(x.mean())
    fit = linear(np.stack([np.ones_like(x), x - centre], axis=1), y, sigma, absolute=sigma is not None)
    a, b = (float(v) for v in fit.parameters)
    if b == 0.0 or abs(b) < 3.0 * math.sqrt(fit.covariance[1, 1]):
        raise FitRefused(f"slope {b:.3g} is not significant: the reading does not respond to the output")
    g = np.array([-1.0 / b, a / b**2])
    return Point(centre - a / b, float(math.sqrt(g @ fit.covariance @ g)), 0.0, b)


# ---------------------------------------------------------------- photodiode amplifiers


def log_tia_current(volts: float, slope_v_per_decade: float, intercept_a: float) -> float:
    """Photocurrent (A) of a logarithmic transimpedance amplifier: V = slope log10(I / intercept)."""
    return float(intercept_a * 10.0 ** (volts / slope_v_per_decade))
