"""Thermal crosstalk of the receiver's heaters, and all of its phases set through it at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import acos, log, pi
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext
from calibration.crosstalk import Matrix, Solution, hop, solve
from calibration.fit import Array, FitRefused
from calibration.plot import Figure
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.procedures.amzi_phase import DIE_RAD_PER_W, DIE_RELATIVE
from calibration.procedures.crosstalk import figures_of, matrix_of, theta_covariance
from calibration.procedures.heater_iv import BALLAST
from calibration.procedures.phase_sweep import PhaseFit, PhaseSweep, Series
from calibration.procedures.receiver_phases import (
    BASIS,
    COMBINE,
    NAMES,
    PHASE,
    SPLIT,
    Elements,
    Experiment,
    through,
)
from calibration.procedures.receiver_splits import X0, read_bins, readings
from calibration.procedures.sweeps import ZIGZAG, heater_sweep
from calibration.procedures.tags import BRIGHT_RATE, choose_scale, tagging
from calibration.receiver_optics import Reading, balanced_rad
from calibration.record import Record, block_diagonal

READ_S, VERIFY_S = 0.1, 0.2
# The die is three lags behind after this, and the lag is in the model.
PHASE_SETTLE_S = 0.15
# Share of its range at which the phase heater is wanted, so that a lock has room to both sides.
PHASE_SHARE = 0.45
# Logarithm of each coupler's two paths, and of X over Z, after everything has been set through the matrix.
SET_LIMIT, BASIS_LIMIT = 0.1, 0.12


class ReceiverCrosstalk(Procedure):
    """Every heater switched between two powers a P_pi apart, in 12 quick and 4 settled patterns; all four phases are
    read in each from clicks by bin with X light, and one joint regression gives the matrix (reference control B3, pair
    A5, A6).

    `theta_<seen>_<heated>`: turn of `seen` for a pi of `heated`, die constant; `common_<seen>_rad_per_w`: by way of the
    die, for a watt anywhere. `hop_<heater>_w`: steps that turn `phase` by 2 pi and nothing else, the die settled;
    `hop_ballast_w` and `hop_prompt_<heater>_w` with a ballast that keeps the heater sum. All elements are set through
    the matrix at once.
    """

    name: ClassVar[str] = "crosstalk"
    needs: ClassVar[tuple[str, ...]] = ("combiner",)
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    cost_s: ClassVar[float] = 6.0
    equation: ClassVar[str] = "phase_i = phi0_i + sum_j theta_ij pi P_j / P_pi_j + common_i sum_j P_j"

    async def calibrate(self, context: CalibrationContext) -> Record:
        await choose_scale(context, X0, BRIGHT_RATE)
        async with tagging(context):
            fringe = await self._fringe(context)
            experiment = Experiment(Elements.of(context, fringe))
            await experiment.run()
            self.report(context, 0.8)
            rows = experiment.solved()
            matrix = matrix_of(rows, NAMES)
            solution, phase_rad = _solution(context, matrix, experiment.elements.long)
            powers = np.array([solution.power_w[n] for n in NAMES])
            for name, watts in solution.power_w.items():
                await context.drive.set_power(name, watts)
            await context.sleep(context.settings.die_settle_s)
            seen = await read_bins(context, VERIFY_S)
        left = _left(experiment.elements, seen, context.settings.basis_split)
        _must_be_set(left)
        sigma = [rows[i].phase_at(powers)[1] / matrix.total[i, i] for i in range(4)]
        value = {f"theta_{a}_{b}": matrix.local[i, j] / matrix.local[j, j] for i, a, j, b in _pairs()}
        value |= {f"common_{a}_rad_per_w": matrix.common[i] for i, a in enumerate(NAMES)}
        measured = tuple(value)
        value |= {f"theta_{a}_{a}": 1.0 for a in NAMES}
        value |= {f"p_pi_{a}_w": pi / matrix.local[i, i] for i, a in enumerate(NAMES)}
        value |= {f"phi0_{a}_rad": matrix.phi0_rad[i] for i, a in enumerate(NAMES)}
        value |= {f"{a}_w": powers[i] for i, a in enumerate(NAMES)}
        value |= {f"hop_{n}_w": w for n, w in hop(matrix, "phase").items()}
        if BALLAST in context.heaters.channels:
            steps = hop(matrix, "phase", ballast=BALLAST)
            value |= {f"hop_prompt_{n}_w": w for n, w in steps.items() if n != BALLAST}
            value["hop_ballast_w"] = steps[BALLAST]
        value |= {"visibility": fringe.visibility, "phase_rad": phase_rad, "margin": solution.margin, **left}
        residuals = [float(r) for row in rows for r in row.residuals]
        return await self.make_record(
            context,
            value,
            {
                "powers_w": np.array(experiment.powers),
                "at_s": experiment.at_s,
                "phases_rad": experiment.phases,
                **{n: [s.row()[n] for s in experiment.seen] for n in seen.row()},
            },
            names=(*measured, "basis_w", "split_w", "combine_w"),
            covariance=block_diagonal(
                [theta_covariance(rows), np.diag(np.square([sigma[BASIS], sigma[SPLIT], sigma[COMBINE]]))]
            ),
            residual_rms=float(np.sqrt(np.mean(np.square(residuals)))),
            residuals=residuals,
        )

    async def _fringe(self, context: CalibrationContext) -> PhaseFit:
        """Quick fringe of the phase heater with X0 light; with a ballast the heater sum stays and the die with it."""
        ballast = BALLAST if BALLAST in context.heaters.channels else None

        async def row() -> dict[str, float]:
            return (await read_bins(context, READ_S)).row()

        powers, seen = await heater_sweep(
            context,
            "phase",
            row,
            settle_s=PHASE_SETTLE_S if ballast is None else None,
            ballast=ballast,
            done=lambda f: self.report(context, 0.4 * f),
        )
        if ballast is not None:
            await context.drive.set_power(ballast, 0.0)
        return sweep_of(context, powers, seen, ballast is not None).solved()

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        for name in NAMES:
            await context.drive.set_power(name, record.value[f"{name}_w"])
        await context.settle()

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        return figures_of(record, NAMES, np.degrees(np.asarray(record.residuals)))


def sweep_of(context: CalibrationContext, powers: Array, seen: dict[str, Array], balanced: bool) -> PhaseSweep:
    """A sweep of `heater_sweep` with X0 light, in the order of time. balanced: a ballast kept the heater sum."""
    order = np.argsort(seen["set_s"])
    by_time = {n: v[order] for n, v in seen.items()}
    pairs = [r.mean_interference() for r in readings(by_time)]
    value, sigma = (np.array(c) for c in zip(*pairs, strict=True))
    k = len(powers)
    first = float(powers[ZIGZAG[0]])
    return PhaseSweep(
        context,
        powers[order],
        np.zeros(k) if balanced else powers[order],
        by_time["set_s"],
        np.zeros(k),
        [Series(1.0, value, sigma, by_time["at_s"])],
        0.0 if balanced else first,
        DIE_RAD_PER_W,
        DIE_RELATIVE * DIE_RAD_PER_W,
        context.clock.monotonic(),
        float(powers[order[-1]]),
    )


def _pairs() -> list[tuple[int, str, int, str]]:
    return [(i, a, j, b) for i, a in enumerate(NAMES) for j, b in enumerate(NAMES) if i != j]


def _solution(context: CalibrationContext, matrix: Matrix, long: float) -> tuple[Solution, float]:
    """(powers, phase of the interferometer): least total power over both signs of each splitter's phase, with the
    interferometer at the place with phase pi that is next to the middle of its range."""
    kappa = context.settings.basis_split
    top = {n: context.drive.max_power(n) for n in NAMES}
    turns = (acos(1.0 - 2.0 * kappa), balanced_rad(long), pi / 2.0)
    best: Solution | None = None
    why = ""
    for signs in np.array(np.meshgrid([1, -1], [1, -1], [1, -1])).T.reshape(-1, 3):
        targets = dict(zip(("basis", "split", "combine"), signs * np.array(turns), strict=True))
        try:
            found = _about(matrix, targets, top)
        except FitRefused as e:
            why = str(e)
            continue
        if best is None or (found.margin, -found.total_w) > (best.margin, -best.total_w):
            best = found
    if best is None:
        raise FitRefused(why)
    phases = matrix.phases(np.array([best.power_w[n] for n in NAMES]))
    return best, float(phases[PHASE])


def _about(matrix: Matrix, targets: dict[str, float], top: dict[str, float]) -> Solution:
    """The phase heater's own place depends on the others', and theirs on it: three rounds settle both."""
    wanted = PHASE_SHARE * top["phase"]
    rate = float(matrix.total[PHASE, PHASE])
    found = solve(matrix, targets, top, {"phase": wanted})
    for _ in range(3):
        powers = np.array([found.power_w[n] for n in NAMES])
        at = float(matrix.phases(powers)[PHASE])
        roots = (found.power_w["phase"] + (pi - at + 2.0 * pi * k) / rate for k in range(-6, 7))
        inside = [p for p in roots if 0.05 * top["phase"] <= p <= 0.95 * top["phase"]]
        if not inside:
            raise FitRefused("heater 'phase': no power within 5 % of the rails turns it to pi")
        found = solve(matrix, targets, top, {"phase": min(inside, key=lambda p: abs(p - wanted))})
    return found


def _left(elements: Elements, seen: Reading, kappa: float) -> dict[str, float]:
    """What is left at each splitter after all were set, as logarithms of its two paths' ratio."""
    even = Reading(seen.z, seen.x / np.array([[elements.efficiency], [1.0]]))
    passes = log(through(balanced_rad(elements.long), elements.long))
    wanted = elements.log_x_over_z + passes - 0.5 * log(elements.efficiency) + log(kappa / (1.0 - kappa))
    return {
        "arm_imbalance": seen.arms()[0],
        "port_imbalance": seen.ports()[0],
        "basis_imbalance": even.basis()[0] - wanted,
    }


def _must_be_set(left: dict[str, float]) -> None:
    for name, limit in (("arm", SET_LIMIT), ("port", SET_LIMIT), ("basis", BASIS_LIMIT)):
        off = left[f"{name}_imbalance"]
        if abs(off) > limit:
            raise FitRefused(
                f"after all heaters were set the {name} splitter's ratio is off by ln {off:+.3f}; {limit} is the limit"
            )
