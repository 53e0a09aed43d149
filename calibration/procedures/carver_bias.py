"""Carver modulator: V_pi from its bias curve, null by dither, drive amplitude to the pulse's peak."""

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
from calibration.procedures.fringes import BiasCurve, block, measure_bias, measure_drive
from calibration.procedures.light import reader, shine, sigma_of
from calibration.procedures.sweeps import dither_bias, nearest
from calibration.record import Record, block_diagonal
from drivers.roles import LightMode

# The carved pulse, ps (reference pair A1): the only time in which the drive counts.
PULSE_PS = 100.0


class CarverBias(Procedure):
    """C to its null on PA1 with its drive off, then the drive to the pulses' peak (reference pair A2, control B5).

    T_off = sin^2(d/2) + cos^2(d/2)/ER_C. The light is that of NULL mode, with random phases: it does not interfere in
    the AMZI between C and PA1, so that neither the die nor the laser's frequency is seen.
    """

    name: ClassVar[str] = "carver_bias"
    needs: ClassVar[tuple[str, ...]] = ("filter_peak",)
    valid_s: ClassVar[float] = 86_400.0
    cost_s: ClassVar[float] = 0.4
    check_disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    renews: ClassVar[bool] = True
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = "I(pa1) = A [1 + V cos(phi0 + pi v / V_pi)]; null where H1 = 0 and H2 < 0"

    async def calibrate(self, context: CalibrationContext) -> Record:
        source = context.need_source()
        await source.set_rf(carver_v=0.0)
        await shine(context, LightMode.NULL)
        bias = await measure_bias(context, self.name, "carver", "pa1", "pa0 sees the light behind the filter")
        fringe = bias.fringe
        self.report(context, 0.5, f"V_pi {fringe.x_pi:.2f} V")
        reach = context.settings.modulator_sweep_v
        around = nearest(fringe.roots(pi, -reach, reach))
        null, null_volts, null_seen = await dither_bias(
            context, "carver", around, fringe.x_pi, reader(context, "pa1"), sigma_of(context, "pa1"), kind="null"
        )

        async def drive(v: float) -> None:
            await source.set_rf(carver_v=v)

        rf, rf_v, rf_sigma, amplitudes, rf_seen = await measure_drive(context, fringe.x_pi, "pa1", drive)
        peak = nearest(fringe.roots(0.0, -reach, reach), null.x)
        leak, leak_sigma = self._extinction(context, bias)
        value = {
            "v_pi_v": fringe.x_pi,
            "null_v": null.x,
            "peak_v": peak,
            "extinction": leak,
            "rf_v": rf_v,
            "offset_a": fringe.offset,
            "visibility": fringe.visibility,
            "phi0_rad": fringe.phi0_rad,
            "reduced_chi2": fringe.reduced_chi2,
        }
        await self.apply_value(context, value)
        peak_sigma = fringe.sigma_phase(peak) * fringe.x_pi / pi
        return await self.make_record(
            context,
            value,
            {
                "volts": bias.volts,
                "pa1": bias.y,
                "null_volts": null_volts,
                "null_pa1": null_seen,
                "rf_volts": amplitudes,
                "rf_pa1": rf_seen,
            },
            names=("v_pi_v", "null_v", "peak_v", "extinction", "rf_v"),
            covariance=block_diagonal([block(bias.v_pi_sigma, null.sigma, peak_sigma, leak_sigma, rf_sigma)]),
            residual_rms=fringe.residual_rms,
            residuals=[*fringe.residuals, *rf.residuals],
        )

    def _extinction(self, context: CalibrationContext, bias: BiasCurve) -> tuple[float, float]:
        """The pulse itself has no leak: what is seen at the null is the leak of the rest of the slot."""
        rest = 1.0 - PULSE_PS / context.settings.symbol_period_ps
        leak, sigma = bias.extinction
        return max(leak, 1e-12) / rest, sigma / rest

    async def apply_value(self, context: CalibrationContext, value: dict[str, float]) -> None:
        await context.biases.set_voltage("carver", value["null_v"])
        await context.need_source().set_rf(carver_v=value["rf_v"])
        await context.settle()

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await self.apply_value(context, record.value)

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
        source = context.need_source()
        await source.set_rf(carver_v=0.0)
        await shine(context, LightMode.NULL)
        try:
            return await dither_check(context, record, "carver", "pa1", record.value["null_v"], "null")
        finally:
            await source.set_rf(carver_v=record.value["rf_v"])
            await shine(context, LightMode.OFF)

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        v, x, y = record.value, np.asarray(raw["volts"]), np.asarray(raw["pa1"])
        scale, unit = unit_for(float(y.max()))
        model = sinusoid(v["offset_a"], v["visibility"], v["phi0_rad"], v["v_pi_v"])
        marks = [(v["null_v"], "null"), (v["peak_v"], "peak")]
        label = f"photocurrent of pa1 ({unit})"
        return [curve("Carver against its bias", "bias (V)", label, x, y, model, marks=marks, y_scale=scale)]
