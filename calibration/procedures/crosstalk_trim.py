"""Last look at the receiver's splitters, with every heater at its working power."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, pi, sin
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.crosstalk import Matrix
from calibration.fit import FitRefused
from calibration.names import HEATERS
from calibration.plot import Figure
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.receiver_figures import satellites
from calibration.procedures.receiver_splits import X0, read_bins, to_zero
from calibration.procedures.tags import BRIGHT_RATE, choose_scale, tagging
from calibration.receiver_optics import Reading
from calibration.record import Record, diagonal
from drivers.roles import LightMode

READ_S, CHECK_S = 0.25, 0.1
# Logarithm of a coupler's two paths: what is left after the trim, and what a check lets pass (V d^2/4 of QBER, pair A5;
# 0.17 are 5 degrees, 0.19 % of QBER in X).
SET_LIMIT, CHECK_LIMIT = 0.06, 0.17
CHANNELS = ("basis", "split", "combine")


class CrosstalkTrim(Procedure):
    """B1 and B3 once more by their satellites, one Newton step each: what the crosstalk matrix set, verified and
    refined at the working point (reference pair A5, A6.2).

    Leaves the light off and every heater of the receiver at its set point; the phase is the lock's from here on.
    """

    name: ClassVar[str] = "crosstalk_trim"
    needs: ClassVar[tuple[str, ...]] = ("arm_phase",)
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    check_disturbs: ClassVar[Disturbs] = Disturbs.LINK
    cost_s: ClassVar[float] = 0.9
    check_cost_s: ClassVar[float] = 0.4
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = (
        "short/long = sqrt(x00 x10 / (x02 x12)) z1/z0 = 1, bar/cross = sqrt(x00 x12 / (x02 x10)) = 1; x: clicks by "
        "output and bin, z: of DZ"
    )

    async def calibrate(self, context: CalibrationContext) -> Record:
        await choose_scale(context, X0, BRIGHT_RATE)
        matrix = Matrix.of(context.record("crosstalk"), HEATERS["bob"])
        found = {}
        async with tagging(context):
            for channel, law in (("split", Reading.arms), ("combine", Reading.ports)):
                i = matrix.index(channel)
                turn = _even(channel, matrix, context)
                slope = -2.0 / sin(turn) * matrix.total[i, i]
                found[channel] = await to_zero(context, channel, law, 0.0, slope, READ_S)
                self.report(context, 0.3 * (len(found) + 1))
            left = await read_bins(context, READ_S)
        await context.need_light().set(LightMode.OFF)
        arm, port = left.arms()[0], left.ports()[0]
        for what, value in (("short over long arm", arm), ("bar over cross port", port)):
            if abs(value) > SET_LIMIT + 5.0 * left.arms()[1]:
                raise FitRefused(f"{what}: ln {value:+.3f} after the trim; {SET_LIMIT:.2f} is the limit")
        # The combiner's own step turned the coupler before it along.
        moved = found["combine"][2]
        split_sigma = hypot(found["split"][1], abs(0.05 * moved / matrix.total[1, 1]))
        return await self.make_record(
            context,
            {
                "basis_w": context.drive.power("basis"),
                "split_w": found["split"][0],
                "combine_w": found["combine"][0],
                "arm_imbalance": arm,
                "port_imbalance": port,
                "split_step_log": found["split"][2],
                "combine_step_log": found["combine"][2],
            },
            left.row(),
            names=("split_w", "combine_w"),
            covariance=diagonal([split_sigma, found["combine"][1]]),
        )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        return satellites(record, raw)

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        for channel in CHANNELS:
            await context.drive.set_power(channel, record.value[f"{channel}_w"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
        """Both couplers as they are, in X light: one reading for delays, bias and all three splitters together."""
        await choose_scale(context, X0)
        async with tagging(context):
            seen = await read_bins(context, CHECK_S)
        await context.need_light().set(LightMode.OFF)
        (arm, arm_sigma), (port, port_sigma) = seen.arms(), seen.ports()
        read = {"arm_imbalance": arm, "port_imbalance": port, "x_over_z": float(np.exp(seen.basis()[0]))}
        if float(seen.x.sum()) < 200.0:
            return CheckResult.bad_data(f"{seen.x.sum():.0f} clicks in the bins of the X detectors", read)
        for what, value, sigma in (("short over long arm", arm, arm_sigma), ("bar over cross port", port, port_sigma)):
            if abs(value) > CHECK_LIMIT + 3.0 * sigma:
                return CheckResult.out_of_spec(f"{what}: ln {value:+.3f}; {CHECK_LIMIT} is the limit", read)
        return CheckResult.in_spec(read)


def _even(channel: str, matrix: Matrix, context: CalibrationContext) -> float:
    """Phase of a coupler now, by the matrix, rad: its sine gives the sign and the size of the response."""
    powers = np.array([context.drive.power(n) for n in matrix.names])
    phase = float(matrix.phases(powers)[matrix.index(channel)])
    return (phase + pi) % (2.0 * pi) - pi
