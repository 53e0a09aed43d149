"""Last pass over the receiver's splitters, with every heater at its working power."""

from __future__ import annotations

from typing import ClassVar

from calibration.context import CalibrationContext
from calibration.procedure import Procedure
from calibration.procedures.basis_split import sweep_basis
from calibration.procedures.receiver_splits import arm_imbalance, early_bins, measure, port_imbalance
from calibration.procedures.sweeps import trim_power
from calibration.procedures.tags import choose_scale, tagging
from calibration.record import Record, diagonal
from drivers.roles import LightMode

SPAN_SHARE = 0.06


class CrosstalkTrim(Procedure):
    """B0, B1, B3 again: each step before moved its neighbours by up to 2 % of its own phase (reference pair A6.2).

    Leaves the light off and every heater of the receiver at its set point; the phase is the lock's from here on.
    """

    name: ClassVar[str] = "crosstalk_trim"
    needs: ClassVar[tuple[str, ...]] = ("arm_phase",)

    async def calibrate(self, context: CalibrationContext) -> Record:
        await choose_scale(context)
        _, _, _, basis = await sweep_basis(context, context.record("basis_split").value["power_w"])
        self.report(context, 0.4)
        arm, port = context.record("arm_split").value, context.record("combiner").value
        async with tagging(context):
            split = await trim_power(
                context, "split", arm["power_w"], SPAN_SHARE * arm["p_pi_w"], measure(context, arm_imbalance), rounds=1
            )
            combine = await trim_power(
                context,
                "combine",
                port["power_w"],
                SPAN_SHARE * port["p_pi_w"],
                measure(context, port_imbalance),
                rounds=1,
            )
            left = await early_bins(context)
        await context.need_light().set(LightMode.OFF)
        value = {
            "basis_w": basis,
            "split_w": split.x,
            "combine_w": combine.x,
            "arm_imbalance": arm_imbalance(left)[0],
            "port_imbalance": port_imbalance(left)[0],
        }
        return await self.make_record(
            context,
            value,
            left,
            names=("split_w", "combine_w"),
            covariance=diagonal([split.sigma, combine.sigma]),
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        for channel in ("basis", "split", "combine"):
            await context.drive.set_power(channel, record.value[f"{channel}_w"])
        await context.settle()
