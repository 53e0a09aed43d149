"""Input coupler of the transmitter's interferometer: early and late pulse of equal energy."""

from __future__ import annotations

from math import log, pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import choose_power
from calibration.procedure import Procedure
from calibration.procedures.light import energy
from calibration.procedures.sweeps import diode_sigma, heater_fringe, heater_sweep, trim_power
from calibration.record import Record, block_diagonal

# Scatter of one photodiode reading, as the weight of a ratio of two.
RATIO_SIGMA = 0.003


class AmziSplit(Procedure):
    """A1 so that PA3 reads the same for FIX Z0 and FIX Z1 (reference pair A2: E = L after the AMZI).

    E goes with cos^2(x/2), L with l sin^2(x/2): the fringe of E gives P_pi, the ratio gives the set point, whatever the
    long arm's loss l is.
    """

    name: ClassVar[str] = "amzi_split"
    needs: ClassVar[tuple[str, ...]] = ("state_bias", "shutter")

    async def calibrate(self, context: CalibrationContext) -> Record:
        async def row() -> dict[str, float]:
            return {"early": await energy(context, 0), "late": await energy(context, 1)}

        powers, seen = await heater_sweep(context, "split", row, done=lambda f: self.report(context, 0.8 * f))
        fringe = heater_fringe(context, powers, seen["early"], diode_sigma(seen["early"]), 0.5)
        # Quadrature, then the ratio itself: the long arm's loss moves the balance by a few degrees only.
        top = context.drive.max_power("split")
        around = min(choose_power(fringe, t, top).power_w for t in (pi / 2, -pi / 2))
        found = await trim_power(context, "split", around, 0.08 * fringe.x_pi, lambda: self._imbalance(context))
        value = {"p_pi_w": fringe.x_pi, "phi0_rad": fringe.phi0_rad, "power_w": found.x, "log_slope_per_w": found.slope}
        covariance = np.asarray(fringe.covariance, dtype=np.float64)
        return await self.make_record(
            context,
            value,
            {"power_w": powers, **seen},
            names=("phi0_rad", "p_pi_w", "power_w"),
            covariance=block_diagonal([covariance[2:, 2:], np.array([[found.sigma**2]])]),
            residual_rms=fringe.residual_rms,
        )

    async def _imbalance(self, context: CalibrationContext) -> tuple[float, float]:
        return log(await energy(context, 0) / await energy(context, 1)), RATIO_SIGMA

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power("split", record.value["power_w"])
        await context.settle()
