"""The transmitter's attenuator table against the light that arrives."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, log, sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused, LightRefused
from calibration.dead_time import true_rate
from calibration.fit import Array, FitRefused
from calibration.names import DETECTORS
from calibration.plot import Figure, Plot, Series
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.procedures.tags import (
    LEAST_SCALE,
    MOST_SCALE,
    NO_LIGHT,
    choose_scale,
    dead_times,
    illuminate,
    no_light,
    total_rates,
)
from calibration.record import Record, as_matrix
from drivers.roles import LightMode

STEPS_DB = (-10.0, -5.0, 0.0, 4.0, 8.0)
READ_S = 0.3
# Light wanders by polarisation and laser meanwhile (pair A7), and this is what a table of this kind says of itself.
WANDER_DB, TABLE_SIGMA_DB = 0.01, 0.02
# Standard uncertainties beyond which the table is not what it says.
LIMIT = 4.0
DB = 10.0 / log(10.0)


class AttenuatorCheck(Procedure):
    """Count rates at known steps of the transmitter's attenuator, dark counts and dead time taken off, against what its
    table makes of them (reference control B10, pair A2, A7). Names the step that is not what the table says.
    """

    name: ClassVar[str] = "attenuator_check"
    needs: ClassVar[tuple[str, ...]] = ("dead_time",)
    valid_s: ClassVar[float] = 30 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    deferred: ClassVar[bool] = True
    cost_s: ClassVar[float] = 3.5
    equation: ClassVar[str] = "deviation = 10 log10(n / n_0) - step, n = m / (1 - m tau) - dark"

    async def calibrate(self, context: CalibrationContext) -> Record:
        base = await choose_scale(context, 0, context.settings.target_rate)
        tau, tau_sigma = dead_times(context)
        darks = np.array([context.record("detector_bias").value[f"{n}_dark_hz"] for n in DETECTORS])
        seen, counted, steps = [], [], []
        for k, step in enumerate(STEPS_DB):
            scale = base * 10.0 ** (step / 10.0)
            if not LEAST_SCALE <= scale <= MOST_SCALE:
                continue
            try:
                await illuminate(context, 0, scale)
            except LightRefused:
                # At a long fibre the attenuator is near its end: what it can still give is checked.
                continue
            rates = await total_rates(context, READ_S)
            steps.append(step)
            counted.append(rates)
            seen.append(true_rate(rates, tau) - darks)
            self.report(context, (k + 1) / len(STEPS_DB))
        await context.need_light().set(LightMode.OFF)
        total = np.array([float(r.sum()) for r in seen])
        if not len(total) or total.max() < NO_LIGHT * context.settings.target_rate:
            raise no_light(context, float(total.max(initial=0.0)), base)
        if len(steps) < 3 or 0.0 not in steps:
            raise FitRefused(f"the transmitter gave {len(steps)} of {len(STEPS_DB)} steps of light; 3 are needed")
        at = steps.index(0.0)
        deviation = DB * np.log(np.maximum(total, 1.0) / total[at]) - np.array(steps)
        # Counting is each step's own, the reference's is common; a wrong dead time bends the scale.
        noise = DB * np.sqrt(1.0 / np.maximum(total * READ_S, 1.0))
        blind = DB * np.array([float(np.sqrt(np.sum(np.square(r * r * tau_sigma)))) / float(r.sum()) for r in seen])
        own = np.hypot(noise, WANDER_DB)
        names = [f"step_{k}_deviation_db" for k in range(len(steps)) if k != at]
        keep = [k for k in range(len(steps)) if k != at]
        bent = (blind - blind[at])[keep]
        covariance = np.diag(own[keep] ** 2) + own[at] ** 2 + np.outer(bent, bent)
        value = {f"step_{k}_db": steps[k] for k in keep}
        value |= {n: float(deviation[k]) for n, k in zip(names, keep, strict=True)}
        value["scale"] = base
        self._judge(steps, deviation, np.sqrt(np.diag(covariance)), keep)
        return await self.make_record(
            context,
            value,
            {"steps_db": steps, "rates": np.array(counted), "true": np.array(seen), "deviation_db": deviation},
            names=tuple(names),
            covariance=as_matrix(covariance),
            residual_rms=float(np.sqrt(np.mean(deviation[keep] ** 2))),
            residuals=deviation[keep].tolist(),
        )

    def _judge(self, steps: list[float], deviation: Array, sigma: Array, keep: list[int]) -> None:
        for k, own in zip(keep, sigma, strict=True):
            limit = LIMIT * hypot(float(own), TABLE_SIGMA_DB * sqrt(2.0))
            if abs(deviation[k]) > limit:
                raise CalibrationRefused(
                    self.name,
                    f"the transmitter's attenuator: a step of {steps[k]:+.1f} dB by its table is "
                    f"{steps[k] + deviation[k]:+.3f} dB of counts, {deviation[k]:+.3f} dB off; {limit:.3f} dB is the "
                    "limit",
                )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        steps, off = np.asarray(raw["steps_db"]), 1e3 * np.asarray(raw["deviation_db"])
        flat = Series("table", steps.tolist(), [0.0] * len(steps), "line")
        read = Series("counts", steps.tolist(), off.tolist())
        title = "Attenuator's table against counts"
        return [Plot(title, "step by the table (dB)", "deviation (mdB)", [read, flat])]
