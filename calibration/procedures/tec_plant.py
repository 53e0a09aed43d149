"""The thermal plant behind the TEC controller, and the gains that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import FitRefused
from calibration.plot import Figure, Plot, Series
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.record import Record
from calibration.tec import PARAMETERS
from calibration.tec_experiment import Identified, Relay

# Readings of the stand-alone way, s apart.
READING_S = 0.1


class TecPlantIdentification(Procedure):
    """Slope, leak, lag and dead time from a driven current; SIMC gains with tau_c = theta; clamp 0.7 I_opt from the
    element's voltage (reference control B4).

    Usually there is nothing to wait for: the temperature loop identifies the plant on its first way to the set point
    and stores the record. Redone, it is a relay about the set point, 12 s, +-0.2 K: keys stop for that.
    """

    name: ClassVar[str] = "tec_plant"
    valid_s: ClassVar[float] = 30 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    cost_s: ClassVar[float] = 25.0
    deferred: ClassVar[bool] = True
    gives: ClassVar[tuple[str, ...]] = ("kp_a_per_k", "ti_s", "clamp_a")
    equation: ClassVar[str] = (
        "dT/dt = -s (I(t - dead) - I^2/(2 I_opt)) - T/tau + drift, lag dT_read/dt = T - T_read; "
        "kp = 1/(2 s theta), ti = min(tau, 8 theta), theta = dead + lag"
    )

    async def calibrate(self, context: CalibrationContext) -> Record:
        try:
            found = await (context.identify_tec() if context.identify_tec else self._alone(context))
        except FitRefused as e:
            raise CalibrationRefused(self.name, str(e)) from e
        self.report(context, 0.9, f"slope {found.plant.slope_k_per_a_s:.3f} K/s per A")
        return await self.record_of(context, found)

    async def record_of(self, context: CalibrationContext, found: Identified) -> Record:
        """The record of what an experiment found; the temperature loop stores its own through this."""
        return await self.make_record(
            context,
            found.values(context.settings.tec_current_limit_a),
            found.raw,
            names=PARAMETERS,
            covariance=[[float(x) for x in row] for row in found.plant.covariance],
            residual_rms=found.plant.residual_rms,
            residuals=found.plant.residuals,
        )

    async def _alone(self, context: CalibrationContext) -> Identified:
        """Without a temperature loop beside it: the controller regulates before and after."""
        tec, chosen = context.tec, Relay(context.settings.tec_current_limit_a)
        before = await tec.read()
        try:
            while True:
                reading = await tec.read()
                amperes = chosen.step(context.clock.monotonic(), reading)
                if amperes is None:
                    break
                if not chosen.drives(amperes):
                    await tec.drive_current(amperes)
                    chosen.drove(context.clock.monotonic(), amperes)
                await context.sleep(READING_S)
        except FitRefused:
            # A plant that answers the wrong way must not be regulated.
            await tec.enable(False)
            raise
        finally:
            await tec.drive_current(None)
        return chosen.evaluate().at(before.target_c)

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        t, y = raw["t_s"], raw["object_c"]
        begin = float(t[0])
        model = y - np.asarray(record.residuals) if len(record.residuals) == len(y) else y
        at, amperes = raw["driven_at_s"], raw["driven_a"]
        edges = np.repeat(np.append(at, t[-1])[1:], 2)[:-1]
        return (
            Plot(
                "Thermistor while the current is driven",
                "time (s)",
                "temperature (C)",
                (
                    Series("thermistor", list(t - begin), list(y)),
                    Series("model", list(t - begin), list(model), "line"),
                ),
                [(float(a) - begin, f"{i:+.2f} A") for a, i in zip(at, amperes, strict=True)],
            ),
            Plot(
                "Driven current",
                "time (s)",
                "current (A)",
                (Series("driven", [float(at[0]) - begin, *(edges - begin)], list(np.repeat(amperes, 2)), "line"),),
            ),
        )
