"""Thermal crosstalk of the transmitter's heaters, and all of its phases set through it at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.crosstalk import Matrix, RowFit, Solution, solve
from calibration.fit import Array, FitRefused
from calibration.plot import Figure, Heatmap, Plot, Series
from calibration.procedure import CheckResult, Disturbs, Procedure, Raw
from calibration.procedures.amzi_split import balance
from calibration.procedures.light import SAMPLES, shine
from calibration.procedures.transmitter_phases import FILTER, NAMES, SHUTTER, SPLIT, Experiment, Fringes
from calibration.record import Record, block_diagonal
from drivers.roles import LightMode

SETTINGS = ("filter_w", "split_w", "phase_w", "bar_w")
# Early over late (logarithm), and what leaves by the cross port, after everything has been set through the matrix.
SET_LIMIT, CROSS_LIMIT = 0.05, 0.01
CHECK_LIMIT, CHECK_CROSS = 0.17, 0.02


class Crosstalk(Procedure):
    """Every heater switched between two powers a P_pi apart, in 12 quick and 4 settled patterns; all four phases are
    read in each and one joint regression gives the matrix (reference control B3, pair A6).

    `theta_<seen>_<heated>`: turn of `seen` for a pi of `heated`, die constant; `common_<seen>_rad_per_w`: by way of the
    die, for a watt anywhere. Then filter, coupler and shutter are set through it at once, least total power; the
    interferometer's heater is put well inside its range.
    """

    name: ClassVar[str] = "crosstalk"
    needs: ClassVar[tuple[str, ...]] = ("filter_peak", "carver_bias", "amzi_split", "shutter", "amzi_phase")
    cost_s: ClassVar[float] = 2.0
    check_disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    equation: ClassVar[str] = "phase_i = phi0_i + sum_j theta_ij pi P_j / P_pi_j + common_i sum_j P_j"

    async def calibrate(self, context: CalibrationContext) -> Record:
        experiment = Experiment(Fringes.of(context))
        await experiment.run()
        rows = experiment.solved()
        self.report(context, 0.8)
        matrix = matrix_of(rows)
        solution = _solution(context, matrix)
        powers = np.array([solution.power_w[n] for n in NAMES])
        sigma = [rows[i].phase_at(powers)[1] / matrix.total[i, i] for i in range(4)]
        p_pi = pi / np.diag(matrix.local)
        value = {f"theta_{a}_{b}": matrix.local[i, j] / matrix.local[j, j] for i, a, j, b in _pairs()}
        value |= {f"common_{a}_rad_per_w": matrix.common[i] for i, a in enumerate(NAMES)}
        measured = tuple(value)
        value |= {f"theta_{a}_{a}": 1.0 for a in NAMES}
        value |= {f"p_pi_{a}_w": p_pi[i] for i, a in enumerate(NAMES)}
        value |= {f"phi0_{a}_rad": matrix.phi0_rad[i] for i, a in enumerate(NAMES)}
        value |= dict(zip(SETTINGS, powers, strict=True))
        value["cross_w"] = _cross(context, float(powers[SHUTTER]), float(p_pi[SHUTTER]))
        value["margin"] = solution.margin
        await self._set(context, value)
        # The solution holds for a die that has followed the new sum.
        await context.sleep(context.settings.die_settle_s)
        seen = await _verify(context)
        value |= seen
        _must_be_set(seen)
        residuals = [float(r) for row in rows for r in row.residuals]
        return await self.make_record(
            context,
            value,
            {
                "powers_w": np.array(experiment.powers),
                "at_s": experiment.at_s,
                "phases_rad": experiment.phases,
                **{n: [s[n] for s in experiment.seen] for n in experiment.seen[0]},
            },
            names=(*measured, "filter_w", "split_w", "bar_w", "cross_w"),
            covariance=block_diagonal(
                [theta_covariance(rows), np.diag(np.square([sigma[FILTER], sigma[SPLIT], *[sigma[SHUTTER]] * 2]))]
            ),
            residual_rms=float(np.sqrt(np.mean(np.square(residuals)))),
            residuals=residuals,
        )

    async def _set(self, context: CalibrationContext, value: dict[str, float]) -> None:
        for name, key in zip(NAMES, SETTINGS, strict=True):
            await context.drive.set_power(name, value[key])
        await context.settle()

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        await self._set(context, record.value)

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
        """The balance and the shutter as they are: what the matrix set must still hold."""
        seen = await _verify(context)
        if abs(seen["log_balance"]) > CHECK_LIMIT:
            why = f"early over late pulse is {np.exp(seen['log_balance']):.3f}; 1 within {CHECK_LIMIT:.0%} is the limit"
            return CheckResult.out_of_spec(why, seen)
        if seen["cross_share"] > CHECK_CROSS:
            why = (
                f"open, {seen['cross_share']:.1%} of the light leaves by the cross port; {CHECK_CROSS:.0%} is the limit"
            )
            return CheckResult.out_of_spec(why, seen)
        return CheckResult.in_spec(seen)

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        return figures_of(record, NAMES, np.degrees(np.asarray(record.residuals)))


def figures_of(record: Record, names: Sequence[str], residuals_deg: Array) -> list[Figure]:
    """The matrix without its diagonal, in per cent, and what the regression left."""
    v = record.value
    cells = [[0.0 if a == b else 100.0 * v[f"theta_{a}_{b}"] for b in names] for a in names]
    left = np.split(np.asarray(residuals_deg), len(names))
    series = [Series(n, list(range(len(r))), r.tolist()) for n, r in zip(names, left, strict=True)]
    return [
        Heatmap("Thermal crosstalk: turn of the row for a pi of the column", names, names, cells, "%"),
        Plot("Residuals of the joint regression", "setting", "residual (degrees)", series),
    ]


def matrix_of(rows: Sequence[RowFit], names: tuple[str, ...] = NAMES) -> Matrix:
    phi0 = np.array([r.phase_at(np.zeros(len(rows)))[0] for r in rows])
    return Matrix(names, phi0, np.stack([r.local for r in rows]), np.array([r.common for r in rows]))


def _pairs() -> list[tuple[int, str, int, str]]:
    return [(i, a, j, b) for i, a in enumerate(NAMES) for j, b in enumerate(NAMES) if i != j]


def theta_covariance(rows: Sequence[RowFit]) -> Array:
    """Over the off-diagonal thetas, row by row, then the common terms; the diagonal's own share is negligible."""
    n = len(rows)
    own = np.array([r.local[i] for i, r in enumerate(rows)])
    out = np.zeros((n * n, n * n))
    for i, row in enumerate(rows):
        near = [j for j in range(n) if j != i]
        take = [1 + j for j in near] + [n + 1]
        to = [i * (n - 1) + k for k in range(n - 1)] + [n * (n - 1) + i]
        scale = np.array([1.0 / own[j] for j in near] + [1.0])
        # theta_ij = local_ij/local_jj; the row's covariance is over (phase, local..., common).
        out[np.ix_(to, to)] = row.covariance[np.ix_(take, take)] * np.outer(scale, scale)
    return out


def _solution(context: CalibrationContext, matrix: Matrix) -> Solution:
    """Filter at its peak, coupler at one of its two balances, shutter at bar; the interferometer where it is wanted."""
    v = context.record("amzi_split").value
    even = balance(np.array([v[n] for n in ("early", "late", "early_visibility", "late_visibility")]))
    top = {n: context.drive.max_power(n) for n in NAMES}
    fixed = {"phase": context.settings.alice_phase_share * top["phase"]}
    found: list[Solution] = []
    why = ""
    for turn in (even, -even):
        try:
            found.append(solve(matrix, {"filter": 0.0, "split": turn, "shutter": pi}, top, fixed))
        except FitRefused as e:
            why = str(e)
    if not found:
        raise FitRefused(why)
    return min(found, key=lambda s: (-s.margin, s.total_w))


def _cross(context: CalibrationContext, bar_w: float, p_pi_w: float) -> float:
    """A pi from bar, inside the rails, the lower one if it can be."""
    top = context.drive.max_power("shutter")
    return next(p for p in (bar_w - p_pi_w, bar_w + p_pi_w) if 0.0 <= p <= top)


async def _verify(context: CalibrationContext) -> dict[str, float]:
    """Balance of the pulses, and the cross port's share of the light; the light is off afterwards."""
    shutter = context.record("shutter").value
    seen = []
    for state in (0, 1):
        await shine(context, LightMode.FIX, state)
        seen.append(await context.photocurrents("pa3", "pa4", samples=SAMPLES))
    await shine(context, LightMode.OFF)
    if min(s["pa3"] for s in seen) <= 0.0:
        raise FitRefused("no light behind the decoy modulator after all heaters were set")
    cross = seen[0]["pa4"] / seen[0]["pa3"] / (shutter["ratio"] * (1.0 + shutter["visibility"]))
    return {"log_balance": log(seen[0]["pa3"] / seen[1]["pa3"]), "cross_share": max(cross, 0.0)}


def _must_be_set(seen: dict[str, float]) -> None:
    if abs(seen["log_balance"]) > SET_LIMIT:
        raise FitRefused(f"early over late pulse is {np.exp(seen['log_balance']):.3f} after all heaters were set")
    if seen["cross_share"] > CROSS_LIMIT:
        raise FitRefused(f"{seen['cross_share']:.1%} of the light leaves by the cross port after all heaters were set")
