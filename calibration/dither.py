"""Bias of a modulator from the harmonics of a dither (reference control B5): pure numerics.

P = P0/2 [1 + V cos theta] with theta = theta0 + m sin(wt) has the harmonics
H1 = -P0 V J1(m) sin theta0 and H2 = P0 V J2(m) cos theta0: their ratio gives theta0 whatever the power, the sign of H2
tells peak (positive) from null (negative).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from calibration.fit import Array, FitRefused


def waveform(points: int = 8, periods: int = 1) -> Array:
    """Unit sine over whole periods, `points` a period (at least 5: the second harmonic must not alias)."""
    if points < 5 or periods < 1:
        raise ValueError(f"{points} points in {periods} periods; 5 points and whole periods are needed")
    return np.sin(2.0 * math.pi * np.arange(points * periods) / points)


@dataclass(frozen=True)
class Harmonics:
    """y = mean + h1 sin(wt) + h2 cos(2wt) + ...; covariance over (h1, h2), in the unit of y squared."""

    mean: float
    h1: float
    h2: float
    covariance: Array


def harmonics(y: Array, sigma: Array, points: int = 8) -> Harmonics:
    """Lock-in over whole periods of `points` readings each; sigma absolute, shape as y.

    Raises ValueError for a broken period.
    """
    if len(y) == 0 or len(y) % points:
        raise ValueError(f"{len(y)} readings are not whole periods of {points}")
    t = 2.0 * math.pi * np.arange(len(y)) / points
    rows = np.stack([np.ones(len(y)), 2.0 * np.sin(t), 2.0 * np.cos(2.0 * t)]) / len(y)
    mean, h1, h2 = (float(v) for v in rows @ y)
    weighted = rows[1:] * np.asarray(sigma)
    return Harmonics(mean, h1, h2, weighted @ weighted.T)


def bessel(order: int, x: float) -> float:
    """J_n(x) by its integral over 64 points, exact to rounding for |x| < 20."""
    tau = math.pi * (np.arange(64) + 0.5) / 64
    return float(np.mean(np.cos(order * tau - x * np.sin(tau))))


@dataclass(frozen=True)
class BiasPhase:
    """Phase from the extremum that the bias is next to, rad, with its standard uncertainty; which extremum it is."""

    rad: float
    sigma: float
    kind: Literal["null", "peak"]


def bias_phase(h: Harmonics, depth_rad: float) -> BiasPhase:
    """Phase from the nearest null or peak; depth m = pi a / V_pi. Independent of power and visibility.

    Raises FitRefused when neither harmonic stands out of the noise by 5 sigma.
    """
    u, v = -h.h1 / bessel(1, depth_rad), h.h2 / bessel(2, depth_rad)
    scale = np.array([-1.0 / bessel(1, depth_rad), 1.0 / bessel(2, depth_rad)])
    covariance = h.covariance * np.outer(scale, scale)
    strength = max(abs(u) / math.sqrt(covariance[0, 0]), abs(v) / math.sqrt(covariance[1, 1]))
    if strength < 5.0:
        raise FitRefused(f"the dither is seen with {strength:.1f} sigma; 5 are needed")
    # u = A sin(theta), v = A cos(theta) with theta from the peak; a null is at pi.
    kind: Literal["null", "peak"] = "peak" if v >= 0.0 else "null"
    sign = 1.0 if kind == "peak" else -1.0
    g = np.array([v, -u]) / (u * u + v * v)
    return BiasPhase(math.atan2(sign * u, sign * v), float(math.sqrt(g @ covariance @ g)), kind)


def quadrature_error(h: Harmonics, depth_rad: float) -> tuple[float, float, int]:
    """(phase from quadrature, its sigma, both rad, sign of the slope dP/dtheta there): servo H2 -> 0.

    At quadrature H1 is largest and its sign tells the slope: positive H1 means that the power rises with the phase.
    Raises FitRefused when the dither is not seen.
    """
    u, v = -h.h1 / bessel(1, depth_rad), h.h2 / bessel(2, depth_rad)
    scale = np.array([-1.0 / bessel(1, depth_rad), 1.0 / bessel(2, depth_rad)])
    covariance = h.covariance * np.outer(scale, scale)
    if max(abs(u) / math.sqrt(covariance[0, 0]), abs(v) / math.sqrt(covariance[1, 1])) < 5.0:
        raise FitRefused("the dither is not seen: neither harmonic is 5 sigma")
    slope = 1 if h.h1 >= 0.0 else -1
    # theta = -pi/2 + e on the rising slope (u = -A cos e, v = A sin e), pi/2 + e on the falling one (u = A cos e,
    # v = -A sin e).
    g = np.array([v, -u]) / (u * u + v * v)
    return math.atan2(slope * v, -slope * u), float(math.sqrt(g @ covariance @ g)), slope


def extinction_limit_db(error_rad: float) -> float:
    """Extinction ratio that a bias error leaves of a perfect modulator: 1 degree 41 dB, 3.6 degrees 30 dB."""
    return -20.0 * math.log10(max(abs(math.tan(error_rad / 2.0)), 1e-12))
