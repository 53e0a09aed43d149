"""Path delay of each detector, from the fold of its clicks modulo the symbol period."""

from __future__ import annotations

from math import sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import FitRefused
from calibration.fold import find_period, strongest, wrap
from calibration.names import DETECTORS
from calibration.procedure import Procedure
from calibration.procedures.tags import choose_scale, collect, tagging
from calibration.record import Record, diagonal

READ_S = 0.08
# Powers (shares of the range) of split and combine to try until both early peaks stand out in both X detectors.
SHARES = tuple((split, combine) for split in (0.2, 0.4, 0.6) for combine in (0.2, 0.4, 0.6))
VISIBLE = 0.04


class DetectorDelay(Procedure):
    """FIX Z0 light: DZ has one peak, the X detectors two, 800 ps apart (short and long arm) (reference pair A1, B3).

    `delay_*_ps` is against DZ: what a click of that detector lags behind one of DZ from the same light. `clock_offset`
    is the symbol period on the tag clock over nominal, minus one.
    """

    name: ClassVar[str] = "detector_delay"
    needs: ClassVar[tuple[str, ...]] = ("detector_bias",)
    valid_s: ClassVar[float] = 30 * 86_400.0

    async def calibrate(self, context: CalibrationContext) -> Record:
        await choose_scale(context)
        async with tagging(context):
            for n, (split, combine) in enumerate(SHARES):
                if n:
                    await context.drive.set_power("split", split * context.drive.max_power("split"))
                    await context.drive.set_power("combine", combine * context.drive.max_power("combine"))
                    await context.settle()
                found = await self._measure(context)
                self.report(context, (n + 1) / len(SHARES))
                if found is not None:
                    return found
        raise FitRefused(f"the X detectors show no pair of peaks {context.settings.bin_ps:.0f} ps apart")

    async def _measure(self, context: CalibrationContext) -> Record | None:
        t, channel = await collect(context, READ_S)
        s = context.settings
        period = find_period(t[channel == 0], s.symbol_period_ps, s.clock_offset_max)
        value = {"clock_offset": period.offset}
        positions, counts = [], []
        for d in range(len(DETECTORS)):
            own = t[channel == d]
            comb = (0.0,) if d == 0 else (0.0, s.bin_ps)
            position, weakest = strongest(period.fold(own), period.period_ps, comb)
            if len(own) < 200 or weakest < VISIBLE:
                return None
            positions.append(position)
            counts.append(len(own))
        for name, position in zip(DETECTORS, positions, strict=True):
            value[f"delay_{name}_ps"] = float(wrap(np.array(position - positions[0]), period.period_ps))
        # Jitter of 50 ps FWHM and below: 21 ps rms, over the square root of the clicks of both ends.
        sigmas = [21.0 * sqrt(1.0 / counts[d] + 1.0 / counts[0]) for d in (1, 2)]
        return await self.make_record(
            context,
            value,
            {"positions": positions, "counts": counts},
            names=("delay_dx0_ps", "delay_dx1_ps"),
            covariance=diagonal(sigmas),
        )
