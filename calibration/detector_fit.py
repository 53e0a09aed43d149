"""Pure numerics of detector calibrations: the plateau in light and the growth of dark counts with bias."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibration.fit import PI, Array, FitRefused, gauss_newton, judged

_erf = np.vectorize(math.erf, otypes=[np.float64])


# Largest relative slope of a plateau, 1/uA (reference control B8).
SLOPE_MAX = 0.01
# A chosen bias this many widths above the centre is saturated to 0.1 %.
PLATEAU_WIDTHS = 2.2
# Intrinsic darks grow by a factor e in this much bias (reference pair A7).
DARK_E_FOLD_A = 1.1e-6


@dataclass(frozen=True)
class Plateau:
    """rate = top/2 (1 + erf((I - centre)/width)); A and counts/s. Covariance over (top, centre_a, width_a)."""

    top: float
    centre_a: float
    width_a: float
    covariance: Array
    residuals: Array
    residual_rms: float

    def relative(self, bias_a: float) -> float:
        """Share of the saturated rate at a bias."""
        return 0.5 * (1.0 + math.erf((bias_a - self.centre_a) / self.width_a))

    def slope_per_ua(self, bias_a: float) -> float:
        """Relative slope at a bias, 1/uA."""
        z = (bias_a - self.centre_a) / self.width_a
        return math.exp(-z * z) / (math.sqrt(PI) * self.width_a * self.relative(bias_a)) * 1e-6

    def choose(self) -> float:
        """A: far enough up for a slope within SLOPE_MAX."""
        bias = self.centre_a + PLATEAU_WIDTHS * self.width_a
        while self.slope_per_ua(bias) > SLOPE_MAX:
            bias += 0.05 * self.width_a
        return bias


def fit_plateau(bias_a: Array, rate: Array, sigma: Array, light_share: float = 0.0) -> Plateau:
    """Error-function plateau (reference control B8); sigma: of counting, counts/s; light_share: by which the light may
    wander from point to point, relative.

    Raises FitRefused: too few points, no light, a scatter beyond chance, or a rate that still rises at the last point.
    """
    if len(bias_a) < 6:
        raise FitRefused(f"{len(bias_a)} bias points; 6 are needed")
    u = bias_a * 1e6
    start = np.array(plateau_start(bias_a, rate, sigma))

    def model(p: Array) -> Array:
        return np.asarray(p[0] * 0.5 * (1.0 + _erf((u - p[1]) / p[2])))

    # The noise of a count is that of what is expected: few counts by chance are not better known than many.
    start = gauss_newton(model, start, rate, sigma).parameters
    expected = np.maximum(model(start), 0.0)
    variance = np.square(sigma) / np.maximum(rate, sigma)
    noise = np.hypot(np.sqrt(np.maximum(expected * variance, 0.25 * sigma**2)), light_share * expected)
    fit = gauss_newton(model, start, rate, noise, absolute=True)
    t, c, w = (float(v) for v in fit.parameters)
    scale = np.diag([1.0, 1e-6, 1e-6])
    last = float(bias_a.max())
    plateau = Plateau(t, c * 1e-6, abs(w) * 1e-6, scale @ fit.covariance @ scale, fit.residuals, fit.residual_rms)
    # What has not been seen to end is no plateau, whatever the curve through it says.
    if t <= 0 or plateau.slope_per_ua(last) > 5.0 * SLOPE_MAX:
        raise FitRefused(
            f"no plateau up to {last * 1e6:.1f} uA: the rate still rises by {_rise(bias_a, rate):.1%} per uA; "
            f"{SLOPE_MAX:.0%} is the limit"
        )
    judged(fit, "plateau")
    return plateau


def _rise(bias_a: Array, rate: Array) -> float:
    """Relative slope from the middle to the last point, 1/uA."""
    order = np.argsort(bias_a)
    first, last = order[len(order) // 2], order[-1]
    step = max(float(bias_a[last] - bias_a[first]) * 1e6, 1e-3)
    return float(rate[last] - rate[first]) / step / max(0.5 * float(rate[last] + rate[first]), 1e-9)


def plateau_start(bias_a: Array, rate: Array, sigma: Array) -> tuple[float, float, float]:
    """(top counts/s, centre uA, width uA) of the best curve on a grid. Raises FitRefused without counts."""
    u = bias_a * 1e6
    centre, width = (g.ravel() for g in np.meshgrid(np.linspace(u.min(), u.max(), 41), np.geomspace(0.3, 8.0, 12)))
    shape = 0.5 * (1.0 + _erf((u[None, :] - centre[:, None]) / width[:, None])) / sigma
    norm = np.maximum(np.sum(shape**2, axis=1), 1e-300)
    top = shape @ (rate / sigma) / norm
    cost = np.sum((rate / sigma - top[:, None] * shape) ** 2, axis=1)
    best = int(cost.argmin())
    if top[best] <= 0.0:
        raise FitRefused("no counts at any bias")
    return float(top[best]), float(centre[best]), float(width[best])


@dataclass(frozen=True)
class Darks:
    """rate = follow f(I) + intrinsic exp((I - reference_a)/e_fold), counts/s; f is the plateau's share.

    Covariance over (follow, intrinsic).
    """

    follow: float
    intrinsic: float
    reference_a: float
    plateau: Plateau
    covariance: Array

    def _parts(self, bias_a: float) -> Array:
        return np.array(
            [self.plateau.relative(bias_a), math.exp(min(40.0, (bias_a - self.reference_a) / DARK_E_FOLD_A))]
        )

    def rate(self, bias_a: float) -> float:
        return float(self._parts(bias_a) @ np.array([self.follow, self.intrinsic]))

    def sigma(self, bias_a: float) -> float:
        g = self._parts(bias_a)
        return math.sqrt(max(0.0, float(g @ self.covariance @ g)))


def fit_darks(bias_a: Array, counts: Array, seconds: Array, plateau: Plateau) -> Darks:
    """Both parts of the dark counts, neither negative, by maximum likelihood (reference control B8, pair A7).

    The fibre's own glow follows the efficiency, the rest is exponential in bias. counts (n,) in seconds (n,).
    """
    reference = float(bias_a.max())
    shapes = np.stack(
        [
            np.array([plateau.relative(float(b)) for b in bias_a]),
            np.exp((bias_a - reference) / DARK_E_FOLD_A),
        ]
    ) * np.asarray(seconds)
    # Half a count that was not seen keeps a silent detector off zero.
    seen = np.asarray(counts, dtype=np.float64) + 0.5 / len(counts)
    p = np.full(2, seen.sum() / shapes.sum())
    for _ in range(300):
        p = p * (shapes @ (seen / (p @ shapes))) / shapes.sum(axis=1)
    expected = p @ shapes
    information = (shapes / expected) @ shapes.T
    return Darks(float(p[0]), float(p[1]), reference, plateau, np.linalg.pinv(information))
