"""Input and output coupler of the receiver's interferometer, by the satellites of X light."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import exp, log, pi, sin
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Array, FitRefused
from calibration.plot import Figure
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.procedures.receiver_figures import balance
from calibration.procedures.receiver_splits import (
    READ_S,
    X0,
    Turn,
    fit_turn,
    meanwhile,
    nearest_root,
    read_bins,
    readings,
    to_zero,
)
from calibration.procedures.sweeps import heater_fringe, heater_sweep
from calibration.procedures.tags import BRIGHT_RATE, choose_scale, tagging
from calibration.receiver_optics import Reading, balanced_rad, share_of
from calibration.record import Record, block_diagonal

FINAL_S = 0.25
# What a share of clicks is uncertain by beyond their noise: gates, darks, dead time.
SHARE_FLOOR = 5e-4
# The long arm's extra loss of individuals, dB (pair A7): its middle, and twice its rms.
LONG_DB, LONG_SIGMA_DB = 1.25, 0.4


class _Coupler(Procedure):
    """Fringe of the share of one path over the heater's range for P_pi, then the logarithmic ratio itself to zero."""

    channel: ClassVar[str]
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    cost_s: ClassVar[float] = 2.0
    layout: ClassVar[int] = 2

    @abstractmethod
    def law(self, reading: Reading) -> tuple[float, float]:
        """Logarithmic ratio of both paths, zero when the coupler is balanced; and its uncertainty."""

    @abstractmethod
    def shape(self, own: Array, phase: Array) -> Array:
        """Share of the one path; `own` is one parameter."""

    @abstractmethod
    def start(self, visibility: float) -> float:
        """That parameter to begin with."""

    @abstractmethod
    def targets(self, own: float) -> tuple[float, float]:
        """Phases at which the coupler is balanced."""

    @abstractmethod
    def own_value(self, own: float) -> dict[str, float]:
        """That parameter by its name."""

    def prior(self) -> tuple[int, float, float] | None:
        return None

    async def calibrate(self, context: CalibrationContext) -> Record:
        await choose_scale(context, X0, BRIGHT_RATE)
        top = context.drive.max_power(self.channel)
        async with tagging(context):

            async def row() -> dict[str, float]:
                return (await read_bins(context, READ_S)).row()

            powers, seen = await heater_sweep(context, self.channel, row, done=lambda f: self.report(context, 0.8 * f))
            rows = readings(seen)
            laws = [self.law(r) for r in rows]
            pairs = [share_of(v, s, 0.5 * float(r.x[:, [0, 2]].sum())) for (v, s), r in zip(laws, rows, strict=True)]
            y, sigma = (np.array(c) for c in zip(*pairs, strict=True))
            sigma = np.hypot(sigma, SHARE_FLOOR)
            rough = heater_fringe(context, powers, y, sigma + 0.02, 0.5, 0.2, absolute=False)
            start = np.array([self.start(rough.visibility), rough.phi0_rad, rough.x_pi])
            coarse = Turn(start, np.zeros((3, 3)), np.zeros((3, 3)), pi / rough.x_pi, np.zeros(1), 1.0)
            power, _ = nearest_root(coarse, self.targets(float(start[0])), top)
            await context.drive.set_power(self.channel, power)
            await context.sleep(context.settings.die_settle_s)
            turn = fit_turn(context, self.channel, powers, seen, self.shape, start, y, sigma, power, prior=self.prior())
            power, order = nearest_root(turn, self.targets(float(turn.parameters[0])), top, power)
            await context.drive.set_power(self.channel, power)
            await context.settle()
            slope = -2.0 / sin(turn.phase(power)) * turn.slope
            power, power_sigma, left = await to_zero(context, self.channel, self.law, 0.0, slope, FINAL_S)
            ratio, ratio_sigma = (await read_bins(context, READ_S)).efficiencies()
        own = self.own_value(float(turn.parameters[0]))
        value = {
            **own,
            "p_pi_w": turn.p_pi_w,
            "phi0_rad": turn.phi0_rad,
            "power_w": power,
            "order": order,
            "efficiency_ratio": exp(ratio),
            "reduced_chi2": turn.reduced_chi2,
            "step_log": left,
            **meanwhile(context, self.channel),
        }
        return await self.make_record(
            context,
            value,
            {"power_w": powers, **seen},
            names=(*own, "phi0_rad", "p_pi_w", "power_w", "efficiency_ratio"),
            covariance=block_diagonal([turn.covariance, np.diag(np.square([power_sigma, exp(ratio) * ratio_sigma]))]),
            residual_rms=turn.residual_rms,
            residuals=turn.residuals.tolist(),
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.drive.set_power(self.channel, record.value["power_w"])
        await context.settle()


class ArmSplit(_Coupler):
    """B1: short and long arm of equal amplitude, so that its extra loss costs no visibility (reference pair A3, A5)."""

    name: ClassVar[str] = "arm_split"
    needs: ClassVar[tuple[str, ...]] = ("basis_split",)
    channel: ClassVar[str] = "split"
    equation: ClassVar[str] = (
        "short/(short + long) = cos^2(p/2) / [cos^2(p/2) + l sin^2(p/2)], p = phi0 + pi P / P_pi; "
        "set where short/long = sqrt(x00 x10 / (x02 x12)) z1/z0 is 1; x: clicks by output and bin, z: of DZ"
    )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        return balance("Short over long arm", record, raw, lambda r: r.arms()[0], "ln(short / long) (1)")

    def law(self, reading: Reading) -> tuple[float, float]:
        return reading.arms()

    def shape(self, own: Array, phase: Array) -> Array:
        short, lengthy = 1.0 + np.cos(phase), own[0] * (1.0 - np.cos(phase))
        return np.asarray(short / (short + lengthy))

    def start(self, visibility: float) -> float:
        return float(10.0 ** (-LONG_DB / 10.0))

    def prior(self) -> tuple[int, float, float]:
        long = self.start(1.0)
        return 0, long, long * LONG_SIGMA_DB * log(10.0) / 10.0

    def targets(self, own: float) -> tuple[float, float]:
        if not 0.4 <= own <= 1.2:
            raise FitRefused(f"the long arm transmits {own:.2f} of the short one; 0.4 to 1.2 is expected")
        even = balanced_rad(own)
        return even, -even

    def own_value(self, own: float) -> dict[str, float]:
        return {"long_transmission": own}


class Combiner(_Coupler):
    """B3: 50:50, by the double ratio of both detectors and both arms (reference pair A3, A5)."""

    name: ClassVar[str] = "combiner"
    needs: ClassVar[tuple[str, ...]] = ("arm_split",)
    channel: ClassVar[str] = "combine"
    equation: ClassVar[str] = (
        "bar/(bar + cross) = [1 + V cos(phi0 + pi P / P_pi)]/2; set where bar/cross = sqrt(x00 x12 / (x02 x10)) is 1; "
        "x: clicks by output and bin"
    )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        return balance(
            "Bar over cross of the output coupler", record, raw, lambda r: r.ports()[0], "ln(bar / cross) (1)"
        )

    def law(self, reading: Reading) -> tuple[float, float]:
        return reading.ports()

    def shape(self, own: Array, phase: Array) -> Array:
        return np.asarray(0.5 * (1.0 + own[0] * np.cos(phase)))

    def start(self, visibility: float) -> float:
        return min(visibility, 1.0)

    def prior(self) -> tuple[int, float, float]:
        return 0, 1.0, 0.005

    def targets(self, own: float) -> tuple[float, float]:
        return pi / 2.0, -pi / 2.0

    def own_value(self, own: float) -> dict[str, float]:
        return {"visibility": own}
