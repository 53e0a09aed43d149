"""Last degrees of the state modulator, from ratios of energies that do not care for absolute light."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import log
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Point, zero_crossing
from calibration.procedure import Procedure
from calibration.procedures.amzi_split import RATIO_SIGMA
from calibration.procedures.light import energy
from calibration.record import Record, diagonal

BIAS_STEP = 0.03
DRIVE_STEP = 0.04


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
            return log(await energy(context, 2) / await energy(context, 3))

        async def xz_ratio() -> float:
            x = await energy(context, 2) + await energy(context, 3)
            return log(x / (await energy(context, 0) + await energy(context, 1)))

        first = await _trim(context, bias, coarse["null_v"], BIAS_STEP * coarse["v_pi_v"], x_ratio)
        self.report(context, 0.3)
        rf = await _trim(context, drive, coarse["rf_v"], DRIVE_STEP * coarse["rf_v"], xz_ratio)
        self.report(context, 0.7)
        null = await _trim(context, bias, first.x, BIAS_STEP * coarse["v_pi_v"], x_ratio)
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
    """Zero of a logarithm of a ratio by a line through three settings; the output is left there."""
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
