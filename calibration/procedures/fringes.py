"""A heater fringe with all of its uncertainty: noise, amplifier, the die's warming, and R(P)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import pi

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Array, Fringe, LeastSquares, added, fit_fringe, gauss_newton, judged, refine_fringe
from calibration.noise import amplifier_variants, power_variants
from calibration.procedures.light import must_live, reader, sigma_of
from calibration.procedures.sweeps import DIE_RAD_PER_W, bias_sweep, die_power, heater_fringe, nearest

# Drive amplitudes as shares of V_pi: none, and both sides of the peak that they bracket.
RF_SHARES = (0.0, 0.35, 0.55, 0.78, 0.95, 1.15, 1.35)
# What phases wander and lag by that the model does not have, rad.
MODEL_RAD = 1e-3
NAMES = ("offset_a", "visibility", "phi0_rad", "p_pi_w")


@dataclass(frozen=True)
class Measured:
    """`fringe` in the drive's watts, its covariance with everything but R(P); `covariance` with that, too.

    The drive believes in its watts, and a power that it is told is not touched by an error of R(P); P_pi in true watts
    is.
    """

    fringe: Fringe
    covariance: Array
    powers: Array
    bent: tuple[tuple[Array, Array], ...]

    @property
    def value(self) -> dict[str, float]:
        f = self.fringe
        found = dict(zip(NAMES, f.parameters.tolist(), strict=True))
        return found | {"reduced_chi2": f.reduced_chi2}

    def power_sigma(self, watts: float) -> float:
        """Standard uncertainty of a power at which the phase is a wanted one, W, as the drive is told it.

        An R(P) of another curvature bends the fringe.
        """
        phase = self.fringe.phase(watts)
        bent = [float(np.interp((phase - q[2]) * q[3] / pi, true, self.powers)) - watts for true, q in self.bent]
        return float(np.hypot(self.fringe.sigma_phase(watts) * self.fringe.x_pi / pi, np.linalg.norm(bent)))


def measure(
    context: CalibrationContext,
    channel: str,
    powers: Array,
    seen: Mapping[str, Array],
    y: Array,
    sigma: Array,
    visibility_min: float,
    variants: Iterable[Array] = (),
) -> Measured:
    """Fit of a sweep. sigma absolute, shape as y; seen: the sweep's times; variants: y with a part that all readings
    share one sigma off.

    A balanced element feels the die's warming by 0.00 +- 0.02 deg/mK (pair A6.4): its lagged course during the sweep is
    fitted along, within that. phi0 is that at the end of the sweep. Raises FitRefused.
    """
    rough = heater_fringe(context, powers, y, sigma + 0.02 * float(np.abs(y).max()), visibility_min, absolute=False)
    felt = die_power(powers, seen)
    felt = felt - felt[np.argmax(seen["at_s"])]
    slope = rough.offset * rough.visibility * np.sin(rough.phi0_rad + pi * powers / rough.x_pi)
    sigma = np.hypot(sigma, MODEL_RAD * slope)

    def solved(yy: Array, x: Array) -> LeastSquares:
        def model(q: Array) -> Array:
            turn = q[2] + pi * x / q[3] + q[4] * felt
            return np.append(q[0] * (1.0 + q[1] * np.cos(turn)) / sigma, q[4] / DIE_RAD_PER_W)

        start = np.append(rough.parameters, 0.0)
        return gauss_newton(model, start, np.append(yy / sigma, 0.0), np.ones(len(yy) + 1), absolute=True)

    fit = judged(solved(y, powers), "fringe", bounded=True)
    q = fit.parameters
    whole = fit.covariance + added(lambda v: solved(v, powers).parameters, y, variants)
    bent = [(x, solved(y, x).parameters) for x in power_variants(context, channel, powers)]
    true_watts = sum((np.outer(p - q, p - q) for _, p in bent), np.zeros((5, 5)))
    residuals = fit.residuals[:-1] * sigma
    offset, visibility, phi0, x_pi = (float(v) for v in q[:4])
    fringe = Fringe(
        offset,
        visibility,
        phi0,
        x_pi,
        whole[:4, :4],
        float(np.sqrt(np.mean(residuals**2))),
        residuals,
        fit.reduced_chi2,
        fit.dof,
    )
    return Measured(fringe, whole[:4, :4] + true_watts[:4, :4], powers, tuple(bent))


def block(*sigmas: float) -> Array:
    """Independent values as a block of a covariance, (n, n)."""
    return np.diag(np.square(sigmas))


@dataclass(frozen=True)
class BiasCurve:
    """A modulator's sinusoid against its bias with its whole covariance, and the readings behind it."""

    fringe: Fringe
    volts: Array
    y: Array

    @property
    def extinction(self) -> tuple[float, float]:
        """(least over largest power, its standard uncertainty)."""
        v = self.fringe.visibility
        return (1.0 - v) / (1.0 + v), 2.0 / (1.0 + v) ** 2 * float(np.sqrt(self.fringe.covariance[1, 1]))

    @property
    def v_pi_sigma(self) -> float:
        return float(np.sqrt(self.fringe.covariance[3, 3]))


async def measure_bias(
    context: CalibrationContext, procedure: str, channel: str, diode: str, witness: str
) -> BiasCurve:
    """A modulator's y = A[1 + V cos(phi0 + pi v/V_pi)] on a diode, the amplifier's law in the covariance.

    Raises FitRefused, or CalibrationRefused for a diode that sees nothing although `witness` says that there is light.
    """
    volts, y = await bias_sweep(context, channel, reader(context, diode))
    must_live(procedure, diode, y, witness)
    sigma = sigma_of(context, diode)(y)
    low, high = context.settings.modulator_v_pi
    fringe = fit_fringe(volts, y, low, high, sigma=sigma, visibility_min=0.5)

    def by_y(v: Array) -> Array:
        return refine_fringe(fringe, volts, v, sigma).parameters

    common = added(by_y, y, amplifier_variants(context, diode, y))
    return BiasCurve(replace(fringe, covariance=fringe.covariance + common), volts, y)


async def measure_drive(
    context: CalibrationContext, v_pi: float, diode: str, write: Callable[[float], Awaitable[None]]
) -> tuple[Fringe, float, float, Array, Array]:
    """Peak of a pulse against its RF amplitude: (fringe, peak V, its sigma V, amplitudes, readings).

    Undriven the modulator is at its null, which is the first reading. Raises FitRefused.
    """
    amplitudes, seen = v_pi * np.array(RF_SHARES), np.zeros(len(RF_SHARES))
    read = reader(context, diode)
    for k, a in enumerate(amplitudes):
        await write(float(a))
        await context.settle()
        seen[k] = await read()
    low, high = 0.7 * v_pi, 1.4 * v_pi
    fringe = fit_fringe(amplitudes, seen, low, high, sigma=sigma_of(context, diode)(seen), visibility_min=0.2)
    peak = nearest(fringe.roots(0.0, 0.5 * v_pi, 1.6 * v_pi), v_pi)
    return fringe, peak, fringe.sigma_phase(peak) * fringe.x_pi / pi, amplitudes, seen
