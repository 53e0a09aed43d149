"""The transmitter's optical shutter: bar lets light out, cross is dark."""

from __future__ import annotations

from math import pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import choose_power
from calibration.procedure import Procedure
from calibration.procedures.light import brightest_z, reader
from calibration.procedures.sweeps import diode_sigma, heater_fringe, heater_sweep, set_to_phase
from calibration.record import Record, as_matrix


class Shutter(Procedure):
    """A3 by PA4 at its cross port, sin^2(d/2): bar at the minimum; cross, the safe state, at the maximum (pair A2).

    `unpowered_transmission` says how dark the module is with its heater rail off.
    """

    name: ClassVar[str] = "shutter"
    needs: ClassVar[tuple[str, ...]] = ("state_bias",)

    async def calibrate(self, context: CalibrationContext) -> Record:
        await brightest_z(context)
        read = reader(context, "pa4")

        async def row() -> dict[str, float]:
            return {"pa4": await read()}

        powers, seen = await heater_sweep(context, "shutter", row, done=lambda f: self.report(context, f))
        fringe = heater_fringe(context, powers, seen["pa4"], diode_sigma(seen["pa4"]), 0.5)
        cross = choose_power(fringe, 0.0, context.drive.max_power("shutter"))
        bar = await set_to_phase(context, "shutter", fringe, pi)
        value = {
            "offset_a": fringe.offset,
            "visibility": fringe.visibility,
            "phi0_rad": fringe.phi0_rad,
            "p_pi_w": fringe.x_pi,
            "bar_w": bar.power_w,
            "cross_w": cross.power_w,
            "unpowered_transmission": float(np.cos((fringe.phase(0.0) - pi) / 2.0) ** 2),
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
        await context.drive.set_power("shutter", record.value["bar_w"])
        await context.settle()
