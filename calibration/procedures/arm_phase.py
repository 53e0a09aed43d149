"""Phase of the receiver's interferometer: fringes of both X states, and the sign and size of xi between them."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Array, FitRefused, Fringe, choose_power, gauss_newton
from calibration.plot import Figure
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.procedures.receiver_figures import arm_fringes
from calibration.procedures.sweeps import count_sigma, heater_fringe, heater_sweep
from calibration.procedures.tags import choose_scale, count_bins, illuminate, tagging
from calibration.record import Record, as_matrix

READ_S = 0.05
# The submount still swings by some mK after the heaters of the steps before: 0.70 deg/mK on this fringe.
RESIDUAL_MAX = 0.2
SERIES = ("x0_dx0", "x0_dx1", "x1_dx0", "x1_dx1")


class ArmPhase(Procedure):
    """B2: the middle bins of DX0 and DX1 against its heater, with FIX X0 and FIX X1 (reference pair A3, A5).

    DX0 = a0 (1 + V cos t), DX1 = a1 (1 - V cos t), t = phi + pi P/P_pi - xi for X0 and + pi + xi for X1. X0 leaves by
    DX1, so the best power has phi + pi P/P_pi = pi: `xi_rad` and the error that the lock sees count in the heater's
    direction, e(X1) - e(X0) = V sin(xi) sin(err). P_pi includes the die's warming, which is waited for.
    """

    name: ClassVar[str] = "arm_phase"
    needs: ClassVar[tuple[str, ...]] = ("combiner",)
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    cost_s: ClassVar[float] = 3.3
    equation: ClassVar[str] = (
        "DX0 = a0 [1 + V cos t], DX1 = a1 [1 - V cos t]\nt = phi0 + pi P / P_pi - xi for X0, + pi + xi for X1"
    )
    # The fringe walks by degrees a minute: what a lock does not hold is old soon.
    valid_s: ClassVar[float] = 120.0
    held: ClassVar[bool] = True

    async def calibrate(self, context: CalibrationContext) -> Record:
        scale = await choose_scale(context, 2)

        async def row() -> dict[str, float]:
            out: dict[str, float] = {}
            for state, name in ((2, "x0"), (3, "x1")):
                await illuminate(context, state, scale)
                bins = await count_bins(context, READ_S, state)
                out[f"{name}_dx0"], out[f"{name}_dx1"] = float(bins.dx[0, 1]), float(bins.dx[1, 1])
            return out

        async with tagging(context):
            powers, seen = await heater_sweep(
                context,
                "phase",
                row,
                settle_s=context.settings.die_settle_s,
                done=lambda f: self.report(context, f),
            )
        fit, xi, a = joint_fringe(context, powers, seen)
        chosen = choose_power(fit, pi, context.drive.max_power("phase"), (0.3, 0.2, 0.1, 0.05, 0.02))
        await context.drive.set_power("phase", chosen.power_w)
        await context.sleep(context.settings.die_settle_s)
        value = {
            "visibility": fit.visibility,
            "phi0_rad": fit.phi0_rad,
            "p_pi_w": fit.x_pi,
            "xi_rad": xi,
            "efficiency_ratio": a[0] / a[1],
            "power_w": chosen.power_w,
            "order": chosen.order,
        }
        return await self.make_record(
            context,
            value,
            {"power_w": powers, **seen},
            names=("visibility", "phi0_rad", "p_pi_w", "xi_rad"),
            covariance=as_matrix(np.asarray(fit.covariance, dtype=np.float64)),
            residual_rms=fit.residual_rms,
        )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        return arm_fringes(record, raw)

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power("phase", record.value["power_w"])
        await context.settle()


def joint_fringe(
    context: CalibrationContext, powers: Array, seen: dict[str, Array]
) -> tuple[Fringe, float, tuple[float, float]]:
    """One fit of the four series: (fringe of the mean phase, xi, (a0, a1)).

    The fringe's covariance is over (visibility, phi0_rad, p_pi_w, xi_rad), its own offset left out. Raises FitRefused.
    """
    first = heater_fringe(context, powers, seen["x0_dx0"], count_sigma(seen["x0_dx0"]), 0.5, RESIDUAL_MAX)
    y = np.concatenate([seen[s] for s in SERIES])

    def model(q: Array) -> Array:
        t = q[3] + pi * powers / q[4]
        x0, x1 = np.cos(t - q[5]), -np.cos(t + q[5])
        return np.concatenate(
            [q[0] * (1 + q[2] * x0), q[1] * (1 - q[2] * x0), q[0] * (1 + q[2] * x1), q[1] * (1 - q[2] * x1)]
        )

    start = np.array(
        [first.offset, float(seen["x0_dx1"].mean()), min(first.visibility, 0.99), first.phi0_rad, first.x_pi, 0.0]
    )
    fit = gauss_newton(model, start, y, count_sigma(y))
    a0, a1, visibility, phi0, x_pi, xi = (float(v) for v in fit.parameters)
    if not 0.5 <= visibility <= 1.05:
        raise FitRefused(f"visibility {visibility:.3f} of the X fringes; 0.5 is the least")
    if abs(xi) > 0.5:
        raise FitRefused(f"the X states are {2 * xi:.2f} rad away from opposite; 1 rad is the limit")
    phi0 = (phi0 + pi) % (2 * pi) - pi
    return Fringe(0.5 * (a0 + a1), visibility, phi0, x_pi, fit.covariance[2:, 2:], fit.residual_rms), xi, (a0, a1)
