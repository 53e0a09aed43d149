"""Shapes that several procedures share: a heater fringe, a bias curve, a dither, a trim to zero."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping

import numpy as np

from calibration.context import CalibrationContext
from calibration.crosstalk import lagged_sum
from calibration.dither import bias_phase, harmonics, waveform
from calibration.fit import (
    Array,
    FitRefused,
    Fringe,
    Operating,
    Point,
    choose_power,
    fit_fringe,
    zero_crossing,
)
from calibration.names import HEATER_MONITOR
from calibration.noise import reading_noise

# Uneven against aliasing (reference control B2), as shares of the range.
UNEVEN = np.array([0.0, 0.09, 0.21, 0.36, 0.47, 0.63, 0.79, 0.97])
# The same, ordered so that the mean heater power, and with it the die's temperature, stays about constant.
ZIGZAG = np.array([4, 3, 5, 2, 6, 1, 7, 0])
# A heater at its middle power for this long: the die is then about as warm as it stays during the sweep.
WARM_S = 0.15
# The I-V read during a fringe may differ from the record by this much before it is another heater.
RESISTANCE_LIMIT = 0.02
# Balanced interferometers turn by 0.00 +- 0.02 deg/mK of die, hence rad per watt of heater sum, rms (pair A6.4).
DIE_RAD_PER_W = math.radians(0.02) / math.sqrt(3.0) * 1000.0
# Phase by which a modulator creeps between its dither and its record (reference pair A7), rad.
CREEP_RAD = 4e-4


def count_sigma(counts: Array) -> Array:
    """Poisson, never below one count."""
    return np.sqrt(np.maximum(counts, 1.0))


# ---------------------------------------------------------------- heaters


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

    The heater's own voltage is read along with each: I-V during the fringe, `heater_v` (V) and `heater_i` (A); `set_s`
    and `at_s` are the times of setting and reading.

    `ballast` names a heater that takes the rest of the range, so that their sum is constant (reference
    pair A6.3). The heaters are left at their last point: the caller sets what it found. Raises FitRefused when R(P) is
    not that of the record any more.
    """
    top = context.drive.max_power(channel)
    if ballast is not None:
        top = min(top, context.drive.max_power(ballast))
    powers = UNEVEN * top
    rows: dict[int, Mapping[str, float]] = {}
    await _prepare(context, channel, float(powers[ZIGZAG[0]]), ballast, top)
    try:
        for n, k in enumerate(ZIGZAG):
            await context.drive.set_power(channel, float(powers[k]))
            if ballast is not None:
                await context.drive.set_power(ballast, float(top - powers[k]))
            set_s = context.clock.monotonic()
            await context.sleep(context.settings.settle_s if settle_s is None else settle_s)
            began = context.clock.monotonic()
            row = await read()
            times = {"set_s": set_s, "at_s": 0.5 * (began + context.clock.monotonic())}
            rows[int(k)] = {**row, **times, **await _own_iv(context, channel)}
            done((n + 1) / len(powers))
    finally:
        await context.heaters.monitor(None)
    names = list(rows[0])
    seen = {name: np.array([rows[k][name] for k in range(len(powers))]) for name in names}
    _same_heater(context, channel, seen["heater_i"], seen["heater_v"])
    return powers, seen


async def _prepare(context: CalibrationContext, channel: str, middle_w: float, ballast: str | None, top: float) -> None:
    """The die at the temperature that it keeps, on average, during the sweep."""
    await context.heaters.monitor(channel)
    await context.drive.set_power(channel, middle_w if ballast is None else 0.0)
    if ballast is not None:
        await context.drive.set_power(ballast, top)
    await context.sleep(WARM_S if ballast is None else context.settings.die_settle_s)


async def _own_iv(context: CalibrationContext, channel: str) -> dict[str, float]:
    volts = (await context.adc.read_volts(context.settings.samples))[HEATER_MONITOR]
    return {
        "heater_v": volts * context.settings.heater_monitor_divider,
        "heater_i": context.heaters.current(channel),
    }


def _same_heater(context: CalibrationContext, channel: str, amperes: Array, volts: Array) -> None:
    """Raises FitRefused when the resistance of the sweep is not the record's."""
    law = context.drive.resistance(channel)
    # Below a third of the range the monitor's own noise would decide.
    at = np.flatnonzero(amperes > 0.3 * amperes.max())
    seen = volts[at] / amperes[at]
    known = np.array([law.r0_ohm * (1.0 + law.rho_per_w * law.power(float(i))) for i in amperes[at]])
    off = float(np.mean(seen / known - 1.0))
    noise = reading_noise(context).of(HEATER_MONITOR, context.settings.samples * len(at))
    limit = RESISTANCE_LIMIT + 5.0 * noise
    if abs(off) > limit:
        raise FitRefused(
            f"heater {channel!r}: {float(seen.mean()):.1f} ohm during the fringe, {off:+.1%} from its record; "
            f"the limit is {limit:.1%}"
        )


def heater_fringe(
    context: CalibrationContext,
    powers: Array,
    y: Array,
    sigma: Array,
    visibility_min: float,
    residual_max: float = 0.1,
    *,
    absolute: bool = True,
) -> Fringe:
    """Fit of a heater sweep within the P_pi range of the settings; sigma absolute, or a weight. Raises FitRefused."""
    low, high = context.settings.heater_p_pi_w
    return fit_fringe(
        powers,
        y,
        low,
        high,
        sigma=sigma,
        absolute=absolute,
        visibility_min=visibility_min,
        residual_max=residual_max,
    )


def die_power(powers: Array, seen: Mapping[str, Array]) -> Array:
    """Heater power as the die felt it at each reading of a sweep, W, in the order of the powers."""
    order = np.argsort(seen["set_s"])
    return lagged_sum(seen["set_s"][order], powers[order], seen["at_s"], float(powers[ZIGZAG[0]]))


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


# ---------------------------------------------------------------- modulators

BIAS_SHARES = 2.0 * np.array([0.0, 0.08, 0.19, 0.31, 0.40, 0.53, 0.62, 0.74, 0.87, 1.0]) - 1.0
DITHER_POINTS = 8


async def bias_sweep(
    context: CalibrationContext, channel: str, read: Callable[[], Awaitable[float]]
) -> tuple[Array, Array]:
    """(volts, readings) of a modulator over a little more than a period of its bias."""
    volts = context.settings.modulator_sweep_v * BIAS_SHARES
    y = np.zeros(len(volts))
    for k, v in enumerate(volts):
        await context.biases.set_voltage(channel, float(v))
        await context.settle()
        y[k] = await read()
    return volts, y


def nearest(roots: list[float], to: float = 0.0) -> float:
    """The root nearest to a value. Raises ValueError when there is none."""
    return min(roots, key=lambda r: abs(r - to))


async def dither_bias(
    context: CalibrationContext,
    channel: str,
    around_v: float,
    v_pi: float,
    read: Callable[[], Awaitable[float]],
    sigma_of: Callable[[Array], Array],
    *,
    kind: str,
    depth: float = 0.12,
    periods: int = 1,
    rounds: int = 2,
) -> tuple[Point, Array, Array]:
    """Bias to H1 = 0 at the extremum that the sign of H2 names (reference control B5); the bias is left there.

    `depth` is the dither's amplitude as a share of V_pi. Returns the point and the last round's volts and readings.
    Raises FitRefused when the dither is not seen or H2 says that it is the other extremum.
    """
    low, high = context.biases.limits(channel)
    wave = depth * v_pi * waveform(DITHER_POINTS, periods)
    at, found = around_v, None
    volts: Array = wave
    y = np.zeros(len(wave))
    for _ in range(rounds):
        at = min(max(at, low + depth * v_pi), high - depth * v_pi)
        volts = at + wave
        for k, v in enumerate(volts):
            await context.biases.set_voltage(channel, float(v))
            await context.settle()
            y[k] = await read()
        found = bias_phase(harmonics(y, sigma_of(y), DITHER_POINTS), math.pi * depth)
        if found.kind != kind:
            raise FitRefused(f"{channel} at {at:.2f} V: the second harmonic says {found.kind}, {kind} was expected")
        at -= found.rad * v_pi / math.pi
    assert found is not None
    at = min(max(at, low), high)
    await context.biases.set_voltage(channel, at)
    await context.settle()
    return Point(at, math.hypot(found.sigma, CREEP_RAD) * v_pi / math.pi, float(y.mean()), 0.0), volts, y
