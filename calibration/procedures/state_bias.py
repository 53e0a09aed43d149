"""State modulator: V_pi and null from its bias curve, drive amplitude to pi."""

from __future__ import annotations

from math import pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Fringe, fit_fringe
from calibration.procedure import Procedure
from calibration.procedures.carver_bias import RF_SHARES
from calibration.procedures.light import brightest_z, reader, shine
from calibration.procedures.sweeps import bias_curve, diode_sigma, nearest, refine_bias
from calibration.record import Record, diagonal
from drivers.roles import LightMode


class StateBias(Procedure):
    """S to its null in NULL mode on PA3, drive to theta = pi in a FIX Z state (reference pair A2).

    The decoy modulator behind it may be anywhere: it is first put where PA3 sees most.
    """

    name: ClassVar[str] = "state_bias"
    needs: ClassVar[tuple[str, ...]] = ("amzi_phase",)
    valid_s: ClassVar[float] = 86_400.0

    async def calibrate(self, context: CalibrationContext) -> Record:
        read = reader(context, "pa3")
        await shine(context, LightMode.NULL)
        decoy_v = await self._coarse(context)
        curve, volts, seen = await bias_curve(context, "state", read)
        self.report(context, 0.5, f"V_pi {curve.x_pi:.2f} V")
        reach = context.settings.modulator_sweep_v
        around = nearest(curve.roots(pi, -reach, reach))
        null, null_volts, null_seen = await refine_bias(context, "state", around, 0.12 * curve.x_pi, read, minimum=True)
        rf = await self._drive(context, curve.x_pi)
        value = {
            "v_pi_v": curve.x_pi,
            "null_v": null.x,
            "extinction": max(null.value, 1e-12) / (curve.offset * (1.0 + curve.visibility)),
            "rf_v": rf.roots(0.0, 0.5 * curve.x_pi, 1.6 * curve.x_pi)[0],
            "decoy_coarse_v": decoy_v,
        }
        await self.apply_value(context, value)
        sigmas = [float(np.sqrt(curve.covariance[3, 3])), null.sigma, rf.sigma_phase(value["rf_v"]) * rf.x_pi / pi]
        return await self.make_record(
            context,
            value,
            {"volts": volts, "pa3": seen, "null_volts": null_volts, "null_pa3": null_seen},
            names=("v_pi_v", "null_v", "rf_v"),
            covariance=diagonal(sigmas),
            residual_rms=curve.residual_rms,
        )

    async def _coarse(self, context: CalibrationContext) -> float:
        """Three voltages a third of a period apart, on both modulators: the best is within 60 degrees of both peaks."""
        read, third = reader(context, "pa3"), 2.0 * sum(context.settings.modulator_v_pi) / 2.0 / 3.0
        best = (-np.inf, 0.0, 0.0)
        for decoy_v in (-third, 0.0, third):
            await context.biases.set_voltage("decoy", decoy_v)
            for state_v in (-third, 0.0, third):
                await context.biases.set_voltage("state", state_v)
                await context.settle()
                best = max(best, (await read(), decoy_v, state_v))
        await context.biases.set_voltage("decoy", best[1])
        await context.biases.set_voltage("state", best[2])
        return best[1]

    async def _drive(self, context: CalibrationContext, v_pi: float) -> Fringe:
        source, read = context.need_source(), reader(context, "pa3")
        await source.set_rf(state_v=v_pi)
        await brightest_z(context)
        amplitudes, seen = v_pi * np.array(RF_SHARES), np.zeros(len(RF_SHARES))
        for k, a in enumerate(amplitudes):
            await source.set_rf(state_v=float(a))
            await context.settle()
            seen[k] = await read()
        return fit_fringe(amplitudes, seen, 0.6 * v_pi, 1.6 * v_pi, sigma=diode_sigma(seen), visibility_min=0.3)

    async def apply_value(self, context: CalibrationContext, value: dict[str, float]) -> None:
        await context.biases.set_voltage("state", value["null_v"])
        await context.need_source().set_rf(state_v=value["rf_v"])
        await context.settle()

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await self.apply_value(context, record.value)
