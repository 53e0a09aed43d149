"""The receiver's basis splitter to the wanted share."""

from __future__ import annotations

from collections.abc import Sequence
from math import acos
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.dead_time import true_rate
from calibration.fit import Array, FitRefused
from calibration.plot import Figure
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.receiver_figures import basis_fringe
from calibration.procedures.receiver_splits import Turn, fit_turn, meanwhile, nearest_root
from calibration.procedures.sweeps import count_sigma, heater_fringe, heater_sweep
from calibration.procedures.tags import choose_scale, dead_times, total_rates
from calibration.record import Record, as_matrix

READ_S = 0.1
# The light wanders by this from point to point (polarisation, laser: pair A7), relative.
LIGHT_SHARE = 2e-3


class BasisSplit(Procedure):
    """B0 to kappa_B by the fringe of DZ itself, so that efficiencies and losses do not matter (reference pair A3)."""

    name: ClassVar[str] = "basis_split"
    needs: ClassVar[tuple[str, ...]] = ("detector_delay",)
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    cost_s: ClassVar[float] = 1.9
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = (
        "rate(DZ) = A [1 + V cos(phi0 + pi P / P_pi)], dead time taken off; set where it is 1 - kappa of its largest"
    )

    async def calibrate(self, context: CalibrationContext) -> Record:
        await choose_scale(context)

        async def row() -> dict[str, float]:
            rates = await total_rates(context, READ_S)
            return {"z": float(rates[0]), "x": float(rates[1] + rates[2])}

        powers, seen = await heater_sweep(context, "basis", row, done=lambda f: self.report(context, f))
        tau, sigma_tau = (float(t[0]) for t in dead_times(context))
        y = true_rate(seen["z"], tau)
        sigma = count_sigma(seen["z"] * READ_S) / READ_S * np.square(y / np.maximum(seen["z"], 1.0))
        sigma = np.hypot(sigma, LIGHT_SHARE * y)
        rough = heater_fringe(context, powers, y, sigma + 0.01 * float(y.max()), 0.6, absolute=False)
        start = np.array([rough.offset, min(rough.visibility, 1.0), rough.phi0_rad, rough.x_pi])
        top = context.drive.max_power("basis")
        share = 1.0 - context.settings.basis_split
        power = _power(start, share, top)
        await context.drive.set_power("basis", power)
        await context.sleep(context.settings.die_settle_s)
        turn = fit_turn(
            context,
            "basis",
            powers,
            seen,
            lambda q, t: np.asarray(q[0] * (1.0 + q[1] * np.cos(t))),
            start,
            y,
            sigma,
            power,
            variants=[true_rate(seen["z"], tau + sigma_tau)],
        )
        power, order = nearest_root(turn, _targets(turn.parameters, share), top, power)
        await context.drive.set_power("basis", power)
        await context.settle()
        self._must_interfere(turn)
        value = {
            "visibility": float(turn.parameters[1]),
            "phi0_rad": turn.phi0_rad,
            "p_pi_w": turn.p_pi_w,
            "power_w": power,
            "order": order,
            "wanted_share": context.settings.basis_split,
            "x_over_z": _x_over_z(turn, powers, seen),
            "reduced_chi2": turn.reduced_chi2,
            **meanwhile(context, "basis"),
        }
        sigma_kappa = np.zeros((4, 4))
        sigma_kappa[:3, :3] = turn.covariance[1:, 1:]
        sigma_kappa[3, 3] = turn.power_sigma(power) ** 2
        return await self.make_record(
            context,
            value,
            {"power_w": powers, **seen},
            names=("visibility", "phi0_rad", "p_pi_w", "power_w"),
            covariance=as_matrix(sigma_kappa),
            residual_rms=turn.residual_rms,
            residuals=turn.residuals.tolist(),
        )

    @staticmethod
    def _must_interfere(turn: Turn) -> None:
        if not 0.6 <= turn.parameters[1] <= 1.05:
            raise FitRefused(f"visibility {turn.parameters[1]:.3f} of the basis splitter; 0.6 to 1 is expected")

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        return basis_fringe(record, raw)

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power("basis", record.value["power_w"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
        wanted = context.settings.basis_split
        if record.value["wanted_share"] != wanted:
            return CheckResult.out_of_spec(f"a share of {wanted} is asked for now")
        return CheckResult.in_spec()


def _targets(q: Array, share: float) -> tuple[float, float]:
    """Z keeps `share` of its largest rate: (1 + V cos p)/(1 + V) = share. Raises FitRefused out of reach."""
    visibility = float(q[1])
    cosine = (share * (1.0 + visibility) - 1.0) / visibility
    if abs(cosine) > 1.0:
        raise FitRefused(f"a share of {1.0 - share:.2f} is out of reach with visibility {visibility:.3f}")
    return acos(cosine), -acos(cosine)


def _power(q: Array, share: float, top_w: float) -> float:
    rough = Turn(q, np.zeros((4, 4)), np.zeros((4, 4)), 1.0, np.zeros(1), 1.0)
    return nearest_root(rough, _targets(q, share), top_w)[0]


def _x_over_z(turn: Turn, powers: Array, seen: dict[str, Array]) -> float:
    """Clicks of both X detectors over those of DZ, at an even splitter."""
    phase = turn.phi0_rad + np.pi * powers / turn.p_pi_w
    x_shape, z_shape = 1.0 - np.cos(phase), 1.0 + np.cos(phase)
    x = float(seen["x"] @ x_shape) / float(x_shape @ x_shape)
    return x / (float(seen["z"] @ z_shape) / float(z_shape @ z_shape))
