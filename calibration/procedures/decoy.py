"""Decoy modulator: bias to its peak, drive to the wanted ratio of intensities."""

from __future__ import annotations

from collections.abc import Sequence
from math import acos, hypot, log, pi, sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import Point, zero_crossing
from calibration.noise import reading_noise
from calibration.plot import Figure
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.figures import curve, sinusoid, unit_for
from calibration.procedures.fringes import measure_bias
from calibration.procedures.light import energy, reader, shine, sigma_of
from calibration.procedures.sweeps import dither_bias, nearest
from calibration.record import Record, diagonal
from drivers.roles import LightMode

# How far the ratio may be from what was asked after the last round, relative.
RATIO_LIMIT = 0.02
SAMPLES = 32
# Amplitude of the dither at the peak as a share of V_pi, and how many periods: a peak is flat.
DEPTH, PERIODS = 0.2, 2
# How far D creeps from its step to the peak until the record is made, 0.8 s later (reference pair A7), rad.
CREPT_RAD = 8e-4
# Relative drift of the ratio before the decoy's gain ratio in service must have taken it out.
CHECK_LIMIT = 0.03
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
    cost_s: ClassVar[float] = 1.2
    check_disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    renews: ClassVar[bool] = True
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = "I(pa3) = A [1 + V cos(phi0 + pi v / V_pi)]; ratio = (D/S - b) / (1 - b)"

    async def calibrate(self, context: CalibrationContext) -> Record:
        await shine(context, LightMode.FIX, 0)
        bias = await measure_bias(context, self.name, "decoy", "pa3", "the state modulator was calibrated on it")
        curve_, reach = bias.fringe, context.settings.modulator_sweep_v
        self.report(context, 0.4, f"V_pi {curve_.x_pi:.2f} V")
        peak, peak_volts, peak_seen = await dither_bias(
            context,
            "decoy",
            nearest(curve_.roots(0.0, -reach, reach)),
            curve_.x_pi,
            reader(context, "pa3"),
            sigma_of(context, "pa3"),
            kind="peak",
            depth=DEPTH,
            periods=PERIODS,
        )
        rf, background, leak = await self._drive(context, curve_.x_pi, peak.x)
        ratio, sigma = await self._ratio(context, background)
        wanted = context.settings.decoy_ratio
        if abs(ratio / wanted - 1.0) > RATIO_LIMIT:
            raise CalibrationRefused(
                self.name, f"intensity ratio {ratio:.4f} instead of {wanted:.4f}; {RATIO_LIMIT:.0%} is the limit"
            )
        value = {"v_pi_v": curve_.x_pi, "peak_v": peak.x, "rf_v": rf.x, "ratio": ratio, "wanted_ratio": wanted}
        slope = await self._slope(context, peak.x, SLOPE_STEP * curve_.x_pi, background)
        value |= {"background": background, "extinction": leak, "ratio_slope_per_v": slope}
        value |= {"offset_a": curve_.offset, "visibility": curve_.visibility, "phi0_rad": curve_.phi0_rad}
        # What the drive's line and the final ratio share: the amplifier's slope over the step between intensities.
        steep = log(1.0 / wanted) * context.factory.photodiode("pa3").log_slope_relative_sigma
        rf_sigma = hypot(rf.sigma, hypot(steep * sqrt(wanted / (1.0 - wanted)), CREPT_RAD) / abs(rf.slope))
        crept = CREPT_RAD * sqrt((1.0 - wanted) / wanted)
        peak_sigma = hypot(peak.sigma, CREPT_RAD * curve_.x_pi / pi)
        sigmas = [bias.v_pi_sigma, peak_sigma, rf_sigma, ratio * hypot(sigma, steep, crept)]
        return await self.make_record(
            context,
            value,
            {"volts": bias.volts, "pa3": bias.y, "peak_volts": peak_volts, "peak_pa3": peak_seen},
            names=("v_pi_v", "peak_v", "rf_v", "ratio"),
            covariance=diagonal(sigmas),
            residual_rms=curve_.residual_rms,
            residuals=curve_.residuals.tolist(),
        )

    async def _ratio(self, context: CalibrationContext, background: float = 0.0) -> tuple[float, float]:
        """(decoy over signal in the windows, its relative standard uncertainty by the readings)."""
        decoy = await energy(context, 0, 1, SAMPLES) + await energy(context, 1, 1, SAMPLES)
        signal = await energy(context, 0, 0, SAMPLES) + await energy(context, 1, 0, SAMPLES)
        ratio = (decoy / signal - background) / (1.0 - background)
        noise = reading_noise(context)
        sigma = hypot(noise.share("pa3", decoy / 2.0, SAMPLES), noise.share("pa3", signal / 2.0, SAMPLES)) / sqrt(2.0)
        return ratio, sigma * decoy / signal / max(ratio, 1e-6)

    async def _slope(self, context: CalibrationContext, peak_v: float, step_v: float, background: float) -> float:
        """d ln(ratio) / dV of the bias: what the public gains of both intensities say about the bias in service."""
        seen = []
        for volts in (peak_v - step_v, peak_v + step_v):
            await context.biases.set_voltage("decoy", volts)
            await context.settle()
            ratio, _ = await self._ratio(context, background)
            seen.append(log(max(ratio, 1e-6)))
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
        y, s = np.zeros(3), np.zeros(3)
        for k in range(3):
            await source.set_rf(decoy_v=float(x[k]))
            ratio, s[k] = await self._ratio(context, background)
            # As an angle, ratio = cos^2(angle / 2), it goes straight with the drive.
            ratio = min(max(ratio, 1e-6), 1.0 - 1e-6)
            y[k] = 2.0 * (acos(sqrt(ratio)) - acos(sqrt(wanted)))
            s[k] *= sqrt(ratio / (1.0 - ratio))
        found = zero_crossing(x, y, s)
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

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult | str:
        wanted = context.settings.decoy_ratio
        if record.value["wanted_ratio"] != wanted:
            return f"a ratio of {wanted:.4f} is asked for now"
        try:
            ratio, sigma = await self._ratio(context, record.value["background"])
        finally:
            await shine(context, LightMode.OFF)
        off, limit = ratio / record.value["ratio"] - 1.0, CHECK_LIMIT + 5.0 * sigma
        if abs(off) > limit:
            why = f"intensity ratio {ratio:.4f}, {off:+.1%} from its record; the limit is {limit:.1%}"
            return CheckResult.out_of_spec(why, {"ratio": ratio})
        return CheckResult.in_spec({"ratio": ratio})

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        v, x, y = record.value, np.asarray(raw["volts"]), np.asarray(raw["pa3"])
        scale, unit = unit_for(float(y.max()))
        model = sinusoid(v["offset_a"], v["visibility"], v["phi0_rad"], v["v_pi_v"])
        label, marks = f"photocurrent of pa3 ({unit})", [(v["peak_v"], "peak")]
        return [curve("Decoy modulator against its bias", "bias (V)", label, x, y, model, marks=marks, y_scale=scale)]
