"""Input and output coupler of the receiver's interferometer, both by early-only light."""

from __future__ import annotations

from abc import abstractmethod
from math import pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Array, FitRefused, Fringe, choose_power
from calibration.procedure import Procedure
from calibration.procedures.receiver_splits import (
    arm_imbalance,
    early_bins,
    efficiency_ratio,
    measure,
    port_imbalance,
)
from calibration.procedures.sweeps import heater_fringe, heater_sweep, trim_power
from calibration.procedures.tags import choose_scale, tagging
from calibration.record import Record, block_diagonal


class _Coupler(Procedure):
    """Fringe of one share over the heater's range for P_pi, then the logarithmic ratio itself to zero."""

    channel: ClassVar[str]

    @abstractmethod
    def law(self, b: dict[str, float]) -> tuple[float, float]:
        """Logarithmic ratio that is zero when the coupler is balanced, and its uncertainty, from early bins."""

    @abstractmethod
    def shares(self, seen: dict[str, Array]) -> tuple[Array, Array]:
        """(bar, cross) counts of a sweep."""

    async def calibrate(self, context: CalibrationContext) -> Record:
        await choose_scale(context)
        async with tagging(context):
            powers, seen = await heater_sweep(
                context, self.channel, lambda: early_bins(context), done=lambda f: self.report(context, 0.7 * f)
            )
            fringe = _balanced_fringe(context, powers, *self.shares(seen))
            top = context.drive.max_power(self.channel)
            around = min(choose_power(fringe, t, top).power_w for t in (pi / 2, -pi / 2))
            found = await trim_power(context, self.channel, around, 0.08 * fringe.x_pi, measure(context, self.law))
            balanced = await early_bins(context)
        value = {
            "p_pi_w": fringe.x_pi,
            "phi0_rad": fringe.phi0_rad,
            "power_w": found.x,
            "efficiency_ratio": efficiency_ratio(balanced),
        }
        return await self.make_record(
            context,
            value,
            {"power_w": powers, **seen},
            names=("phi0_rad", "p_pi_w", "power_w"),
            covariance=block_diagonal(
                [np.asarray(fringe.covariance, dtype=np.float64)[2:, 2:], np.array([[found.sigma**2]])]
            ),
            residual_rms=fringe.residual_rms,
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power(self.channel, record.value["power_w"])
        await context.settle()


def _balanced_fringe(context: CalibrationContext, powers: Array, bar: Array, cross: Array) -> Fringe:
    """Fringe of g bar/(g bar + cross): the unknown g (loss, efficiencies) is the one that leaves a sinusoid.

    Raises FitRefused when none does.
    """
    best: Fringe | None = None
    why = ""
    for g in np.geomspace(0.5, 2.0, 29):
        total = g * bar + cross
        share = g * bar / np.maximum(total, 1.0)
        sigma = np.sqrt(np.maximum(share * (1.0 - share), 1e-4) / np.maximum(bar + cross, 1.0)) + 1e-3
        try:
            fringe = heater_fringe(context, powers, share, sigma, 0.4)
        except FitRefused as e:
            why = str(e)
            continue
        if best is None or fringe.residual_rms < best.residual_rms:
            best = fringe
    if best is None:
        raise FitRefused(why)
    return best


class ArmSplit(_Coupler):
    """B1: short and long arm of equal amplitude, so that its extra loss costs no visibility (reference pair A3, A5)."""

    name: ClassVar[str] = "arm_split"
    needs: ClassVar[tuple[str, ...]] = ("basis_split",)
    channel: ClassVar[str] = "split"

    def law(self, b: dict[str, float]) -> tuple[float, float]:
        return arm_imbalance(b)

    def shares(self, seen: dict[str, Array]) -> tuple[Array, Array]:
        return seen["b00"] + seen["b10"], seen["b01"] + seen["b11"]


class Combiner(_Coupler):
    """B3: 50:50, by the double ratio of both detectors and both arms (reference pair A3, A5)."""

    name: ClassVar[str] = "combiner"
    needs: ClassVar[tuple[str, ...]] = ("arm_split",)
    channel: ClassVar[str] = "combine"

    def law(self, b: dict[str, float]) -> tuple[float, float]:
        return port_imbalance(b)

    def shares(self, seen: dict[str, Array]) -> tuple[Array, Array]:
        return seen["b00"] + seen["b11"], seen["b01"] + seen["b10"]
