"""The transmitter's optical shutter: bar lets light out, cross is dark."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import choose_power
from calibration.noise import amplifier_variants
from calibration.plot import Figure
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.figures import curve, sinusoid
from calibration.procedures.fringes import block, measure
from calibration.procedures.light import SAMPLES, brightest_z, must_live, ratio_sigma, shine
from calibration.procedures.sweeps import heater_sweep, set_to_phase
from calibration.record import Record, block_diagonal
from drivers.roles import LightMode

# Share of the light that may leave by the cross port while the shutter is open.
CHECK_LIMIT = 0.02


class Shutter(Procedure):
    """A3 by PA4 at its cross port over PA3 before it, sin^2(d/2): bar at the minimum; cross, the safe state, at the
    maximum (pair A2).

    `unpowered_transmission` says how dark the module is with its heater rail off.
    """

    name: ClassVar[str] = "shutter"
    needs: ClassVar[tuple[str, ...]] = ("state_bias",)
    cost_s: ClassVar[float] = 0.3
    check_disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    renews: ClassVar[bool] = True
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = "I(pa4) / I(pa3) = ratio [1 + visibility cos(phi0 + pi P / P_pi)]"

    async def calibrate(self, context: CalibrationContext) -> Record:
        await brightest_z(context)

        async def row() -> dict[str, float]:
            return await context.photocurrents("pa4", "pa3", samples=SAMPLES)

        powers, seen = await heater_sweep(context, "shutter", row, done=lambda f: self.report(context, f))
        pa4, pa3 = seen["pa4"], seen["pa3"]
        must_live(self.name, "pa4", pa4, "pa3 sees the light before the shutter")
        y = pa4 / pa3
        variants = [v / pa3 for v in amplifier_variants(context, "pa4", pa4)]
        variants += [pa4 / v for v in amplifier_variants(context, "pa3", pa3)]
        sigma = np.abs(y) * ratio_sigma(context, "pa4", "pa3", pa4, pa3, SAMPLES)
        found = measure(context, "shutter", powers, seen, y, sigma, 0.5, variants)
        cross = choose_power(found.fringe, 0.0, context.drive.max_power("shutter"))
        bar = await set_to_phase(context, "shutter", found.fringe, pi)
        value = found.value
        value["ratio"] = value.pop("offset_a")
        value |= {
            "bar_w": bar.power_w,
            "cross_w": cross.power_w,
            "bar_margin": bar.margin,
            "cross_margin": cross.margin,
            "order": bar.order,
            "unpowered_transmission": float(np.cos((found.fringe.phase(0.0) - pi) / 2.0) ** 2),
        }
        return await self.make_record(
            context,
            value,
            {"power_w": powers, **seen},
            names=("visibility", "phi0_rad", "p_pi_w", "bar_w", "cross_w"),
            covariance=block_diagonal(
                [
                    found.covariance[1:, 1:],
                    block(found.power_sigma(bar.power_w), found.power_sigma(cross.power_w)),
                ]
            ),
            residual_rms=found.fringe.residual_rms,
            residuals=found.fringe.residuals.tolist(),
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power("shutter", record.value["bar_w"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
        """Open as it is now: how much leaves by the cross port."""
        await brightest_z(context)
        try:
            seen = await context.photocurrents("pa4", "pa3", samples=SAMPLES)
        finally:
            await shine(context, LightMode.OFF)
        if seen["pa3"] <= 0.0:
            raise CalibrationRefused(self.name, f"no light before the shutter: pa3 sees {seen['pa3']:.2g} A")
        share = seen["pa4"] / seen["pa3"] / (record.value["ratio"] * (1.0 + record.value["visibility"]))
        read = {"cross_share": share}
        if share > CHECK_LIMIT:
            why = f"open, {share:.1%} of the light leaves by the cross port; {CHECK_LIMIT:.0%} is the limit"
            return CheckResult.out_of_spec(why, read)
        return CheckResult.in_spec(read)

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        v, x, y = record.value, np.asarray(raw["power_w"]), np.asarray(raw["pa4"]) / np.asarray(raw["pa3"])
        model = sinusoid(v["ratio"], v["visibility"], v["phi0_rad"], v["p_pi_w"])
        marks = [(v["bar_w"], "bar"), (v["cross_w"], "cross")]
        label = "photocurrent pa4 / pa3 (1)"
        return [curve("Shutter", "heater power (mW)", label, x, y, model, marks=marks, x_scale=1e3)]
