"""The receiver's basis splitter to the wanted share."""

from __future__ import annotations

from math import acos
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Array, FitRefused, Fringe, choose_power
from calibration.procedure import Procedure
from calibration.procedures.sweeps import count_sigma, heater_fringe, heater_sweep
from calibration.procedures.tags import choose_scale, total_rates
from calibration.record import Record, as_matrix

READ_S = 0.04


async def sweep_basis(
    context: CalibrationContext, near_w: float | None = None
) -> tuple[Array, dict[str, Array], Fringe, float]:
    """Fringe of DZ against the basis heater (its bar port); it is left at the wanted share.

    Both slopes have it: the place nearest to `near_w` is taken where that is given, so that the die keeps its
    temperature, else that of least power. Raises FitRefused.
    """

    async def row() -> dict[str, float]:
        rates = await total_rates(context, READ_S)
        return {"z": float(rates[0]), "x": float(rates[1] + rates[2])}

    powers, seen = await heater_sweep(context, "basis", row)
    fringe = heater_fringe(context, powers, seen["z"], count_sigma(seen["z"] * READ_S) / READ_S, 0.6)
    # Z keeps 1 - kappa of its largest rate: (1 + V cos p)/(1 + V) = 1 - kappa.
    share = 1.0 - context.settings.basis_split
    cosine = (share * (1.0 + fringe.visibility) - 1.0) / fringe.visibility
    if abs(cosine) > 1.0:
        raise FitRefused(f"a share of {1.0 - share:.2f} is out of reach with visibility {fringe.visibility:.3f}")
    top = context.drive.max_power("basis")
    targets = (acos(cosine), -acos(cosine))
    if near_w is None:
        chosen = min(choose_power(fringe, t, top).power_w for t in targets)
    else:
        chosen = min((r for t in targets for r in fringe.roots(t, 0.0, top)), key=lambda r: abs(r - near_w))
    await context.drive.set_power("basis", chosen)
    await context.settle()
    return powers, seen, fringe, chosen


class BasisSplit(Procedure):
    """B0 to kappa_B by the fringe of DZ itself, so that efficiencies and losses do not matter (reference pair A3)."""

    name: ClassVar[str] = "basis_split"
    needs: ClassVar[tuple[str, ...]] = ("detector_delay",)

    async def calibrate(self, context: CalibrationContext) -> Record:
        await choose_scale(context)
        powers, seen, fringe, chosen = await sweep_basis(context)
        value = {
            "visibility": fringe.visibility,
            "phi0_rad": fringe.phi0_rad,
            "p_pi_w": fringe.x_pi,
            "power_w": chosen,
            "wanted_share": context.settings.basis_split,
        }
        return await self.make_record(
            context,
            value,
            {"power_w": powers, **seen},
            names=("visibility", "phi0_rad", "p_pi_w"),
            covariance=as_matrix(np.asarray(fringe.covariance, dtype=np.float64)[1:, 1:]),
            residual_rms=fringe.residual_rms,
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power("basis", record.value["power_w"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> str | None:
        wanted = context.settings.basis_split
        return None if record.value["wanted_share"] == wanted else f"a share of {wanted} is asked for now"
