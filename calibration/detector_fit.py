"""Pure numerics of detector calibrations: the plateau in light and the growth of dark counts with bias."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibration.fit import PI, Array, FitRefused, gauss_newton

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Plateau:
    """rate = top/2 (1 + erf((I - centre)/width)); A and counts/s. Covariance over (top, centre_a, width_a)."""

    top: float
    centre_a: float
    width_a: float
    covariance: Array
    residual_rms: float

    def relative(self, bias_a: float) -> float:
        """Share of the saturated rate at a bias."""
        return 0.5 * (1.0 + math.erf((bias_a - self.centre_a) / self.width_a))

    def slope_per_ua(self, bias_a: float) -> float:
        """Relative slope at a bias, 1/uA."""
        z = (bias_a - self.centre_a) / self.width_a
        return math.exp(-z * z) / (math.sqrt(PI) * self.width_a * self.relative(bias_a)) * 1e-6


def fit_plateau(bias_a: Array, rate: Array, sigma: Array) -> Plateau:
    """Error-function plateau (reference control B8). Raises FitRefused: too few points, no light, or no plateau."""
    if len(bias_a) < 6:
        raise FitRefused(f"{len(bias_a)} bias points; 6 are needed")
    u = bias_a * 1e6
    top, centre, width = _plateau_start(u, rate, sigma)
    fit = gauss_newton(
        lambda p: p[0] * 0.5 * (1.0 + _erf((u - p[1]) / p[2])), np.array([top, centre, width]), rate, sigma
    )
    t, c, w = (float(v) for v in fit.parameters)
    scale = np.diag([1.0, 1e-6, 1e-6])
    plateau = Plateau(t, c * 1e-6, abs(w) * 1e-6, scale @ fit.covariance @ scale, fit.residual_rms)
    reached = (float(u.max()) - c) / abs(w)
    if t <= 0 or reached < 1.2:
        raise FitRefused(
            f"no plateau up to {u.max():.1f} uA: the rate is still rising by "
            f"{plateau.slope_per_ua(float(bias_a.max())):.1%} per uA"
        )
    return plateau


def _plateau_start(u: Array, rate: Array, sigma: Array) -> tuple[float, float, float]:
    best = (math.inf, 0.0, 0.0, 1.0)
    for centre in np.linspace(u.min(), u.max(), 41):
        for width in np.geomspace(0.3, 8.0, 12):
            shape = 0.5 * (1.0 + _erf((u - centre) / width)) / sigma
            norm = float(shape @ shape)
            if norm <= 0.0:
                continue
            top = float(shape @ (rate / sigma)) / norm
            cost = float(np.sum((rate / sigma - top * shape) ** 2))
            if cost < best[0]:
                best = (cost, top, float(centre), float(width))
    if best[1] <= 0.0:
        raise FitRefused("no counts at any bias")
    return best[1], best[2], best[3]


@dataclass(frozen=True)
class DarkRate:
    """rate = at_reference exp((I - reference_a)/e_fold_a), counts/s. Covariance over (ln at_reference, 1/e_fold_a)."""

    at_reference: float
    reference_a: float
    e_fold_a: float
    covariance: Array

    def rate(self, bias_a: float) -> float:
        return self.at_reference * math.exp((bias_a - self.reference_a) / self.e_fold_a)


def fit_dark_rate(bias_a: Array, counts: Array, seconds: float) -> DarkRate:
    """Exponential dark counts (reference control B8) by Poisson maximum likelihood; counts (n,) in `seconds` each.

    Raises FitRefused when there are fewer than 10 counts in all or fewer than 2 points.
    """
    if len(counts) < 2 or counts.sum() < 10:
        raise FitRefused(f"{int(counts.sum())} dark counts at {len(counts)} points; at least 10 at 2 points are needed")
    reference = float(bias_a.mean())
    design = np.stack([np.ones_like(bias_a), (bias_a - reference) * 1e6], axis=1)
    p = np.array([math.log(float(counts.mean())), 0.0])
    for _ in range(50):
        expected = np.exp(np.clip(design @ p, -20.0, 40.0))
        information = design.T @ (design * expected[:, None])
        step = np.linalg.solve(information, design.T @ (counts - expected))
        p = p + np.clip(step, -2.0, 2.0)
        if float(np.abs(step).max()) < 1e-9:
            break
    slope = float(p[1])
    e_fold = 1e-6 / slope if abs(slope) > 1e-3 else math.copysign(1e-3, slope or 1.0)
    scale = np.diag([1.0, 1e6])
    covariance = scale @ np.linalg.inv(information) @ scale
    return DarkRate(math.exp(float(p[0])) / seconds, reference, e_fold, covariance)
