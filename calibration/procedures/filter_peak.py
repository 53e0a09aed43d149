"""Laser filter to the peak of its transmission."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.noise import amplifier_variants, reading_noise
from calibration.plot import Figure
from calibration.procedure import CheckResult, Procedure, Raw
from calibration.procedures.figures import curve, sinusoid, unit_for
from calibration.procedures.fringes import NAMES, block, measure
from calibration.procedures.light import SAMPLES, must_live, reader, sigma_of
from calibration.procedures.sweeps import heater_sweep, set_to_phase
from calibration.record import Record, block_diagonal

# In service the filter may be this far from its peak before it is out: d^2/4 of the light.
CHECK_LOSS = 0.03


class FilterPeak(Procedure):
    """A0 to the peak of PA0: T = (1 + cos d)/2 (reference pair A2)."""

    name: ClassVar[str] = "filter_peak"
    needs: ClassVar[tuple[str, ...]] = ("heater_iv", "laser")
    cost_s: ClassVar[float] = 0.3
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = "I(pa0) = offset [1 + visibility cos(phi0 + pi P / P_pi)]"

    async def calibrate(self, context: CalibrationContext) -> Record:
        read = reader(context, "pa0")

        async def row() -> dict[str, float]:
            return {"pa0": await read()}

        powers, seen = await heater_sweep(context, "filter", row, done=lambda f: self.report(context, f))
        y = seen["pa0"]
        must_live(self.name, "pa0", y, "tap pa6 sees the laser")
        found = measure(
            context,
            "filter",
            powers,
            seen,
            y,
            sigma_of(context, "pa0")(y),
            0.5,
            amplifier_variants(context, "pa0", y),
        )
        chosen = await set_to_phase(context, "filter", found.fringe, 0.0)
        value = found.value | {"power_w": chosen.power_w, "order": chosen.order, "margin": chosen.margin}
        value["through"] = await _through(context)
        return await self.make_record(
            context,
            value,
            {"power_w": powers, **seen},
            names=(*NAMES, "power_w"),
            covariance=block_diagonal([found.covariance, block(found.power_sigma(chosen.power_w))]),
            residual_rms=found.fringe.residual_rms,
            residuals=found.fringe.residuals.tolist(),
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power("filter", record.value["power_w"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult | None:
        """PA0 against PA6, whatever the laser's power is: only reads."""
        if "through" not in record.value:
            return None
        now = await _through(context)
        left = now / record.value["through"]
        noise = reading_noise(context)
        limit = hypot(CHECK_LOSS, 5.0 * hypot(noise.of("pa0", SAMPLES), noise.of("pa6", SAMPLES)))
        if abs(left - 1.0) > limit:
            why = f"the filter lets through {left - 1.0:+.1%} against its calibration; the limit is {limit:.1%}"
            return CheckResult.out_of_spec(why, {"through": now})
        return CheckResult.in_spec({"through": now})

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        v, x, y = record.value, np.asarray(raw["power_w"]), np.asarray(raw["pa0"])
        scale, unit = unit_for(float(y.max()))
        model = sinusoid(v["offset_a"], v["visibility"], v["phi0_rad"], v["p_pi_w"])
        return [
            curve(
                "Laser filter: light behind it",
                "heater power (mW)",
                f"photocurrent of pa0 ({unit})",
                x,
                y,
                model,
                marks=[(v["power_w"], "peak")],
                x_scale=1e3,
                y_scale=scale,
            )
        ]


async def _through(context: CalibrationContext) -> float:
    """Light behind the filter over light before it, as photocurrents."""
    seen = await context.photocurrents("pa0", "pa6", samples=SAMPLES)
    if seen["pa6"] <= 0.0:
        raise CalibrationRefused("filter_peak", f"tap pa6 sees {seen['pa6']:.2g} A: no light from the laser")
    return seen["pa0"] / seen["pa6"]
