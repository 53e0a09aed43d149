"""Readings and fringes behind the receiver's balanced elements: basis splitter, input and output coupler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import hypot, pi, sqrt

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Array, FitRefused, LeastSquares, added, gauss_newton, judged
from calibration.names import HEATERS
from calibration.noise import power_variants
from calibration.procedures.sweeps import DIE_RAD_PER_W, die_power
from calibration.procedures.tags import count_bins
from calibration.receiver_optics import Reading

READ_S = 0.1
X0, X1 = 2, 3
# Phases wander, and neighbours turn along, by this from point to point, rad.
MODEL_RAD = 1.5e-3


async def read_bins(context: CalibrationContext, seconds: float = READ_S, state: int = X0) -> Reading:
    """Clicks by bin with X light, which must be on."""
    bins = await count_bins(context, seconds, state)
    return Reading.of(bins.dz, bins.dx)


def readings(seen: Mapping[str, Array]) -> list[Reading]:
    """A sweep's readings, from the rows that `Reading.row` gave."""
    names = [n for n in seen if n[0] in "zx" and n[1:].isdigit()]
    return [Reading.from_row({n: float(seen[n][k]) for n in names}) for k in range(len(seen[names[0]]))]


@dataclass(frozen=True)
class Turn:
    """A fitted element: y = shape(own parameters, phase), phase = phi0 + pi P/P_pi + c (die - die at `power_w`).

    Parameters are (shape's own..., phi0_rad, p_pi_w); `covariance` in true watts, with R(P) (for the record), `drive`
    in the drive's own. `slope` rad/W with the die settled. Residuals in the unit of y.
    """

    parameters: Array
    covariance: Array
    drive: Array
    slope: float
    residuals: Array
    reduced_chi2: float

    @property
    def phi0_rad(self) -> float:
        return float(self.parameters[-2])

    @property
    def p_pi_w(self) -> float:
        return float(self.parameters[-1])

    @property
    def residual_rms(self) -> float:
        return float(np.sqrt(np.mean(self.residuals**2)))

    def phase(self, watts: float) -> float:
        return self.phi0_rad + pi * watts / self.p_pi_w

    def power_sigma(self, watts: float) -> float:
        """Standard uncertainty of a power with a wanted phase, as the drive is told it, W."""
        g = np.zeros(len(self.parameters))
        g[-2:] = 1.0, -pi * watts / self.p_pi_w**2
        return sqrt(max(0.0, float(g @ self.drive @ g))) / abs(self.slope)


def fit_turn(
    context: CalibrationContext,
    channel: str,
    powers: Array,
    seen: dict[str, Array],
    shape: Callable[[Array, Array], Array],
    start: Array,
    y: Array,
    sigma: Array,
    power_w: float,
    *,
    variants: Iterable[Array] = (),
    prior: tuple[int, float, float] | None = None,
) -> Turn:
    """Fit of a heater's sweep. shape(own parameters, phase (k,)) -> y; start: own parameters, phi0, P_pi.

    A balanced element feels the die by 0.00 +- 0.02 deg/mK (pair A6.4), which is fitted along within that; `power_w` is
    where the heater ends. variants: y with a part that all readings share one sigma off; prior: (index, value, sigma)
    of one of the shape's own parameters. Raises FitRefused.
    """
    felt = die_power(powers, seen) - power_w
    own = len(start) - 2

    def model(q: Array, x: Array) -> Array:
        return shape(q[:own], q[own] + pi * x / q[own + 1] + q[own + 2] * felt)

    step = 1e-4 * np.eye(own + 3)[own]
    at = np.append(start, 0.0)
    gain = (model(at + step, powers) - model(at - step, powers)) / 2e-4
    noise = np.hypot(sigma, MODEL_RAD * gain)

    def solved(yy: Array, x: Array) -> LeastSquares:
        def scaled(q: Array) -> Array:
            extra = [q[own + 2] / DIE_RAD_PER_W] + ([(q[prior[0]] - prior[1]) / prior[2]] if prior else [])
            return np.concatenate([model(q, x) / noise, extra])

        wanted = np.concatenate([yy / noise, np.zeros(2 if prior else 1)])
        return gauss_newton(scaled, at, wanted, np.ones(len(wanted)), absolute=True)

    fit = judged(solved(y, powers), f"fringe of {channel}", bounded=True)
    q = fit.parameters
    whole = fit.covariance + added(lambda v: solved(v, powers).parameters, y, variants)
    bent = [solved(y, x).parameters - q for x in power_variants(context, channel, powers)]
    true_watts = sum((np.outer(b, b) for b in bent), np.zeros_like(whole))
    # R(P) of another curvature bends the fringe; a mere factor does not move a power that the drive is told.
    k = own + 2
    low, high = context.settings.heater_p_pi_w
    if not low <= q[own + 1] <= high:
        raise FitRefused(
            f"heater {channel!r}: half period {q[own + 1] * 1e3:.1f} mW is outside {low * 1e3:.0f} to {high * 1e3:.0f}"
        )
    turned = q[:k].copy()
    turned[own] = (turned[own] + pi) % (2.0 * pi) - pi
    return Turn(
        turned,
        (whole + true_watts)[:k, :k],
        whole[:k, :k],
        float(pi / q[own + 1] + q[own + 2]),
        fit.residuals[: len(y)] * noise,
        fit.reduced_chi2,
    )


def nearest_root(turn: Turn, targets: Iterable[float], top_w: float, near_w: float | None = None) -> tuple[float, int]:
    """(W, fringe order) of the place with one of the phases: next to `near_w`, else least power with 10 % margins.

    An individual that needs more power gets 5 %, then 2 %. Raises FitRefused when none is within the rails.
    """
    for margin in (0.1, 0.05, 0.02) if near_w is None else (0.02,):
        found: list[tuple[float, int]] = []
        for target in targets:
            for order in range(-6, 7):
                power = (target + 2.0 * pi * order - turn.phi0_rad) * turn.p_pi_w / pi
                if margin * top_w <= power <= (1.0 - margin) * top_w:
                    found.append((power, order))
        if found:
            return min(found, key=lambda f: f[0] if near_w is None else abs(f[0] - near_w))
    raise FitRefused(
        f"no power within the rails has the wanted phase: half period {turn.p_pi_w * 1e3:.1f} mW in "
        f"{top_w * 1e3:.0f} mW"
    )


def meanwhile(context: CalibrationContext, channel: str) -> dict[str, float]:
    """Powers of the other heaters, as they are now: with_<heater>_w."""
    return {f"with_{n}_w": context.drive.power(n) for n in HEATERS[context.side] if n != channel}


async def to_zero(
    context: CalibrationContext,
    channel: str,
    law: Callable[[Reading], tuple[float, float]],
    offset: float,
    slope_per_w: float,
    seconds: float,
) -> tuple[float, float, float]:
    """One Newton step of a heater to law = offset: (power W, its sigma W, law before less offset).

    Raises FitRefused when the step would be more than 15 degrees: that is no trim.
    """
    at = context.drive.power(channel)
    value, sigma = law(await read_bins(context, seconds))
    error = value - offset
    power = at - error / slope_per_w
    if not 0.0 <= power <= context.drive.max_power(channel) or abs(error) > 0.5:
        raise FitRefused(
            f"heater {channel!r}: the logarithm of its ratio is {error:+.3f} off at {at * 1e3:.2f} mW; 0.5 is the limit"
        )
    await context.drive.set_power(channel, power)
    await context.settle()
    # The slope, known to some per cent, matters as far as the step is long.
    return power, hypot(sigma, 0.05 * error) / abs(slope_per_w), error
