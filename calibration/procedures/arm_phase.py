"""Phase of the receiver's interferometer: fringes of both X states, and the sign and size of xi between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, pi, sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.crosstalk import Matrix, adjust
from calibration.fit import Array, FitRefused
from calibration.names import HEATERS
from calibration.plot import Figure
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.heater_iv import BALLAST
from calibration.procedures.phase_sweep import PhaseFit, PhaseSweep, Series
from calibration.procedures.receiver_figures import arm_fringes
from calibration.procedures.receiver_splits import X0, X1, read_bins
from calibration.procedures.sweeps import UNEVEN, WARM_S, ZIGZAG
from calibration.procedures.tags import BRIGHT_RATE, choose_scale, illuminate, tagging
from calibration.receiver_optics import Reading
from calibration.record import Record, as_matrix

READ_S, CHECK_S = 0.1, 0.1
# The die is three lags behind after this, and the lag is in the model.
SETTLE_S, BALANCED_S = 0.15, 0.01
MARGINS = (0.3, 0.2, 0.1, 0.05, 0.02)
STATES = ((X0, "x0", 1.0), (X1, "x1", -1.0))
XI_MAX = 0.5
# Errors that a check lets pass without a new fringe: the lock takes them from there.
CHECK_RAD = 0.6


class ArmPhase(Procedure):
    """B2: the middle bins of DX0 and DX1 against its heater, with FIX X0 and FIX X1 (reference pair A3, A5).

    DX0 = a0 (1 + V cos t), DX1 = a1 (1 - V cos t), t = phi + pi P/P_pi - xi for X0 and + pi + xi for X1. X0 leaves by
    DX1, so the best power has phi + pi P/P_pi = pi: `xi_rad` and the error that the lock sees count in the heater's
    direction, e(X1) - e(X0) = V sin(xi) sin(err). P_pi includes the die's warming, whose lag is in the model. The
    satellites of the same readings normalise them, and the other heaters follow by the crosstalk matrix, so that
    nothing else turns; a ballast, where there is one, keeps the heater sum.
    """

    name: ClassVar[str] = "arm_phase"
    needs: ClassVar[tuple[str, ...]] = ("crosstalk",)
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    check_disturbs: ClassVar[Disturbs] = Disturbs.LINK
    cost_s: ClassVar[float] = 4.7
    check_cost_s: ClassVar[float] = 0.5
    layout: ClassVar[int] = 2
    equation: ClassVar[str] = (
        "DX0 = a0 [1 + V cos t], DX1 = a1 [1 - V cos t]\nt = phi0 + pi P / P_pi - xi for X0, + pi + xi for X1"
    )
    # The fringe walks by degrees a minute: what a lock does not hold is old soon, and a look at it is enough.
    valid_s: ClassVar[float] = 120.0
    held: ClassVar[bool] = True
    renews: ClassVar[bool] = True

    async def calibrate(self, context: CalibrationContext) -> Record:
        scale = await choose_scale(context, X0, BRIGHT_RATE)
        async with tagging(context):
            walk = _Walk(context, scale)
            await walk.sweep(lambda f: self.report(context, 0.9 * f))
            first = walk.fit()
            power, _, _ = first.power_for(pi, walk.top, MARGINS)
            # Where the fringe is steep, on both sides of the set point: at it the readings say next to nothing.
            for side in (-0.5, 0.5):
                await walk.read_at(min(max(power + side * first.settled_w, 0.0), walk.top))
            await walk.go(power)
            await context.sleep(context.settings.die_settle_s)
            fit = walk.fit(power)
            power, order, margin = fit.power_for(pi, walk.top, MARGINS)
            await walk.go(power)
            await context.settle()
        xi = float(fit.parameters[-1])
        if abs(xi) > XI_MAX:
            raise FitRefused(f"the X states are {2 * xi:.2f} rad away from opposite; {2 * XI_MAX:.0f} rad is the limit")
        ratio, ratio_sigma = walk.efficiencies()
        names = ("visibility", "settled_phi0_rad", "settled_w", "xi_rad")
        covariance = np.zeros((6, 6))
        covariance[:4, :4] = fit.covariance_of(names)
        covariance[4, 4] = (fit.phase_sigma() * fit.settled_w / pi) ** 2
        covariance[5, 5] = (ratio * ratio_sigma) ** 2
        value = {
            "visibility": fit.visibility,
            "phi0_rad": (fit.settled_phi0_rad + pi) % (2.0 * pi) - pi,
            "p_pi_w": fit.settled_w,
            "xi_rad": xi,
            "efficiency_ratio": ratio,
            "power_w": power,
            "order": order,
            "margin": margin,
            "ballast": float(walk.ballast),
            "reduced_chi2": fit.reduced_chi2,
            **{f"{n}_w": context.drive.power(n) for n in HEATERS["bob"] if n != "phase"},
        }
        return await self.make_record(
            context,
            value,
            walk.raw(),
            names=("visibility", "phi0_rad", "p_pi_w", "xi_rad", "power_w", "efficiency_ratio"),
            covariance=as_matrix(covariance),
            residual_rms=float(np.sqrt(np.mean(fit.residuals**2))),
            residuals=fit.residuals.tolist(),
        )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        return arm_fringes(record, raw)

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        for name in HEATERS["bob"]:
            await context.drive.set_power(name, record.value["power_w" if name == "phase" else f"{name}_w"])
        await context.settle()

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
        """Both X states at the set point: near their extremum the lock needs no new fringe."""
        scale = await choose_scale(context, X0)
        seen: dict[str, float] = {}
        async with tagging(context):
            for state, name, sign in STATES:
                await illuminate(context, state, scale)
                value, sigma = (await read_bins(context, CHECK_S, state)).mean_interference()
                # X0 leaves by DX1: v cos t is -v there, and sign v cos t is +v for X1.
                seen[f"{name}_contrast"] = -sign * value / record.value["visibility"]
                seen[f"{name}_sigma"] = sigma
        worst = min(("x0", "x1"), key=lambda n: seen[f"{n}_contrast"])
        least, noise = seen[f"{worst}_contrast"], seen[f"{worst}_sigma"]
        if least + 3.0 * noise < np.cos(CHECK_RAD + abs(record.value["xi_rad"])):
            return CheckResult.out_of_spec(
                f"{worst.upper()} interferes with {least:.2f} of the contrast; "
                f"{np.cos(CHECK_RAD + abs(record.value['xi_rad'])):.2f} is the least without a new fringe",
                seen,
            )
        return CheckResult.in_spec(seen)


class _Walk:
    """The phase heater through its range, the others held by the matrix, and what was read on the way."""

    def __init__(self, context: CalibrationContext, scale: float) -> None:
        self.context, self.scale = context, scale
        self.names = HEATERS["bob"]
        record = context.record("crosstalk")
        self.matrix = Matrix.of(record, self.names)
        self.common = record.value["common_phase_rad_per_w"]
        self.common_sigma = record.sigma("common_phase_rad_per_w")
        self.ballast = BALLAST in context.heaters.channels
        self.top = context.drive.max_power("phase")
        if self.ballast:
            self.top = min(self.top, context.drive.max_power(BALLAST))
        at = self.matrix.index("phase")
        steps = adjust(self.matrix, {"phase": 1.0}, BALLAST if self.ballast else None)
        # W of every other heater for a watt of this one.
        self.beside = {n: steps[n] / steps["phase"] for n in self.names if n != "phase"}
        self.base = {n: context.drive.power(n) for n in self.names}
        self.row = self.matrix.local[at]
        self.powers: list[dict[str, float]] = []
        self.set_s: list[float] = []
        self.at_s: list[tuple[float, float]] = []
        self.seen: list[tuple[Reading, Reading]] = []
        self.now: dict[str, float] = {}
        self.before_w = 0.0

    async def go(self, watts: float) -> None:
        drive = self.context.drive
        step = watts - self.base["phase"]
        wanted = {"phase": watts}
        for name, share in self.beside.items():
            wanted[name] = min(max(self.base[name] + share * step, 0.0), drive.max_power(name))
        for name, power in wanted.items():
            await drive.set_power(name, power)
        if self.ballast:
            rest = self.top + sum(self.base[n] for n in self.beside) - sum(wanted.values())
            await drive.set_power(BALLAST, min(max(rest, 0.0), drive.max_power(BALLAST)))
        self.now = wanted
        self.changed_s = self.context.clock.monotonic()

    async def sweep(self, done: Callable[[float], None]) -> None:
        powers = UNEVEN * self.top
        await self.go(float(powers[ZIGZAG[0]]))
        self.before_w = sum(self.now.values())
        await self.context.sleep(WARM_S)
        for n, k in enumerate(ZIGZAG):
            await self.read_at(float(powers[k]))
            done((n + 1) / len(powers))

    async def read_at(self, watts: float) -> None:
        await self.go(watts)
        await self.context.sleep(BALANCED_S if self.ballast else SETTLE_S)
        await self.take(READ_S)

    async def take(self, seconds: float) -> None:
        found, at = [], []
        for state, _, _ in STATES:
            await illuminate(self.context, state, self.scale)
            began = self.context.clock.monotonic()
            found.append(await read_bins(self.context, seconds, state))
            at.append(0.5 * (began + self.context.clock.monotonic()))
        self.seen.append((found[0], found[1]))
        self.powers.append(self.now)
        self.set_s.append(self.changed_s)
        self.at_s.append((at[0], at[1]))

    def fit(self, final_w: float | None = None) -> PhaseFit:
        """For now, the heater at `final_w`; without, where it was last."""
        powers = np.array([p["phase"] for p in self.powers])
        others = np.array([[p[n] for n in self.beside] for p in self.powers])
        near = np.array([self.row[self.matrix.index(n)] for n in self.beside])
        series = []
        for k, (_, _, sign) in enumerate(STATES):
            value, sigma = (np.array(c) for c in zip(*(s[k].mean_interference() for s in self.seen), strict=True))
            series.append(Series(sign, value, sigma, np.array([a[k] for a in self.at_s])))
        now = np.array([self.now[n] for n in self.beside])
        sums, set_s = powers + others.sum(axis=1), np.array(self.set_s)
        ends = np.append(sums, sum(self.now.values())), np.append(set_s, self.changed_s)
        if self.ballast:
            ends = np.zeros(len(powers) + 1), ends[1]
        return PhaseSweep(
            self.context,
            powers,
            ends[0],
            ends[1],
            (others - now) @ near,
            series,
            0.0 if self.ballast else self.before_w,
            self.common,
            max(self.common_sigma, 1e-3 * abs(self.common)),
            self.context.clock.monotonic(),
            float(powers[-1]) if final_w is None else final_w,
        ).solved()

    def efficiencies(self) -> tuple[float, float]:
        """(DX0 over DX1, relative standard uncertainty), over all readings."""
        pairs = [r.efficiencies() for both in self.seen for r in both]
        weight = np.array([1.0 / s**2 for _, s in pairs])
        mean = float(weight @ np.array([v for v, _ in pairs])) / float(weight.sum())
        return exp(mean), 1.0 / sqrt(float(weight.sum()))

    def raw(self) -> dict[str, Array]:
        """Powers, times, and clicks by state, detector and bin."""
        out = {"power_w": np.array([p["phase"] for p in self.powers]), "at_s": np.array(self.at_s)}
        for k, (_, name, _) in enumerate(STATES):
            for key in self.seen[0][k].row():
                out[f"{name}_{key}"] = np.array([s[k].row()[key] for s in self.seen])
        return out
