"""Phase of the transmitter's unbalanced interferometer against its heater."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, pi, sin, sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.crosstalk import NEAR_SHARE, REACH, SUBMOUNT_J_PER_K, stored_heat
from calibration.fit import Array, LeastSquares, added, gauss_newton, judged
from calibration.noise import power_variants
from calibration.plot import Figure
from calibration.procedure import Procedure, Raw
from calibration.procedures.figures import curve, sinusoid
from calibration.procedures.light import SAMPLES, ratio_sigma, shine
from calibration.procedures.sweeps import ZIGZAG, die_power, heater_fringe, heater_sweep
from calibration.record import Record, as_matrix
from drivers.roles import LightMode

# 0.70 deg/mK of die, 1.0 mK per mW of heater sum: material and mount, no spread of individuals (pair A6.3, A6.4, A7).
DIE_RAD_PER_W = 0.70 * pi / 180.0 * 1000.0
DIE_RELATIVE = 0.01
# The submount still swings by some mK after the heaters of the steps before, until the controller has taken their heat
# away (pair A6.6): rad/s and rad/s^2 of this phase, rms.
DRIFT_RAD = (0.15, 0.1)
# The laser wanders by 30 MHz in 200 s, and this light interferes with a delay of 800 ps: 0.29 deg/MHz (pair A2, A7).
WALK_RAD_PER_ROOT_S = 30e6 * sqrt(2.0 / 200.0) * 2.0 * pi * 800e-12
# Standard uncertainties of c, the drift and its change before the sweep.
PRIOR = np.array([DIE_RELATIVE * DIE_RAD_PER_W, *DRIFT_RAD])
# Die at constant heat, 0.66 mK rms (pair A6.6), half of it faster than the drift above.
WANDER_RAD = 0.33 * 0.70 * pi / 180.0
# The heater's crosstalk on the coupler lowers the contrast by this at the ends of the sweep.
CONTRAST = 0.003
# A part of what the die has not followed yet is uncertain: its lag is known to a tenth or so.
LAG_SHARE = 0.1


class AmziPhase(Procedure):
    """A2 fringe on PA1 over PA0 in CW light with C at its peak (reference pair A2).

    Only phi_A - phi_B matters, so the heater is put well inside its range. The die warms with the heater, 0.70 deg/mK
    (pair A6.3): its lag is in the model, so that P_pi is the heater's own; a second heater as a ballast would bring
    its crosstalk in instead.
    """

    name: ClassVar[str] = "amzi_phase"
    needs: ClassVar[tuple[str, ...]] = ("carver_bias", "amzi_split")
    cost_s: ClassVar[float] = 2.8
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = (
        "I(pa1) / I(pa0) = ratio [1 + visibility cos(phi0 + pi P / P_pi + c d)], d: P through the die's lag"
    )

    async def calibrate(self, context: CalibrationContext) -> Record:
        carver = context.record("carver_bias").value
        await context.biases.set_voltage("carver", carver["peak_v"])
        await shine(context, LightMode.CW)
        power = context.settings.alice_phase_share * context.drive.max_power("phase")

        async def row() -> dict[str, float]:
            return await context.photocurrents("pa1", "pa0", samples=SAMPLES)

        try:
            powers, seen = await heater_sweep(
                context,
                "phase",
                row,
                settle_s=context.settings.die_settle_s,
                done=lambda f: self.report(context, f),
            )
        finally:
            await context.biases.set_voltage("carver", carver["null_v"])
        await context.drive.set_power("phase", power)
        await context.sleep(context.settings.die_settle_s)
        sweep = _Sweep(context, powers, seen, power, context.clock.monotonic())
        fit, covariance = sweep.solved()
        p = fit.parameters
        value = {
            "ratio": float(p[0]),
            "visibility": float(p[1]),
            "phi0_rad": float(p[2]),
            "p_pi_w": float(p[3]),
            "die_rad_per_w": float(p[4]),
            "power_w": power,
            "reduced_chi2": fit.reduced_chi2,
        }
        return await self.make_record(
            context,
            value,
            {"power_w": powers, "felt_w": sweep.felt + sweep.stored, **seen},
            names=("visibility", "phi0_rad", "p_pi_w"),
            covariance=as_matrix(covariance[1:4, 1:4] + np.diag([CONTRAST**2, 0.0, 0.0])),
            residual_rms=fit.residual_rms,
            residuals=fit.residuals.tolist(),
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power("phase", record.value["power_w"])
        await context.settle()

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        v, y = record.value, np.asarray(raw["pa1"]) / np.asarray(raw["pa0"])
        # As a power that turns the phase as the heater and the die together did.
        x = np.asarray(raw["power_w"]) + v["die_rad_per_w"] * v["p_pi_w"] / pi * np.asarray(raw["felt_w"])
        model = sinusoid(v["ratio"], v["visibility"], v["phi0_rad"], v["p_pi_w"])
        label = "photocurrent pa1 / pa0 (1)"
        return [
            curve("Unbalanced interferometer", "heater power and the die's part (mW)", label, x, y, model, x_scale=1e3)
        ]


class _Sweep:
    """Readings of one sweep and the fit of the law above; `felt` is the die's power less what it feels at `end_s`."""

    def __init__(
        self, context: CalibrationContext, powers: Array, seen: dict[str, Array], final_w: float, end_s: float
    ) -> None:
        self.context, self.powers, self.at_s, self.end_s = context, powers, seen["at_s"], end_s
        felt = die_power(powers, seen)
        self.felt = felt - final_w
        self.behind = powers - felt
        order = np.argsort(seen["set_s"])
        heat = stored_heat(seen["set_s"][order], powers[order], felt, self.at_s, float(powers[ZIGZAG[0]]))
        self.stored = (heat - heat[order[-1]]) / SUBMOUNT_J_PER_K
        self.y = seen["pa1"] / seen["pa0"]
        self.sigma = np.abs(self.y) * ratio_sigma(context, "pa1", "pa0", seen["pa1"], seen["pa0"], SAMPLES)
        split = context.record("amzi_split").value
        turn = split["phi0_rad"] + pi * split["power_w"] / split["p_pi_w"]
        self.slope = _amplitude_slope(split["long_transmission"], turn, split["p_pi_w"])

    def phase(self, q: Array, powers: Array) -> Array:
        """rad; q: ratio, V, phi0, P_pi, c, drift, its change."""
        ago = self.at_s - self.end_s
        return np.asarray(
            q[2] + pi * powers / q[3] + q[4] * (self.felt + self.stored) + q[5] * ago + 0.5 * q[6] * ago**2
        )

    def model(self, q: Array, powers: Array) -> Array:
        """The heater's crosstalk on the coupler tilts the amplitude a little."""
        turn = self.phase(q, powers)
        tilt = 1.0 + self.slope * (powers - powers.mean())
        return np.asarray(q[0] * tilt * (1.0 + q[1] * np.cos(turn)))

    def solved(self) -> tuple[LeastSquares, Array]:
        """(fit, covariance in true watts) over the parameters of `phase`. Raises FitRefused."""
        sigma = self.sigma + 0.05 * self.y.max()
        first = heater_fringe(self.context, self.powers, self.y, sigma, 0.3, absolute=False)
        q = np.array([first.offset, min(first.visibility, 1.0), first.phi0_rad, first.x_pi, DIE_RAD_PER_W, 0.0, 0.0])
        for _ in range(2):
            root = self._root(q)
            q = self._whitened(q, root, self.y, self.powers).parameters
        fit = judged(self._whitened(q, root, self.y, self.powers), "interferometer fringe", bounded=True)
        half = self.y * (1.0 + 0.3 * self.slope * (self.powers - self.powers.mean()))
        by_y = added(lambda y: self._whitened(q, root, y, self.powers).parameters, self.y, [half])
        by_x = added(
            lambda x: self._whitened(q, root, self.y, x).parameters,
            self.powers,
            power_variants(self.context, "phase", self.powers),
        )
        return fit, np.asarray(fit.covariance + by_y + by_x)

    def _root(self, q: Array) -> Array:
        """Cholesky factor of the readings' covariance: noise, the laser's walk until now, the die's lag."""
        gain = -q[0] * q[1] * np.sin(self.phase(q, self.powers))
        ago = self.end_s - np.maximum.outer(self.at_s, self.at_s)
        fast = WANDER_RAD**2 + np.square(LAG_SHARE * DIE_RAD_PER_W * self.behind)
        phase = WALK_RAD_PER_ROOT_S**2 * ago + np.diag(fast)
        # Where the fringe is flat the second order counts.
        second = 0.5 * q[0] * q[1] * np.diag(phase)
        return np.linalg.cholesky(np.diag(self.sigma**2 + second**2) + np.outer(gain, gain) * phase)

    def _whitened(self, q: Array, root: Array, y: Array, powers: Array) -> LeastSquares:
        def model(p: Array) -> Array:
            seen = np.linalg.solve(root, self.model(p, powers))
            return np.concatenate([seen, p[4:] / PRIOR])

        wanted = np.concatenate([np.linalg.solve(root, y), [1.0 / DIE_RELATIVE, 0.0, 0.0]])
        return gauss_newton(model, q, wanted, np.ones(len(wanted)), absolute=True)


def _amplitude_slope(long: float, split_rad: float, p_pi_w: float) -> float:
    """d ln(light through both arms)/dP of the phase heater, 1/W, by its crosstalk on the coupler."""
    turn = NEAR_SHARE * exp(-1.0 / REACH) * pi / p_pi_w
    both = 1.0 - sin(split_rad / 2.0) ** 2 * (1.0 - long)
    return -(1.0 - long) / 2.0 * sin(split_rad) * turn / both
