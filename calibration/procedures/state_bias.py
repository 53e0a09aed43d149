"""State modulator: V_pi from its bias curve, null by dither, drive amplitude to pi."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.plot import Figure
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.bias_check import dither_check
from calibration.procedures.figures import curve, sinusoid, unit_for
from calibration.procedures.fringes import block, measure_bias, measure_drive
from calibration.procedures.light import brightest_z, must_live, reader, shine, sigma_of
from calibration.procedures.sweeps import dither_bias, nearest
from calibration.record import Record, block_diagonal
from drivers.roles import LightMode


class StateBias(Procedure):
    """S to its null in NULL mode on PA3, drive to theta = pi in a FIX Z state (reference pair A2, control B5).

    The decoy modulator behind it may be anywhere: it is first put where PA3 sees most.
    """

    name: ClassVar[str] = "state_bias"
    needs: ClassVar[tuple[str, ...]] = ("carver_bias",)
    valid_s: ClassVar[float] = 86_400.0
    cost_s: ClassVar[float] = 0.4
    check_disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = "I(pa3) = A [1 + V cos(phi0 + pi v / V_pi)]; null where H1 = 0 and H2 < 0"

    async def calibrate(self, context: CalibrationContext) -> Record:
        source = context.need_source()
        await shine(context, LightMode.NULL)
        decoy_v = await self._coarse(context)
        bias = await measure_bias(context, self.name, "state", "pa3", "pa1 sees the light before the modulators")
        fringe = bias.fringe
        self.report(context, 0.5, f"V_pi {fringe.x_pi:.2f} V")
        reach = context.settings.modulator_sweep_v
        around = nearest(fringe.roots(pi, -reach, reach))
        null, null_volts, null_seen = await dither_bias(
            context, "state", around, fringe.x_pi, reader(context, "pa3"), sigma_of(context, "pa3"), kind="null"
        )
        await source.set_rf(state_v=fringe.x_pi)
        await brightest_z(context)

        async def drive(v: float) -> None:
            await source.set_rf(state_v=v)

        rf, rf_v, rf_sigma, amplitudes, rf_seen = await measure_drive(context, fringe.x_pi, "pa3", drive)
        leak, leak_sigma = bias.extinction
        value = {
            "v_pi_v": fringe.x_pi,
            "null_v": null.x,
            "extinction": max(leak, 1e-12),
            "rf_v": rf_v,
            "decoy_coarse_v": decoy_v,
            "offset_a": fringe.offset,
            "visibility": fringe.visibility,
            "phi0_rad": fringe.phi0_rad,
            "reduced_chi2": fringe.reduced_chi2,
        }
        await self.apply_value(context, value)
        return await self.make_record(
            context,
            value,
            {
                "volts": bias.volts,
                "pa3": bias.y,
                "null_volts": null_volts,
                "null_pa3": null_seen,
                "rf_volts": amplitudes,
                "rf_pa3": rf_seen,
            },
            names=("v_pi_v", "null_v", "extinction", "rf_v"),
            covariance=block_diagonal([block(bias.v_pi_sigma, null.sigma, leak_sigma, rf_sigma)]),
            residual_rms=fringe.residual_rms,
            residuals=[*fringe.residuals, *rf.residuals],
        )

    async def _coarse(self, context: CalibrationContext) -> float:
        """Three voltages a third of a period apart, on both modulators: the best is within 60 degrees of both peaks."""
        read, third = reader(context, "pa3", 4), 2.0 * sum(context.settings.modulator_v_pi) / 2.0 / 3.0
        best = (-np.inf, 0.0, 0.0)
        for decoy_v in (-third, 0.0, third):
            await context.biases.set_voltage("decoy", decoy_v)
            for state_v in (-third, 0.0, third):
                await context.biases.set_voltage("state", state_v)
                await context.settle()
                best = max(best, (await read(), decoy_v, state_v))
        must_live(self.name, "pa3", np.full(9, best[0]), "pa1 sees the light before the modulators")
        await context.biases.set_voltage("decoy", best[1])
        await context.biases.set_voltage("state", best[2])
        return best[1]

    async def apply_value(self, context: CalibrationContext, value: dict[str, float]) -> None:
        await context.biases.set_voltage("state", value["null_v"])
        await context.need_source().set_rf(state_v=value["rf_v"])
        await context.settle()

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.biases.set_voltage("decoy", record.value["decoy_coarse_v"])
        await self.apply_value(context, record.value)

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
        await shine(context, LightMode.NULL)
        try:
            return await dither_check(context, record, "state", "pa3", record.value["null_v"], "null")
        finally:
            await shine(context, LightMode.OFF)

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        v, x, y = record.value, np.asarray(raw["volts"]), np.asarray(raw["pa3"])
        scale, unit = unit_for(float(y.max()))
        model = sinusoid(v["offset_a"], v["visibility"], v["phi0_rad"], v["v_pi_v"])
        label = f"photocurrent of pa3 ({unit})"
        marks = [(v["null_v"], "null")]
        return [curve("State modulator against its bias", "bias (V)", label, x, y, model, marks=marks, y_scale=scale)]
