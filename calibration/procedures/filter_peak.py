"""Laser filter to the peak of its transmission."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.procedure import Procedure
from calibration.procedures.light import reader
from calibration.procedures.sweeps import diode_sigma, heater_fringe, heater_sweep, set_to_phase
from calibration.record import Record, as_matrix


class FilterPeak(Procedure):
    """A0 to the peak of PA0: T = (1 + cos d)/2 (reference pair A2)."""

    name: ClassVar[str] = "filter_peak"
    needs: ClassVar[tuple[str, ...]] = ("heater_iv", "laser")

    async def calibrate(self, context: CalibrationContext) -> Record:
        read = reader(context, "pa0")

        async def row() -> dict[str, float]:
            return {"pa0": await read()}

        powers, seen = await heater_sweep(context, "filter", row, done=lambda f: self.report(context, f))
        fringe = heater_fringe(context, powers, seen["pa0"], diode_sigma(seen["pa0"]), 0.5)
        chosen = await set_to_phase(context, "filter", fringe, 0.0)
        value = {
            "offset_a": fringe.offset,
            "visibility": fringe.visibility,
            "phi0_rad": fringe.phi0_rad,
            "p_pi_w": fringe.x_pi,
            "power_w": chosen.power_w,
            "margin": chosen.margin,
        }
        return await self.make_record(
            context,
            value,
            {"power_w": powers, **seen},
            names=("offset_a", "visibility", "phi0_rad", "p_pi_w"),
            covariance=as_matrix(np.asarray(fringe.covariance, dtype=np.float64)),
            residual_rms=fringe.residual_rms,
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power("filter", record.value["power_w"])
        await context.settle()
