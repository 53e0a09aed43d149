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
SAMPLES = 8
# Share of V_pi to both sides for the slope of the ratio.
SLOPE_STEP = 0.02


class Decoy(Procedure):
    """D to its peak on PA3 in FIX Z0, drive so that FIX Z,decoy / FIX Z,signal is the wanted ratio (reference pair A2).

    T = cos^2((theta + d)/2); theta_d = 2 acos sqrt(r). PA3 also sees what leaks between the slots' windows, where D is
    not driven: `background`, its share of a signal's reading, is measured with the pulses extinguished by D's own
    drive, and taken off; else the decoy would be too weak by twice that share.
    """

    name: ClassVar[str] = "decoy"
    needs: ClassVar[tuple[str, ...]] = ("state_trim",)
    gives: ClassVar[tuple[str, ...]] = ("ratio", "ratio_slope_per_v")
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
        rf, background, leak = await self._drive(context, curve.x_pi, peak.x)
        ratio = await self._ratio(context, background)
        wanted = context.settings.decoy_ratio
        if abs(ratio / wanted - 1.0) > RATIO_LIMIT:
            raise CalibrationRefused(
                self.name, f"intensity ratio {ratio:.4f} instead of {wanted:.4f}; {RATIO_LIMIT:.0%} is the limit"
            )
        value = {"v_pi_v": curve.x_pi, "peak_v": peak.x, "rf_v": rf.x, "ratio": ratio, "wanted_ratio": wanted}
        slope = await self._slope(context, peak.x, SLOPE_STEP * curve.x_pi, background)
        value |= {"background": background, "extinction": leak, "ratio_slope_per_v": slope}
        return await self.make_record(
            context,
            value,
            {"volts": volts, "pa3": seen, "peak_volts": peak_volts, "peak_pa3": peak_seen},
            names=("v_pi_v", "peak_v", "rf_v", "ratio"),
            covariance=diagonal([float(np.sqrt(curve.covariance[3, 3])), peak.sigma, rf.sigma, ratio * RATIO_SIGMA]),
            residual_rms=curve.residual_rms,
        )

    async def _ratio(self, context: CalibrationContext, background: float = 0.0) -> float:
        decoy = await energy(context, 0, 1, SAMPLES) + await energy(context, 1, 1, SAMPLES)
        signal = await energy(context, 0, 0, SAMPLES) + await energy(context, 1, 0, SAMPLES)
        return (decoy / signal - background) / (1.0 - background)

    async def _slope(self, context: CalibrationContext, peak_v: float, step_v: float, background: float) -> float:
        """d ln(ratio) / dV of the bias: what the public gains of both intensities say about the bias in service."""
        seen = []
        for volts in (peak_v - step_v, peak_v + step_v):
            await context.biases.set_voltage("decoy", volts)
            await context.settle()
            seen.append(log(max(await self._ratio(context, background), 1e-6)))
        await context.biases.set_voltage("decoy", peak_v)
        await context.settle()
        return (seen[1] - seen[0]) / (2.0 * step_v)

    async def _drive(self, context: CalibrationContext, v_pi: float, peak_v: float) -> tuple[Point, float, float]:
        """Lines through three amplitudes about the expected one, closing in: the drive's V_pi is not the bias's.

        Returns the drive, the background's share and D's own extinction.
        """
        turn = 2.0 * acos(sqrt(context.settings.decoy_ratio)) / pi
        rough = await self._line(context, turn * v_pi, 0.06, 0.0)
        rough = await self._line(context, rough.x, 0.06, 0.0)
        background, leak = await self._background(context, rough.x / turn, v_pi, peak_v)
        return await self._line(context, rough.x, 0.02, background), background, leak

    async def _line(self, context: CalibrationContext, at: float, span: float, background: float) -> Point:
        source, wanted = context.need_source(), context.settings.decoy_ratio
        x = at * (1.0 + span * np.array([-1.0, 0.0, 1.0]))
        y = np.zeros(3)
        for k in range(3):
            await source.set_rf(decoy_v=float(x[k]))
            y[k] = log(max(await self._ratio(context, background), 1e-6) / wanted)
        found = zero_crossing(x, y, np.full(3, RATIO_SIGMA))
        at = float(np.clip(found.x, 0.8 * at, 1.2 * at))
        await source.set_rf(decoy_v=at)
        await context.settle()
        return Point(at, found.sigma, 0.0, found.slope)

    async def _background(
        self, context: CalibrationContext, v_rf: float, v_pi: float, peak_v: float
    ) -> tuple[float, float]:
        """(share of PA3's reading that D's drive does not reach, D's extinction).

        At D's bias null everything is down by its extinction; at the drive's null only the pulses are.
        """
        low, high = context.biases.limits("decoy")
        null_v = peak_v - v_pi if peak_v - v_pi > low else peak_v + v_pi
        signal = await energy(context, 0, 0, SAMPLES) + await energy(context, 1, 0, SAMPLES)
        await context.biases.set_voltage("decoy", min(null_v, high))
        leak = (await energy(context, 0, 0, SAMPLES) + await energy(context, 1, 0, SAMPLES)) / signal
        await context.biases.set_voltage("decoy", peak_v)
        await context.need_source().set_rf(decoy_v=v_rf)
        left = (await energy(context, 0, 1, SAMPLES) + await energy(context, 1, 1, SAMPLES)) / signal
        return min(max(left - leak, 0.0), 0.05), leak

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.biases.set_voltage("decoy", record.value["peak_v"])
        await context.need_source().set_rf(decoy_v=record.value["rf_v"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> str | None:
        wanted = context.settings.decoy_ratio
        if record.value["wanted_ratio"] != wanted:
            return f"a ratio of {wanted:.4f} is asked for now"
        return None
