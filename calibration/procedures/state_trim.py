"""Last degrees of the state modulator, from ratios of energies that do not care for absolute light."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import hypot, pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.fit import Array, Point, zero_crossing
from calibration.noise import reading_noise
from calibration.plot import Figure
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.figures import curve
from calibration.procedures.light import energy, shine
from calibration.procedures.sweeps import CREEP_RAD
from calibration.record import Record, diagonal
from drivers.roles import LightMode

# Shares of V_pi, coarse then fine: the second round is too narrow for the curvature of the laws to matter.
BIAS_STEPS = (0.03, 0.01)
DRIVE_STEPS = (0.04, 0.015)
SAMPLES = 32
# Q(X0)/Q(X1) - 1 that is out of spec: 6 degrees of bias, which the loop in service takes out.
CHECK_LIMIT = 0.1


class StateTrim(Procedure):
    """Bias to Q(X0) = Q(X1), which goes with 1 + sin d; drive to Q(X) = Q(Z), which goes with 1 + pi e/2 (pair A5)."""

    name: ClassVar[str] = "state_trim"
    needs: ClassVar[tuple[str, ...]] = ("state_bias", "crosstalk")
    gives: ClassVar[tuple[str, ...]] = ("null_slope_per_v",)
    valid_s: ClassVar[float] = 86_400.0
    cost_s: ClassVar[float] = 0.6
    check_disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    renews: ClassVar[bool] = True
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = "Q(X0)/Q(X1) - 1 = s (v - null), Q(X)/Q(Z) - 1 = t (a - rf)"

    async def calibrate(self, context: CalibrationContext) -> Record:
        coarse = context.record("state_bias").value
        bias = _Trim(_bias(context), coarse["null_v"])
        drive = _Trim(_drive(context), coarse["rf_v"])
        for n, (bias_step, drive_step) in enumerate(zip(BIAS_STEPS, DRIVE_STEPS, strict=True)):
            await bias.step(context, bias_step * coarse["v_pi_v"], _x_ratio)
            await drive.step(context, drive_step * drive.at, _xz_ratio)
            self.report(context, (n + 1) / len(BIAS_STEPS))
        # The drive shifts what the bias was balanced with; a last look at the bias costs 60 ms.
        await bias.step(context, BIAS_STEPS[-1] * coarse["v_pi_v"], _x_ratio)
        value = {"null_v": bias.at, "rf_v": drive.at, "null_slope_per_v": bias.found.slope}
        creep = CREEP_RAD * coarse["v_pi_v"] / pi
        return await self.make_record(
            context,
            value,
            {"null_x": bias.x, "null_y": bias.y, "rf_x": drive.x, "rf_y": drive.y},
            names=("null_v", "rf_v"),
            covariance=diagonal([hypot(bias.found.sigma, creep), drive.found.sigma]),
            residual_rms=float(np.sqrt(np.mean(np.square([*bias.residuals, *drive.residuals])))),
            residuals=[*bias.residuals, *drive.residuals],
        )

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await context.biases.set_voltage("state", record.value["null_v"])
        await context.need_source().set_rf(state_v=record.value["rf_v"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
        try:
            x, sigma = await _x_ratio(context)
            xz, _ = await _xz_ratio(context)
        finally:
            await shine(context, LightMode.OFF)
        read = {"x0_over_x1": 1.0 + x, "x_over_z": 1.0 + xz}
        limit = CHECK_LIMIT + 5.0 * sigma
        for name, off in (("Q(X0)/Q(X1)", x), ("Q(X)/Q(Z)", xz)):
            if abs(off) > limit:
                return CheckResult.out_of_spec(f"{name} is {1.0 + off:.3f}; 1 within {limit:.0%} is the limit", read)
        return CheckResult.in_spec(read)

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        out = []
        for what, title, label in (
            ("null", "State modulator's bias", "Q(X0)/Q(X1) - 1 (1)"),
            ("rf", "State modulator's drive", "Q(X)/Q(Z) - 1 (1)"),
        ):
            x, y = np.asarray(raw[f"{what}_x"]), np.asarray(raw[f"{what}_y"])
            slope, offset = np.polyfit(x, y, 1)
            line = _line(float(slope), float(offset))
            at = record.value[f"{what}_v"]
            out.append(curve(title, "set (V)", label, x, y, line, marks=[(at, "set point")]))
        return out


def _line(slope: float, offset: float) -> Callable[[Array], Array]:
    return lambda x: np.asarray(slope * x + offset)


def _bias(context: CalibrationContext) -> Callable[[float], Awaitable[None]]:
    async def write(v: float) -> None:
        await context.biases.set_voltage("state", v)

    return write


def _drive(context: CalibrationContext) -> Callable[[float], Awaitable[None]]:
    async def write(v: float) -> None:
        await context.need_source().set_rf(state_v=v)

    return write


async def _x_ratio(context: CalibrationContext) -> tuple[float, float]:
    """(Q(X0)/Q(X1) - 1, its standard uncertainty)."""
    x0, x1 = await energy(context, 2, 0, SAMPLES), await energy(context, 3, 0, SAMPLES)
    return x0 / x1 - 1.0, 2.0**0.5 * reading_noise(context).share("pa3", x1, SAMPLES)


async def _xz_ratio(context: CalibrationContext) -> tuple[float, float]:
    """(Q(X)/Q(Z) - 1, its standard uncertainty)."""
    x = await energy(context, 2, 0, SAMPLES) + await energy(context, 3, 0, SAMPLES)
    z = await energy(context, 0, 0, SAMPLES) + await energy(context, 1, 0, SAMPLES)
    return x / z - 1.0, reading_noise(context).share("pa3", z / 2.0, SAMPLES)


@dataclass
class _Trim:
    """Zero of a ratio less one by a line through three settings; the output is left there."""

    write: Callable[[float], Awaitable[None]]
    at: float
    found: Point = field(default_factory=lambda: Point(0.0, 0.0, 0.0, 0.0))
    x: Array | None = None
    y: Array | None = None

    async def step(
        self,
        context: CalibrationContext,
        span: float,
        read: Callable[[CalibrationContext], Awaitable[tuple[float, float]]],
    ) -> None:
        """Raises FitRefused when the ratio does not respond."""
        around, s = self.at, np.zeros(3)
        self.x, self.y = around + span * np.array([-1.0, 0.0, 1.0]), np.zeros(3)
        for k in range(3):
            await self.write(float(self.x[k]))
            await context.settle()
            self.y[k], s[k] = await read(context)
        self.found = zero_crossing(self.x, self.y, s)
        self.at = float(np.clip(self.found.x, around - 3 * span, around + 3 * span))
        await self.write(self.at)
        await context.settle()

    @property
    def residuals(self) -> list[float]:
        """Ratio less the line."""
        if self.x is None or self.y is None:
            return []
        return [float(v) for v in self.y - self.found.slope * (self.x - self.found.x)]
