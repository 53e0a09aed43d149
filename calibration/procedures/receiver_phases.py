"""Phases of the receiver's four elements from clicks by bin, by the fringes that were measured before."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import acos, log, pi, sin

import numpy as np

from calibration.context import CalibrationContext
from calibration.crosstalk import (
    SUBMOUNT_J_PER_K,
    Prior,
    RowFit,
    distance_prior,
    lagged_sum,
    regress,
    stored_heat,
    two_levels,
)
from calibration.fit import Array
from calibration.names import HEATERS
from calibration.procedures.amzi_phase import DIE_RAD_PER_W, DIE_RELATIVE, DRIFT_RAD, LAG_SHARE, WANDER_RAD
from calibration.procedures.phase_sweep import WALK_RAD_PER_ROOT_S, PhaseFit
from calibration.procedures.receiver_splits import MODEL_RAD, read_bins
from calibration.procedures.sweeps import DIE_RAD_PER_W as BALANCED_RAD_PER_W
from calibration.procedures.transmitter_phases import FAST, MARGIN, ORDER, SLOW, WALK
from calibration.receiver_optics import Reading, balanced_rad, coupler_phase

NAMES = HEATERS["bob"]
BASIS, SPLIT, PHASE, COMBINE = range(4)
READ_S = 0.1
# What is common to all readings of an element: light between the arms, the long arm's loss, nothing, the contrast.
COMMON_SIGMA = (0.02, 0.01, 1.0, 0.005)
SETTLE_S = 0.01


@dataclass(frozen=True)
class Elements:
    """What the records of the single elements say: parameters, and all heaters' powers while they were taken."""

    context: CalibrationContext
    fringe: PhaseFit
    phi0: Array
    p_pi: Array
    p_pi_sigma: Array
    others: Array
    prior: Array
    long: float
    log_x_over_z: float
    efficiency: float

    @classmethod
    def of(cls, context: CalibrationContext, fringe: PhaseFit) -> Elements:
        """Raises CalibrationRefused when a record is missing."""
        names = {BASIS: "basis_split", SPLIT: "arm_split", COMBINE: "combiner"}
        records = {i: context.record(n) for i, n in names.items()}
        phi0, p_pi, sigma, others = np.zeros(4), np.zeros(4), np.zeros(4), np.zeros((4, 4))
        for i, record in records.items():
            v = record.value
            phi0[i], p_pi[i], sigma[i] = v["phi0_rad"], v["p_pi_w"], record.sigma("p_pi_w")
            others[i] = [0.0 if n == NAMES[i] else v[f"with_{n}_w"] for n in NAMES]
        phi0[PHASE], p_pi[PHASE] = fringe.phase_rad - pi * fringe.final_w / fringe.p_pi_w, fringe.p_pi_w
        sigma[PHASE] = float(np.sqrt(fringe.covariance_of(["p_pi_w"])[0, 0]))
        # The phase's sweep ended with all heaters as they are now, the die warmed by them.
        others[PHASE] = [context.drive.power(n) for n in NAMES]
        split = records[SPLIT].value
        long = split["long_transmission"]
        then = split["phi0_rad"] + pi * others[BASIS, SPLIT] / split["p_pi_w"]
        return cls(
            context,
            fringe,
            phi0,
            p_pi,
            sigma,
            others,
            np.stack([distance_prior(4, i, p_pi, 0.0).local for i in range(4)]),
            long,
            log(records[BASIS].value["x_over_z"]) - log(through(then, long)),
            records[COMBINE].value["efficiency_ratio"],
        )

    def expected(self, powers: Array) -> Array:
        """Phases at powers, rad, the die settled: good to some degrees, enough to tell the branch."""
        moved = powers[None, :] - self.others
        phases = self.phi0 + pi * powers / self.p_pi
        for i in range(4):
            near = np.delete(np.arange(4), i)
            phases[i] += float(self.prior[i, near] @ moved[i, near])
        phases[PHASE] += DIE_RAD_PER_W * float(moved[PHASE].sum())
        return np.asarray(phases)

    def levels(self) -> Array:
        """Two powers of every element, W, shape (4, 2), about quadrature while two of four are up.

        All four steps are the same, the mean P_pi, so that the heater sum does not change. Raises FitRefused.
        """
        top = np.array([self.context.drive.max_power(n) for n in NAMES])
        target = np.array([pi / 2.0, balanced_rad(self.long), pi / 2.0, pi / 2.0])
        return two_levels(NAMES, top, self.p_pi, target, self.expected, MARGIN)

    def phases(self, seen: Reading, expected: Array) -> tuple[Array, Array, Array]:
        """(phases, their noise, effect of what is common to all readings), all (4,), rad, from one reading."""
        rows = [(0.0, 0.0, 0.0)] * 4
        arms, arms_sigma = seen.arms()
        phase, slope = coupler_phase(arms + log(self.long), float(expected[SPLIT]))
        rows[SPLIT] = (phase, abs(slope) * arms_sigma, slope)
        ports, ports_sigma = seen.ports()
        turn, slope = coupler_phase(ports, float(expected[COMBINE]))
        rows[COMBINE] = (turn, abs(slope) * ports_sigma, 0.0)
        even = Reading(seen.z, seen.x / np.array([[self.efficiency], [1.0]]))
        basis, basis_sigma = even.basis()
        wanted = self.log_x_over_z + log(through(phase, self.long)) - 0.5 * log(self.efficiency)
        turn, slope = coupler_phase(wanted - basis, float(expected[BASIS]))
        rows[BASIS] = (turn, abs(slope) * basis_sigma, slope)
        rows[PHASE] = self._interferometer(seen, float(expected[PHASE]))
        found, sigma, common = np.array(rows).T
        return found, sigma, common

    def _interferometer(self, seen: Reading, near: float) -> tuple[float, float, float]:
        value, sigma = seen.mean_interference()
        cosine = value / self.fringe.visibility
        base = acos(min(1.0, max(-1.0, cosine)))
        found = [c + 2.0 * pi * round((near - c) / (2.0 * pi)) for c in (base, -base)]
        phase = min(found, key=lambda c: abs(c - near))
        sine = sin(phase) if abs(sin(phase)) > 1e-3 else 1e-3
        return phase, sigma / self.fringe.visibility / abs(sine), cosine / sine

    def prior_of(self, i: int) -> Prior:
        p = distance_prior(4, i, self.p_pi, float(self.p_pi_sigma[i]))
        if i == PHASE:
            return Prior(p.local, p.local_sigma, DIE_RAD_PER_W, 3.0 * DIE_RELATIVE * DIE_RAD_PER_W)
        return Prior(p.local, p.local_sigma, 0.0, BALANCED_RAD_PER_W)


def through(split_rad: float, long: float) -> float:
    """Share of the X arm's light that comes out of the interferometer: the long arm loses some."""
    return 1.0 - sin(split_rad / 2.0) ** 2 * (1.0 - long)


@dataclass
class Experiment:
    """All settings and what was read at them; X0 light is on, the tagger runs."""

    elements: Elements
    powers: list[Array] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    changes: list[tuple[float, float]] = field(default_factory=list)
    seen: list[Reading] = field(default_factory=list)
    phases: Array = field(default_factory=lambda: np.zeros((0, 4)))

    async def run(self) -> None:
        context, levels = self.elements.context, self.elements.levels()
        await self._set(levels, FAST[ORDER[0]])
        await context.sleep(context.settings.die_settle_s)
        for k in (*ORDER, *reversed(ORDER)):
            await self._set(levels, FAST[k])
            await context.sleep(SETTLE_S)
            await self._take(levels, FAST[k])
        for up in SLOW:
            await self._set(levels, up)
            await context.sleep(context.settings.die_settle_s)
            await self._take(levels, up)

    async def _set(self, levels: Array, up: tuple[int, ...]) -> None:
        context = self.elements.context
        for i, name in enumerate(NAMES):
            await context.drive.set_power(name, float(levels[i, int(i in up)]))
        self.changes.append((context.clock.monotonic(), float(_chosen(levels, up).sum())))

    async def _take(self, levels: Array, up: tuple[int, ...]) -> None:
        began = self.elements.context.clock.monotonic()
        self.seen.append(await read_bins(self.elements.context, READ_S))
        self.powers.append(_chosen(levels, up))
        self.at_s.append(0.5 * (began + self.elements.context.clock.monotonic()))

    def solved(self) -> list[RowFit]:
        """One row an element. Raises FitRefused."""
        e = self.elements
        powers, at = np.array(self.powers), np.array(self.at_s)
        times, sums = (np.array(c) for c in zip(*self.changes, strict=True))
        die = lagged_sum(times, sums, at, float(sums[0]))
        behind = np.abs(powers.sum(axis=1) - die)
        die += stored_heat(times, sums, die, at, float(sums[0])) / SUBMOUNT_J_PER_K
        rows = [e.phases(seen, e.expected(p)) for seen, p in zip(self.seen, powers, strict=True)]
        phases, sigma, common = (np.array([r[k] for r in rows]) for k in range(3))
        self.phases = phases
        feels = np.full(4, BALANCED_RAD_PER_W / DIE_RAD_PER_W)
        feels[PHASE] = 1.0
        for extra in (LAG_SHARE * DIE_RAD_PER_W * behind[:, None] * feels, WANDER_RAD * feels, MODEL_RAD):
            sigma = np.hypot(sigma, extra)
        ago = at - at[-1]
        return [
            regress(
                phases[:, i],
                sigma[:, i],
                powers,
                die,
                at,
                e.prior_of(i),
                walk_rad_per_root_s=WALK_RAD_PER_ROOT_S if i == PHASE else WALK,
                nuisance=[common[:, i], ago, 0.5 * ago**2],
                nuisance_sigma=[COMMON_SIGMA[i], *(feels[i] * d for d in DRIFT_RAD)],
            )
            for i in range(4)
        ]


def _chosen(levels: Array, up: tuple[int, ...]) -> Array:
    return np.array([levels[i, int(i in up)] for i in range(4)])
