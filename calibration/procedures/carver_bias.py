"""Carver modulator: V_pi and null from its bias curve, drive amplitude to the pulse's peak."""

from __future__ import annotations

from math import pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Fringe, fit_fringe
from calibration.procedure import Procedure
from calibration.procedures.light import reader, shine
from calibration.procedures.sweeps import bias_curve, diode_sigma, nearest, refine_bias
from calibration.record import Record, diagonal
from drivers.roles import LightMode

# Drive amplitudes as shares of V_pi, on both sides of the peak that they bracket.
RF_SHARES = (0.35, 0.5, 0.62, 0.78, 0.9, 1.05, 1.2, 1.35)


class CarverBias(Procedure):
    """C to its null in CW light on PA1; drive to the peak once a slot in NULL mode (reference pair A2, control B5).

    T_off = sin^2(d/2) + cos^2(d/2)/ER_C. The photodiode's logarithmic range makes the null itself readable.
    """

    name: ClassVar[str] = "carver_bias"
    needs: ClassVar[tuple[str, ...]] = ("filter_peak",)
    valid_s: ClassVar[float] = 86_400.0

    async def calibrate(self, context: CalibrationContext) -> Record:
        read = reader(context, "pa1")
        await shine(context, LightMode.CW)
        # Unmodulated light interferes in the AMZI behind C: its phase, and so PA1, follows the die, still warm from the
        # heaters of the step before.
        await context.sleep(context.settings.die_settle_s)
        curve, volts, seen = await bias_curve(context, "carver", read)
        self.report(context, 0.5, f"V_pi {curve.x_pi:.2f} V")
        reach = context.settings.modulator_sweep_v
        around = nearest(curve.roots(pi, -reach, reach))
        null, null_volts, null_seen = await refine_bias(
            context, "carver", around, 0.12 * curve.x_pi, read, minimum=True
        )
        rf = await self._drive(context, curve.x_pi)
        peak = nearest(curve.roots(0.0, -reach, reach), null.x)
        value = {
            "v_pi_v": curve.x_pi,
            "null_v": null.x,
            "peak_v": peak,
            "extinction": max(null.value, 1e-12) / (curve.offset * (1.0 + curve.visibility)),
            "rf_v": rf.roots(0.0, 0.5 * curve.x_pi, 1.6 * curve.x_pi)[0],
        }
        await self.apply_value(context, value)
        sigmas = [float(np.sqrt(curve.covariance[3, 3])), null.sigma, rf.sigma_phase(value["rf_v"]) * rf.x_pi / pi]
        return await self.make_record(
            context,
            value,
            {"volts": volts, "pa1": seen, "null_volts": null_volts, "null_pa1": null_seen},
            names=("v_pi_v", "null_v", "rf_v"),
            covariance=diagonal(sigmas),
            residual_rms=curve.residual_rms,
        )

    async def _drive(self, context: CalibrationContext, v_pi: float) -> Fringe:
        """Pulsed light against drive amplitude: sin^2(pi a / (2 V_pi)) over the leak."""
        source, read = context.need_source(), reader(context, "pa1")
        await shine(context, LightMode.NULL)
        amplitudes, seen = v_pi * np.array(RF_SHARES), np.zeros(len(RF_SHARES))
        for k, a in enumerate(amplitudes):
            await source.set_rf(carver_v=float(a))
            await context.settle()
            seen[k] = await read()
        return fit_fringe(amplitudes, seen, 0.6 * v_pi, 1.6 * v_pi, sigma=diode_sigma(seen), visibility_min=0.2)

    async def apply_value(self, context: CalibrationContext, value: dict[str, float]) -> None:
        await context.biases.set_voltage("carver", value["null_v"])
        await context.need_source().set_rf(carver_v=value["rf_v"])
        await context.settle()

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await self.apply_value(context, record.value)
