"""Last degrees of the state modulator, from ratios of energies that do not care for absolute light."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Point, zero_crossing
from calibration.procedure import Procedure
from calibration.procedures.amzi_split import RATIO_SIGMA
from calibration.procedures.light import energy
from calibration.record import Record, diagonal

# Shares of V_pi, coarse then fine: the second round is too narrow for the curvature of the laws to matter.
BIAS_STEPS = (0.03, 0.01)
DRIVE_STEPS = (0.04, 0.015)


class StateTrim(Procedure):
    """Bias to Q(X0) = Q(X1), which goes with 1 + sin d; drive to Q(X) = Q(Z), which goes with 1 + pi e/2 (pair A5)."""

    name: ClassVar[str] = "state_trim"
    needs: ClassVar[tuple[str, ...]] = ("state_bias", "amzi_split")
    valid_s: ClassVar[float] = 86_400.0

    async def calibrate(self, context: CalibrationContext) -> Record:
        coarse = context.record("state_bias").value
        source = context.need_source()

        async def bias(v: float) -> None:
            await context.biases.set_voltage("state", v)

        async def drive(v: float) -> None:
            await source.set_rf(state_v=v)

        async def x_ratio() -> float:
            return await energy(context, 2) / await energy(context, 3) - 1.0

        async def xz_ratio() -> float:
            x = await energy(context, 2) + await energy(context, 3)
            return x / (await energy(context, 0) + await energy(context, 1)) - 1.0

        null, rf = Point(coarse["null_v"], 0.0, 0.0, 0.0), Point(coarse["rf_v"], 0.0, 0.0, 0.0)
        first = null
        for n, (bias_step, drive_step) in enumerate(zip(BIAS_STEPS, DRIVE_STEPS, strict=True)):
            first = null = await _trim(context, bias, null.x, bias_step * coarse["v_pi_v"], x_ratio)
            rf = await _trim(context, drive, rf.x, drive_step * rf.x, xz_ratio)
            self.report(context, (n + 1) / len(BIAS_STEPS))
        # The drive shifts what the bias was balanced with; a last look at the bias costs 30 ms.
        null = await _trim(context, bias, null.x, BIAS_STEPS[-1] * coarse["v_pi_v"], x_ratio)
        value = {"null_v": null.x, "rf_v": rf.x, "null_slope_per_v": null.slope}
        return await self.make_record(
            context,
            value,
            {"null": [first.x, null.x], "rf": [rf.x]},
            names=("null_v", "rf_v"),
            covariance=diagonal([null.sigma, rf.sigma]),
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.biases.set_voltage("state", record.value["null_v"])
        await context.need_source().set_rf(state_v=record.value["rf_v"])
        await context.settle()


async def _trim(
    context: CalibrationContext,
    output: Callable[[float], Awaitable[None]],
    around: float,
    span: float,
    read: Callable[[], Awaitable[float]],
) -> Point:
    """Zero of a ratio less one by a line through three settings; the output is left there."""
    x = around + span * np.array([-1.0, 0.0, 1.0])
    y = np.zeros(3)
    for k in range(3):
        await output(float(x[k]))
        await context.settle()
        y[k] = await read()
    found = zero_crossing(x, y, np.full(3, RATIO_SIGMA))
    at = float(np.clip(found.x, around - 3 * span, around + 3 * span))
    await output(at)
    await context.settle()
    return Point(at, found.sigma, 0.0, found.slope)
