"""Path delay of each detector, from the fold of its clicks modulo the symbol period."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import FitRefused
from calibration.fold import find_period, histogram, spread, strongest, wrap
from calibration.names import DETECTORS
from calibration.plot import Figure
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.procedures.receiver_figures import arrivals
from calibration.procedures.tags import choose_scale, collect, tagging
from calibration.record import Record, as_matrix

READ_S = 0.08
# Pulse shape and gates shift each centroid by this, ps.
MODEL_PS = 0.15
# Delays of one detector agree to this from calibration to calibration, ps (fibres of a rack, some kelvin).
SAME_PS = 20.0
# The fibre's transit drifts by tens of ps in a second, 38 ps/(km K), and the clocks by 1e-11 (pair A7).
OFFSET_SIGMA = 2e-11
# Powers (shares of the range) of split and combine to try until both early peaks stand out in both X detectors.
SHARES = tuple((split, combine) for split in (0.2, 0.4, 0.6) for combine in (0.2, 0.4, 0.6))
VISIBLE = 0.04


class DetectorDelay(Procedure):
    """FIX Z0 light: DZ has one peak, the X detectors two, 800 ps apart (short and long arm) (reference pair A1, B3).

    `delay_*_ps` is against DZ: what a click of that detector lags behind one of DZ from the same light. `clock_offset`
    is the symbol period on the tag clock over nominal, minus one. Names X detectors whose delays are each other's of
    the record before.
    """

    name: ClassVar[str] = "detector_delay"
    needs: ClassVar[tuple[str, ...]] = ("detector_bias",)
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    cost_s: ClassVar[float] = 0.3
    equation: ClassVar[str] = "arrival = slot T (1 + offset) + delay_d (+ one bin by the long arm)"
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

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        return arrivals(record, raw)

    async def _measure(self, context: CalibrationContext) -> Record | None:
        t, channel = await collect(context, READ_S)
        s = context.settings
        period = find_period(t[channel == 0], s.symbol_period_ps, s.clock_offset_max)
        positions, counts, sigmas = [], [], []
        for d in range(len(DETECTORS)):
            own = t[channel == d]
            comb = (0.0,) if d == 0 else (0.0, s.bin_ps)
            phase = period.fold(own)
            position, weakest = strongest(phase, period.period_ps, comb)
            if len(own) < 200 or weakest < VISIBLE:
                return None
            positions.append(position)
            counts.append(len(own))
            sigmas.append(hypot(spread(phase, period.period_ps, position, comb), MODEL_PS))
        value = {"clock_offset": period.offset}
        for name, position in zip(DETECTORS, positions, strict=True):
            value[f"delay_{name}_ps"] = float(wrap(np.array(position - positions[0]), period.period_ps))
        self._must_be_itself(context, value)
        offset_sigma = hypot(sqrt(12.0) * sigmas[0] / (READ_S * 1e12), OFFSET_SIGMA)
        common = sigmas[0] ** 2
        covariance = np.diag(np.square([sigmas[1], sigmas[2], offset_sigma]))
        covariance[:2, :2] += common
        cells = {
            f"cells_{n}": histogram(period.fold(t[channel == d]), period.period_ps) for d, n in enumerate(DETECTORS)
        }
        return await self.make_record(
            context,
            value,
            {"positions": positions, "counts": counts, "period_ps": [period.period_ps], **cells},
            names=("delay_dx0_ps", "delay_dx1_ps", "clock_offset"),
            covariance=as_matrix(covariance),
        )

    def _must_be_itself(self, context: CalibrationContext, value: dict[str, float]) -> None:
        """The delays of a pair of cables that were exchanged are each other's. Raises CalibrationRefused."""
        former = context.store.active(self.name)
        if former is None:
            return
        now, then = (np.array([v[f"delay_{n}_ps"] for n in ("dx0", "dx1")]) for v in (value, former.value))
        period = context.settings.symbol_period_ps
        same, crossed = (float(np.abs(wrap(now - w, period)).max()) for w in (then, then[::-1]))
        if crossed < SAME_PS < SAME_PS * 5.0 < same:
            raise CalibrationRefused(
                self.name,
                f"detectors dx0 and dx1 are exchanged: they lag {now[0]:.0f} and {now[1]:.0f} ps behind dz, in record "
                f"{former.version} it was {then[0]:.0f} and {then[1]:.0f} ps",
            )
