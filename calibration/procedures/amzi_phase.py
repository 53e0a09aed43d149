"""Phase of the transmitter's unbalanced interferometer against its heater."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Array, FitRefused, Fringe
from calibration.procedure import Procedure
from calibration.procedures.light import reader, shine
from calibration.procedures.sweeps import diode_sigma, heater_fringe, heater_sweep
from calibration.record import Record, as_matrix
from drivers.roles import LightMode

# Input coupler powers (share of the range) to try until both arms carry light: a quarter of a fringe apart.
COUPLER_SHARES = (0.2, 0.38, 0.56, 0.74)


class AmziPhase(Procedure):
    """A2 fringe on PA1 in CW light with C at its peak (reference pair A2).

    Only phi_A - phi_B matters, so the heater is put well inside its range. The shutter's heater, downstream of PA1, is
    the ballast: the die keeps its temperature, whose 0.70 deg/mK would otherwise tilt the fringe by 16 % (pair A6.3).
    """

    name: ClassVar[str] = "amzi_phase"
    needs: ClassVar[tuple[str, ...]] = ("carver_bias",)

    async def calibrate(self, context: CalibrationContext) -> Record:
        carver = context.record("carver_bias").value
        await context.biases.set_voltage("carver", carver["peak_v"])
        await shine(context, LightMode.CW)
        try:
            powers, seen, fringe = await self._fringe(context)
        finally:
            await context.biases.set_voltage("carver", carver["null_v"])
            await context.drive.set_power("shutter", 0.0)
        power = context.settings.alice_phase_share * context.drive.max_power("phase")
        await context.drive.set_power("phase", power)
        await context.settle()
        value = {
            "offset_a": fringe.offset,
            "visibility": fringe.visibility,
            "phi0_rad": fringe.phi0_rad,
            "p_pi_w": fringe.x_pi,
            "power_w": power,
        }
        return await self.make_record(
            context,
            value,
            {"power_w": powers, "pa1": seen},
            names=("offset_a", "visibility", "phi0_rad", "p_pi_w"),
            covariance=as_matrix(np.asarray(fringe.covariance, dtype=np.float64)),
            residual_rms=fringe.residual_rms,
        )

    async def _fringe(self, context: CalibrationContext) -> tuple[Array, Array, Fringe]:
        read = reader(context, "pa1")

        async def row() -> dict[str, float]:
            return {"pa1": await read()}

        reasons = []
        for n, share in enumerate(COUPLER_SHARES):
            await context.drive.set_power("split", share * context.drive.max_power("split"))
            powers, seen = await heater_sweep(context, "phase", row, ballast="shutter")
            self.report(context, (n + 1) / len(COUPLER_SHARES))
            try:
                fringe = heater_fringe(context, powers, seen["pa1"], diode_sigma(seen["pa1"]), 0.3)
                return powers, seen["pa1"], fringe
            except FitRefused as e:
                reasons.append(str(e))
        raise FitRefused(f"no fringe on pa1 at any of {len(COUPLER_SHARES)} coupler powers: {reasons[-1]}")

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power("phase", record.value["power_w"])
        await context.settle()
