"""The attenuator's table, as far as a module without a monitor behind its attenuator can check it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import judged, linear
from calibration.plot import Figure, Plot, Series
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.record import Record, as_matrix

# Scatter of the factory's single entries against one another, dB; the whole table is uncertain by `sigma_db`.
ENTRY_DB = 0.003
POINTS_V = (0.5, 1.5, 2.5, 3.5, 4.5)


class AttenuatorTable(Procedure):
    """A mirror that tilts with its voltage attenuates by a parabola in dB (reference pair A2): the factory's table must
    be one. Names the entry that is not; the parabola's values are recorded with the table's own uncertainty.

    The receiver's detections are what measures it: this moves nothing.
    """

    name: ClassVar[str] = "voa"
    valid_s: ClassVar[float] = 90 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.NOTHING
    deferred: ClassVar[bool] = True
    cost_s: ClassVar[float] = 0.01
    equation: ClassVar[str] = "A(V) = a + b V + c V^2 (dB)"

    async def calibrate(self, context: CalibrationContext) -> Record:
        table = context.factory.voa
        if table is None:
            raise CalibrationRefused(self.name, "the factory record has no attenuator table")
        volts, db = np.array(table.volts), np.array(table.db)
        design = np.vander(volts, 3, increasing=True)
        fit = judged(linear(design, db, np.full(len(db), ENTRY_DB), absolute=True), "attenuator table", bounded=True)
        worst = int(np.argmax(np.abs(fit.residuals)))
        if abs(fit.residuals[worst]) > 8.0 * ENTRY_DB:
            raise CalibrationRefused(
                self.name,
                f"the table says {db[worst]:.3f} dB at {volts[worst]:.2f} V, {fit.residuals[worst]:+.3f} dB from all "
                f"others; {8.0 * ENTRY_DB:.3f} dB is the limit",
            )
        at = np.vander(np.array(POINTS_V), 3, increasing=True)
        value = {f"db_{round(1000 * v)}": float(a) for v, a in zip(POINTS_V, at @ fit.parameters, strict=True)}
        names = tuple(value)
        value |= dict(zip(("constant_db", "linear_db", "square_db"), fit.parameters.tolist(), strict=True))
        return await self.make_record(
            context,
            value,
            {"table_v": volts, "table_db": db},
            names=names,
            covariance=as_matrix(at @ fit.covariance @ at.T + table.sigma_db**2),
            residual_rms=fit.residual_rms,
            residuals=fit.residuals.tolist(),
        )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        volts, left = np.asarray(raw["table_v"]), [1e3 * r for r in record.residuals]
        series = [Series("table less parabola", volts.tolist(), left)]
        return [Plot("Attenuator's table", "drive (V)", "residual (mdB)", series)]
