"""Shapes that several procedures share: a heater fringe, a bias curve, a trim to zero."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Array, Fringe, Operating, Point, choose_power, extremum, fit_fringe, zero_crossing

# Uneven against aliasing (reference control B2), as shares of the range.
UNEVEN = np.array([0.0, 0.09, 0.21, 0.36, 0.47, 0.63, 0.79, 0.97])
# The same, ordered so that the mean heater power, and with it the die's temperature, stays about constant.
ZIGZAG = np.array([4, 3, 5, 2, 6, 1, 7, 0])
# Relative scatter of a photodiode reading and its floor as a share of the largest: only their ratio weighs.
DIODE_SCATTER = (0.005, 0.002)


def diode_sigma(y: Array) -> Array:
    """Weights for readings of a logarithmic amplifier: relative, with a floor so that a null does not take all."""
    return np.asarray(DIODE_SCATTER[0] * np.abs(y) + DIODE_SCATTER[1] * np.abs(y).max())


def count_sigma(counts: Array) -> Array:
    """Poisson, never below one count."""
    return np.sqrt(np.maximum(counts, 1.0))


async def heater_sweep(
    context: CalibrationContext,
    channel: str,
    read: Callable[[], Awaitable[Mapping[str, float]]],
    *,
    settle_s: float | None = None,
    ballast: str | None = None,
    done: Callable[[float], None] = lambda _: None,
) -> tuple[Array, dict[str, Array]]:
    """Read at 8 powers of one heater: powers ascending (W), readings by name in that order.

    `ballast` names a heater that takes the rest of the range, so that their sum is constant (reference pair A6.3).
    The heaters are left at their last point: the caller sets what it found.
    """
    top = context.drive.max_power(channel)
    if ballast is not None:
        top = min(top, context.drive.max_power(ballast))
        # The sum is constant from here on; the die needs its time to get there.
        await context.drive.set_power(channel, 0.0)
        await context.drive.set_power(ballast, top)
        await context.sleep(context.settings.die_settle_s)
    powers = UNEVEN * top
    rows: dict[int, Mapping[str, float]] = {}
    for n, k in enumerate(ZIGZAG):
        await context.drive.set_power(channel, float(powers[k]))
        if ballast is not None:
            await context.drive.set_power(ballast, float(top - powers[k]))
        await context.sleep(context.settings.settle_s if settle_s is None else settle_s)
        rows[int(k)] = await read()
        done((n + 1) / len(powers))
    names = list(rows[0])
    return powers, {name: np.array([rows[k][name] for k in range(len(powers))]) for name in names}


def heater_fringe(
    context: CalibrationContext,
    powers: Array,
    y: Array,
    sigma: Array,
    visibility_min: float,
    residual_max: float = 0.1,
) -> Fringe:
    """Fit of a heater sweep within the P_pi range of the settings. Raises FitRefused."""
    low, high = context.settings.heater_p_pi_w
    return fit_fringe(powers, y, low, high, sigma=sigma, visibility_min=visibility_min, residual_max=residual_max)


async def set_to_phase(context: CalibrationContext, channel: str, fringe: Fringe, target_rad: float) -> Operating:
    """Choose the least power with a phase and set it. Raises FitRefused when none is in reach."""
    chosen = choose_power(fringe, target_rad, context.drive.max_power(channel))
    await context.drive.set_power(channel, chosen.power_w)
    await context.settle()
    return chosen


async def trim_power(
    context: CalibrationContext,
    channel: str,
    around_w: float,
    span_w: float,
    imbalance: Callable[[], Awaitable[tuple[float, float]]],
    *,
    rounds: int = 2,
) -> Point:
    """Bring an imbalance (value, sigma) to zero by straight lines through three powers; the heater is left there.

    Raises FitRefused when the imbalance does not respond or its zero is more than three spans away.
    """
    top = context.drive.max_power(channel)
    at = around_w
    found = Point(at, math.inf, 0.0, 0.0)
    for r in range(rounds):
        span = span_w / (2.0**r)
        centre = min(max(at, span), top - span)
        x = centre + span * np.array([-1.0, 0.0, 1.0])
        y = np.zeros(3)
        s = np.zeros(3)
        for k in range(3):
            await context.drive.set_power(channel, float(x[k]))
            await context.settle()
            y[k], s[k] = await imbalance()
        found = zero_crossing(x, y, s)
        at = min(max(found.x, centre - 3 * span, 0.0), centre + 3 * span, top)
    await context.drive.set_power(channel, at)
    await context.settle()
    return Point(at, found.sigma, 0.0, found.slope)


async def bias_curve(
    context: CalibrationContext,
    channel: str,
    read: Callable[[], Awaitable[float]],
) -> tuple[Fringe, Array, Array]:
    """Sinusoid of a modulator against its bias over a little more than a period; y = A[1 + V cos(phi0 + pi v/V_pi)]."""
    low, high = context.settings.modulator_v_pi
    reach = context.settings.modulator_sweep_v
    volts = reach * (2.0 * np.array([0.0, 0.08, 0.19, 0.31, 0.40, 0.53, 0.62, 0.74, 0.87, 1.0]) - 1.0)
    y = np.zeros(len(volts))
    for k, v in enumerate(volts):
        await context.biases.set_voltage(channel, float(v))
        await context.settle()
        y[k] = await read()
    return fit_fringe(volts, y, low, high, sigma=diode_sigma(y), visibility_min=0.5), volts, y


def nearest(roots: list[float], to: float = 0.0) -> float:
    """The root nearest to a value. Raises ValueError when there is none."""
    return min(roots, key=lambda r: abs(r - to))


async def refine_bias(
    context: CalibrationContext,
    channel: str,
    around_v: float,
    span_v: float,
    read: Callable[[], Awaitable[float]],
    *,
    minimum: bool,
) -> tuple[Point, Array, Array]:
    """Parabola through 7 readings about an extremum; the bias is left there. Raises FitRefused."""
    low, high = context.biases.limits(channel)
    centre = min(max(around_v, low + span_v), high - span_v)
    volts = centre + span_v * np.linspace(-1.0, 1.0, 7)
    y = np.zeros(7)
    for k, v in enumerate(volts):
        await context.biases.set_voltage(channel, float(v))
        await context.settle()
        y[k] = await read()
    point = extremum(volts, y, minimum=minimum)
    await context.biases.set_voltage(channel, point.x)
    await context.settle()
    return point, volts, y
