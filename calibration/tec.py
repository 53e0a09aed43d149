"""The thermal plant of a module as its controller sees it: model, fit, relay analysis and tuning. Pure.

Model (reference control B4, pair A6): positive current cools;

    dx/dt = -s (I(t - dead) - I^2/(2 I_opt)) - a x + drift,   lag dy/dt = x - y

s is the slope at the set point (K/s per A), 1/a the plant's own time constant, lag the sensor's, dead the rest of the
delay. With a -> 0 it integrates, with lag 0 it is first order plus dead time. Any record of a piecewise constant
current is fitted as it was driven: a step, a ramp or a relay's limit cycle. A relay's period and amplitude are never
turned into an ultimate gain by 4d/(pi a): with hysteresis the oscillation sits at another frequency (B4's trap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from calibration.fit import Array, FitRefused, LeastSquares, gauss_newton, linear

ZERO_C = 273.15
# What a thermistor reading scatters by at least, K rms: smaller residuals are luck.
NOISE_K = 0.2e-3
# Share of the swing that the model itself may be off by: the sink follows, the gain falls with temperature.
MODEL_ERROR = 0.002
# A controller that converts ten times a second gives readings that are up to 0.1 s old, rms about their mean, s.
READING_AGE_S = 0.03
SLOPE_RANGE = (0.02, 10.0)
DELAY_RANGE_S = (0.02, 20.0)
CLAMP = 0.7
# What is known of 1/tau before anything is read, 1/s: no submount follows its sink within a few seconds.
LEAK_SIGMA = 0.02
PARAMETERS = ("slope_k_per_a_s", "leak_per_s", "dead_s", "lag_s")


@dataclass(frozen=True)
class TecPlant:
    """Slope (K/s per A, positive), leak a = 1/tau (1/s; may come out slightly negative for an integrating plant), dead
    time and lag (s). `covariance` (4, 4) over PARAMETERS; a lag that the readings do not show is 0 with no variance.
    `residual_rms` in K."""

    slope_k_per_a_s: float
    leak_per_s: float
    dead_s: float
    lag_s: float
    covariance: Array
    residual_rms: float
    residuals: tuple[float, ...] = ()

    @property
    def delay_s(self) -> float:
        """Effective dead time: the lag counted in full, which is the careful way (SIMC's half rule would take half)."""
        return self.dead_s + self.lag_s

    @property
    def tau_s(self) -> float:
        """inf when the readings do not tell the plant from an integrating one (three standard uncertainties)."""
        sigma = math.sqrt(max(0.0, float(self.covariance[1, 1])))
        return 1.0 / self.leak_per_s if self.leak_per_s > max(3.0 * sigma, 1e-6) else math.inf


@dataclass(frozen=True)
class Element:
    """The Peltier element by its voltage: V = R I + alpha (T_sink - T_object). `seebeck_v_per_k` None: the temperature
    difference was too small to tell."""

    ohm: float
    seebeck_v_per_k: float | None

    def optimum_a(self, object_c: float) -> float | None:
        """I_opt = alpha T_c / R (A), where more current begins to heat (reference control B4)."""
        return None if self.seebeck_v_per_k is None else self.seebeck_v_per_k * (object_c + ZERO_C) / self.ohm

    def clamp_a(self, object_c: float) -> float | None:
        """The largest current that a loop may use: 0.7 I_opt, so that its gain never changes sign."""
        optimum = self.optimum_a(object_c)
        return None if optimum is None else CLAMP * optimum


def pumped(amperes: Array, optimum_a: float | None) -> Array:
    """Current less what its own heat takes back: I - I^2/(2 I_opt)."""
    return amperes if optimum_a is None else np.asarray(amperes - amperes**2 / (2.0 * optimum_a))


def decayed(rate: float, t: Array) -> Array:
    """Integral of exp(-rate t') from 0 to t; t for a rate of 0."""
    x = rate * t
    small = np.abs(x) < 1e-9
    return np.asarray(t * np.where(small, 1.0 - x / 2.0, -np.expm1(-x) / np.where(small, 1.0, x)))


def response(leak: float, lag: float, t: Array) -> Array:
    """Response to a unit step at t = 0 of 1/((p + leak)(lag p + 1)); 0 before."""
    after = np.maximum(t, 0.0)
    if lag <= 1e-6:
        return decayed(leak, after)
    b = 1.0 / lag
    if abs(b - leak) < 1e-6 * b:
        b *= 1.0 + 1e-5
    return np.asarray(b / (b - leak) * (decayed(leak, after) - decayed(b, after)))


@dataclass(frozen=True)
class Drive:
    """The current as it was driven: from `at_s[k]` on it was `amperes[k]`; the first entry holds before, too."""

    at_s: Sequence[float]
    amperes: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.at_s) != len(self.amperes) or len(self.at_s) < 2:
            raise ValueError("a driven current needs at least one step")

    def shape(self, t: Array, leak: float, dead: float, lag: float, optimum_a: float | None) -> Array:
        """Temperature for a slope of 1 K/s per A and no drift, K; shape of t (n,)."""
        level = pumped(np.asarray(self.amperes, dtype=np.float64), optimum_a)
        out = np.zeros(len(t))
        for at, change in zip(self.at_s[1:], np.diff(level), strict=True):
            out -= change * response(leak, lag, t - at - dead)
        return out


def fit_plant(
    t: Array,
    y: Array,
    drive: Drive,
    optimum_a: float | None = None,
    *,
    noise_k: float = NOISE_K,
    leak_sigma: float = LEAK_SIGMA,
) -> TecPlant:
    """Fit the model to readings y (C) at t (s), both (n,). Raises FitRefused with what is wrong and its limit.

    The lag is kept only where it explains more than chance would: else the model is first order plus dead time.
    `leak_sigma`: how far the leak may be from 0 before anything is read, 1/s.
    """
    if len(t) < 12:
        raise FitRefused(f"{len(t)} readings of the temperature; 12 are needed")
    if not (np.diff(t) > 0.0).all() or not np.isfinite(y).all():
        raise FitRefused("the times of the readings do not ascend, or a reading is no number")
    swing = float(np.ptp(y))
    # One sigma for all: where the temperature turns it does not move, but when it turns is as uncertain as ever.
    aged = READING_AGE_S * float(np.sqrt(np.mean(np.gradient(y, t) ** 2)))
    sigma = np.full(len(t), math.sqrt(noise_k**2 + (MODEL_ERROR * swing / 3.0) ** 2 + aged**2))
    start = _start(t, y, drive, optimum_a)
    plain = _fit(t, y, drive, optimum_a, sigma, start, leak_sigma, lagged=False)
    try:
        full = _fit(t, y, drive, optimum_a, sigma, start, leak_sigma, lagged=True)
    except FitRefused:
        full = None
    dof = len(t) - 5
    lagged = (
        full is not None
        and full.parameters[3] > 0.0
        and plain.reduced_chi2 * dof - full.reduced_chi2 * (dof - 1) > 9.0 * max(1.0, full.reduced_chi2)
    )
    fit = full if full is not None and lagged else plain
    plant = _as_plant(t, y, drive, optimum_a, fit, lagged)
    _check(plant, max(0.02 * swing, 3.0 * float(sigma[0])))
    return plant


def _start(t: Array, y: Array, drive: Drive, optimum_a: float | None) -> Array:
    """(slope, leak, dead, lag, level, drift): the best of a grid of delays, the rest by linear least squares."""
    shortest = max(float(np.median(np.diff(t))), 1e-3)
    longest = max(float(t[-1] - drive.at_s[1]) / 2.0, 4.0 * shortest)
    best: tuple[float, Array] | None = None
    for delay, share, leak in product(np.geomspace(shortest / 2.0, longest, 24), (0.0, 0.4, 0.8), (1e-3, 0.01, 0.03)):
        dead, lag = float((1.0 - share) * delay), float(share * delay)
        shape = drive.shape(t, leak, dead, lag, optimum_a)
        try:
            fit = linear(np.stack([shape, np.ones_like(t), decayed(leak, t - t[0])], axis=1), y)
        except FitRefused:
            continue
        if best is None or fit.residual_rms < best[0]:
            s, level, drift = fit.parameters
            best = fit.residual_rms, np.array([s, leak, dead, max(lag, 0.2 * delay), level, drift])
    if best is None:
        raise FitRefused("the readings do not reach beyond the step of the current")
    return best[1]


def _fit(
    t: Array,
    y: Array,
    drive: Drive,
    optimum_a: float | None,
    sigma: Array,
    start: Array,
    leak_sigma: float,
    *,
    lagged: bool,
) -> LeastSquares:
    kept = [0, 1, 2, 3, 4, 5] if lagged else [0, 1, 2, 4, 5]
    first = start[kept]
    if not lagged:
        first[2] = start[2] + start[3] / 2.0

    def model(p: Array) -> Array:
        return np.append(_model(t, drive, optimum_a, p if lagged else np.insert(p, 3, 0.0)), p[1])

    # A few seconds say little about the leak: what is known of it before is one more reading.
    return gauss_newton(model, first, np.append(y, 0.0), np.append(sigma, leak_sigma), absolute=True)


def _model(t: Array, drive: Drive, optimum_a: float | None, p: Array) -> Array:
    s, leak, dead, lag, level, drift = (float(v) for v in p)
    # A search may step anywhere; the physics has no negative delay, and a plant that runs away has no record.
    leak, lag = min(max(leak, -0.2), 5.0), min(max(lag, 0.0), 1e3)
    return level + drift * decayed(leak, t - t[0]) + s * drive.shape(t, leak, dead, lag, optimum_a)


def _as_plant(t: Array, y: Array, drive: Drive, optimum_a: float | None, fit: LeastSquares, lagged: bool) -> TecPlant:
    p = fit.parameters if lagged else np.insert(fit.parameters, 3, 0.0)
    n = 4 if lagged else 3
    covariance = np.zeros((4, 4))
    # The model error is in sigma already; residuals larger than both make every uncertainty larger.
    covariance[:n, :n] = fit.covariance[:n, :n] * max(1.0, fit.reduced_chi2)
    rest = np.asarray(y - _model(t, drive, optimum_a, p))
    rms = float(np.sqrt(np.mean(rest**2)))
    slope, leak, dead, lag = (float(v) for v in p[:4])
    # A search may end a hair before the cause.
    return TecPlant(slope, leak, max(dead, 0.0), lag, covariance, rms, tuple(float(r) for r in rest))


def _check(plant: TecPlant, residual_max: float) -> None:
    low, high = SLOPE_RANGE
    if not low <= plant.slope_k_per_a_s <= high:
        raise FitRefused(f"slope {plant.slope_k_per_a_s:.3g} K/s per A; {low} to {high} is plausible")
    if not DELAY_RANGE_S[0] <= plant.delay_s <= DELAY_RANGE_S[1]:
        raise FitRefused(f"delay {plant.delay_s:.3g} s; {DELAY_RANGE_S[0]} to {DELAY_RANGE_S[1]} s is plausible")
    if plant.residual_rms > residual_max:
        raise FitRefused(
            f"residuals of {1e3 * plant.residual_rms:.1f} mK rms; {1e3 * residual_max:.1f} mK is the limit"
        )
    relative = math.sqrt(max(0.0, float(plant.covariance[0, 0]))) / plant.slope_k_per_a_s
    if relative > 0.1:
        raise FitRefused(f"slope uncertain by {100 * relative:.0f} %; the limit is 10 %")


def fit_element(current_a: Array, voltage_v: Array, difference_k: Array) -> Element | None:
    """R and alpha from the element's voltage, current and T_sink - T_object, all (n,); None when nothing can be told.

    alpha needs temperature differences of a kelvin at least.
    """
    if float(np.ptp(current_a)) < 0.05:
        return None
    told = float(np.abs(difference_k).max()) >= 1.0
    columns = [current_a, difference_k] if told else [current_a, np.ones_like(current_a)]
    try:
        fit = linear(np.stack(columns, axis=1), voltage_v)
    except FitRefused:
        return None
    ohm, other = (float(v) for v in fit.parameters)
    if ohm <= 0.0:
        return None
    return Element(ohm, other if told and other > 0.0 else None)


# ------------------------------------------------------------ tuning and relay


def simc(plant: TecPlant, tau_c_s: float | None = None) -> tuple[float, float]:
    """(kp in A/K, ti in s) after Skogestad's SIMC: Kc = 1/(s (tau_c + theta)), ti = min(tau, 4 (tau_c + theta)).

    tau_c = theta unless given ("tight" control, reference control B4): gain margin 3.1, phase margin 47 to 61 degrees,
    while a submount that is disturbed by heater steps comes back four times sooner than with tau_c = 3 theta.
    """
    theta = plant.delay_s
    closed = theta if tau_c_s is None else tau_c_s
    if closed <= 0.0:
        raise ValueError(f"tau_c {closed} s must be positive")
    return 1.0 / (plant.slope_k_per_a_s * (closed + theta)), min(plant.tau_s, 4.0 * (closed + theta))


def ultimate(plant: TecPlant) -> tuple[float, float]:
    """(period s, gain A/K) at which a proportional controller would just oscillate, from the model's exact phase."""
    low, high = 1e-6, math.pi / max(plant.delay_s, 1e-6) * 50.0

    def phase(w: float) -> float:
        return math.atan2(w, plant.leak_per_s) + math.atan(w * plant.lag_s) + w * plant.dead_s

    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if phase(middle) < math.pi else (low, middle)
    w = math.sqrt(low * high)
    gain = abs(complex(plant.leak_per_s, w)) * abs(complex(1.0, w * plant.lag_s)) / plant.slope_k_per_a_s
    return 2.0 * math.pi / w, gain


@dataclass(frozen=True)
class RelayPoint:
    """The plant at the frequency of a limit cycle: angular frequency (rad/s), gain (K/A), phase (rad)."""

    omega: float
    gain: float
    phase: float


def relay_point(amplitude_k: float, period_s: float, hysteresis_k: float, relay_a: float) -> RelayPoint:
    """What a limit cycle says about a plant, phase included: -1/N of a relay with hysteresis.

    The phase is -pi + asin(hysteresis/amplitude): only without hysteresis is this the ultimate point.
    """
    if not 0.0 <= hysteresis_k < amplitude_k or period_s <= 0.0 or relay_a <= 0.0:
        raise ValueError(f"no limit cycle: amplitude {amplitude_k} K, hysteresis {hysteresis_k} K")
    phase = -math.pi + math.asin(hysteresis_k / amplitude_k)
    return RelayPoint(2.0 * math.pi / period_s, math.pi * amplitude_k / (4.0 * relay_a), phase)


def naive_ultimate_gain(amplitude_k: float, relay_a: float) -> float:
    """4d/(pi a), the describing function without its phase: kept to show how wrong it is, never used for tuning."""
    return 4.0 * relay_a / (math.pi * amplitude_k)


def from_relay(amplitude_k: float, period_s: float, hysteresis_k: float, relay_a: float) -> tuple[float, float]:
    """(slope K/s per A, delay s) of an integrating plant with dead time from its limit cycle, exactly.

    The temperature is a triangle: it rises by 2a in half a period, and by a - hysteresis in the dead time.
    """
    if not 0.0 <= hysteresis_k < amplitude_k:
        raise ValueError(f"no limit cycle: amplitude {amplitude_k} K, hysteresis {hysteresis_k} K")
    slope = 4.0 * amplitude_k / (relay_a * period_s)
    return slope, (amplitude_k - hysteresis_k) / (slope * relay_a)
