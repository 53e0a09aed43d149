"""Decoy modulator: bias to its peak, drive to the wanted ratio of intensities."""

from __future__ import annotations

from math import acos, log, pi, sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import Point, zero_crossing
from calibration.procedure import Procedure
from calibration.procedures.amzi_split import RATIO_SIGMA
from calibration.procedures.light import energy, reader, shine
from calibration.procedures.sweeps import bias_curve, nearest, refine_bias
from calibration.record import Record, diagonal
from drivers.roles import LightMode

# How far the ratio may be from what was asked after the last round, relative.
RATIO_LIMIT = 0.02


class Decoy(Procedure):
    """D to its peak on PA3 in FIX Z0, drive so that FIX Z,decoy / FIX Z,signal is the wanted ratio (reference pair A2).

    T = cos^2((theta + d)/2); theta_d = 2 acos sqrt(r).
    """

    name: ClassVar[str] = "decoy"
    needs: ClassVar[tuple[str, ...]] = ("state_trim",)
    valid_s: ClassVar[float] = 86_400.0

    async def calibrate(self, context: CalibrationContext) -> Record:
        read = reader(context, "pa3")
        await shine(context, LightMode.FIX, 0)
        curve, volts, seen = await bias_curve(context, "decoy", read)
        self.report(context, 0.4, f"V_pi {curve.x_pi:.2f} V")
        reach = context.settings.modulator_sweep_v
        around = nearest(curve.roots(0.0, -reach, reach))
        peak, peak_volts, peak_seen = await refine_bias(
            context, "decoy", around, 0.25 * curve.x_pi, read, minimum=False
        )
        rf = await self._drive(context, curve.x_pi)
        ratio = await self._ratio(context)
        wanted = context.settings.decoy_ratio
        if abs(ratio / wanted - 1.0) > RATIO_LIMIT:
            raise CalibrationRefused(
                self.name, f"intensity ratio {ratio:.4f} instead of {wanted:.4f}; {RATIO_LIMIT:.0%} is the limit"
            )
        value = {"v_pi_v": curve.x_pi, "peak_v": peak.x, "rf_v": rf.x, "ratio": ratio, "wanted_ratio": wanted}
        return await self.make_record(
            context,
            value,
            {"volts": volts, "pa3": seen, "peak_volts": peak_volts, "peak_pa3": peak_seen},
            names=("v_pi_v", "peak_v", "rf_v", "ratio"),
            covariance=diagonal([float(np.sqrt(curve.covariance[3, 3])), peak.sigma, rf.sigma, ratio * RATIO_SIGMA]),
            residual_rms=curve.residual_rms,
        )

    async def _ratio(self, context: CalibrationContext) -> float:
        decoy = await energy(context, 0, 1) + await energy(context, 1, 1)
        return decoy / (await energy(context, 0, 0) + await energy(context, 1, 0))

    async def _drive(self, context: CalibrationContext, v_pi: float) -> Point:
        """Line through three amplitudes about the expected one, closing in: the drive's V_pi is not the bias's."""
        source, wanted = context.need_source(), context.settings.decoy_ratio
        at, found = v_pi * 2.0 * acos(sqrt(wanted)) / pi, Point(0.0, 0.0, 0.0, 0.0)
        for span in (0.06, 0.06, 0.02):
            x = at * (1.0 + span * np.array([-1.0, 0.0, 1.0]))
            y = np.zeros(3)
            for k in range(3):
                await source.set_rf(decoy_v=float(x[k]))
                y[k] = log(await self._ratio(context) / wanted)
            found = zero_crossing(x, y, np.full(3, RATIO_SIGMA))
            at = float(np.clip(found.x, 0.8 * at, 1.2 * at))
        await source.set_rf(decoy_v=at)
        await context.settle()
        return Point(at, found.sigma, 0.0, found.slope)

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.biases.set_voltage("decoy", record.value["peak_v"])
        await context.need_source().set_rf(decoy_v=record.value["rf_v"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> str | None:
        wanted = context.settings.decoy_ratio
        if record.value["wanted_ratio"] != wanted:
            return f"a ratio of {wanted:.4f} is asked for now"
        return None
