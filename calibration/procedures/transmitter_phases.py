"""Phases of the transmitter's four elements from photodiode readings, by the fringes that were measured before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import acos, hypot, pi, sin

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
from calibration.noise import ReadingNoise, reading_noise
from calibration.procedures.amzi_phase import (
    DIE_RAD_PER_W,
    DIE_RELATIVE,
    DRIFT_RAD,
    LAG_SHARE,
    WALK_RAD_PER_ROOT_S,
    WANDER_RAD,
)
from calibration.procedures.amzi_split import balance
from calibration.procedures.fringes import MODEL_RAD
from calibration.procedures.light import SAMPLES, shine
from calibration.procedures.sweeps import DIE_RAD_PER_W as BALANCED_RAD_PER_W
from drivers.roles import LightMode

NAMES = HEATERS["alice"]
FILTER, SPLIT, PHASE, SHUTTER = range(4)
# What a fringe's amplitude may have changed by since it was measured, relative.
AMPLITUDE = 0.003
# Heater phases wander by 0.05 degrees in a root minute (reference pair A7).
WALK = np.radians(0.05) / np.sqrt(60.0)
MARGIN = 0.02
# Two of the four heaters at their upper level: the sum stays constant, so that the die does not matter, and these are
# read quickly. One or three, with the die settled, tell what the die does.
FAST = tuple(combinations(range(4), 2))
ORDER = (0, 5, 1, 4, 2, 3)
SLOW = ((0, 1, 3), (1,), (0, 2, 3), (2,))


@dataclass(frozen=True)
class Fringes:
    """What the records of the single elements say: parameters, and the other heaters' powers while they were taken."""

    context: CalibrationContext
    noise: ReadingNoise
    phi0: Array
    p_pi: Array
    p_pi_sigma: Array
    others: Array
    prior: Array

    @classmethod
    def of(cls, context: CalibrationContext) -> Fringes:
        """Raises CalibrationRefused when one is missing."""
        records = [context.record(n) for n in ("filter_peak", "amzi_split", "amzi_phase", "shutter")]
        values = [r.value for r in records]
        p_pi = np.array([v["p_pi_w"] for v in values])
        sigma = np.array([r.sigma("p_pi_w") for r in records])
        f, s, p, b = values[0]["power_w"], values[1]["power_w"], values[2]["power_w"], values[3]["bar_w"]
        # Rows: what was on while that element was swept, and for the phase, felt by way of the die, with itself.
        others = np.array([[0, 0, 0, 0], [f, 0, 0, 0], [f, s, p, b], [f, s, 0, 0]], dtype=np.float64)
        prior = np.stack([distance_prior(4, i, p_pi, 0.0).local for i in range(4)])
        phi0 = np.array([v["phi0_rad"] for v in values])
        return cls(context, reading_noise(context), phi0, p_pi, sigma, others, prior)

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

        All four steps are the same, the mean P_pi, so that the heater sum does not change.
        """
        top = np.array([self.context.drive.max_power(n) for n in NAMES])
        target = np.array([pi / 2.0, balance(self._coupler()), pi / 2.0, pi / 2.0])
        return two_levels(NAMES, top, self.p_pi, target, self.expected, MARGIN)

    def _coupler(self) -> Array:
        v = self.context.record("amzi_split").value
        return np.array([v[n] for n in ("early", "late", "early_visibility", "late_visibility")])

    def phases(self, seen: dict[str, float], expected: Array) -> tuple[Array, Array, Array]:
        """(phases, their noise, effect of a relative amplitude error), all (4,), rad, from one setting's readings."""
        found = [self._filter(seen), self._split(seen), (0.0, 0.0, 0.0), self._shutter(seen)]
        x = _branch(found[SPLIT][0], float(expected[SPLIT]))[0]
        found[PHASE] = self._interferometer(seen, x)
        rows = []
        for (cosine, sigma, amplitude), near in zip(found, expected, strict=True):
            phase, sine = _branch(cosine, float(near))
            rows.append((phase, sigma / abs(sine), amplitude / -sine))
        phases, sigma, amplitude = np.array(rows).T
        return phases, sigma, amplitude

    def _filter(self, seen: dict[str, float]) -> tuple[float, float, float]:
        """(cosine of the phase, its noise, its change for a relative error of the amplitude)."""
        v = self.context.record("filter_peak").value
        y = (seen["z0_pa0"] + seen["z1_pa0"] + seen["cw_pa0"]) / 3.0
        share = self.noise.share("pa0", y, 3 * SAMPLES)
        return _cosine(y / v["offset_a"], v["visibility"], share)

    def _split(self, seen: dict[str, float]) -> tuple[float, float, float]:
        e, late, ve, vl = self._coupler()
        u, w = seen["z0_pa3"] / seen["z0_pa0"] / e, seen["z1_pa3"] / seen["z1_pa0"] / late
        both = u * vl + w * ve
        gain = u * w * (ve + vl) / both**2
        share = hypot(
            self.noise.share("pa3", seen["z0_pa3"], SAMPLES), self.noise.share("pa0", seen["z0_pa0"], SAMPLES)
        )
        return (u - w) / both, gain * share * 2.0**0.5, gain

    def _shutter(self, seen: dict[str, float]) -> tuple[float, float, float]:
        v = self.context.record("shutter").value
        y = (seen["z0_pa4"] / seen["z0_pa3"] + seen["z1_pa4"] / seen["z1_pa3"]) / 2.0
        share = hypot(
            self.noise.share("pa4", seen["z0_pa4"], 2 * SAMPLES), self.noise.share("pa3", seen["z0_pa3"], 2 * SAMPLES)
        )
        return _cosine(y / v["ratio"], v["visibility"], share)

    def _interferometer(self, seen: dict[str, float], split_rad: float) -> tuple[float, float, float]:
        """The coupler's phase sets how much light both arms carry and how well it interferes."""
        v, s = self.context.record("amzi_phase").value, self.context.record("amzi_split").value
        then = s["phi0_rad"] + pi * s["power_w"] / s["p_pi_w"]
        light, contrast = (
            now / before
            for now, before in zip(
                _arms(split_rad, s["long_transmission"]), _arms(then, s["long_transmission"]), strict=True
            )
        )
        y = seen["cw_pa1"] / seen["cw_pa0"] / (v["ratio"] * light)
        share = hypot(
            self.noise.share("pa1", seen["cw_pa1"], SAMPLES), self.noise.share("pa0", seen["cw_pa0"], SAMPLES)
        )
        return _cosine(y, v["visibility"] * contrast, share)

    def prior_of(self, i: int) -> Prior:
        p = distance_prior(4, i, self.p_pi, float(self.p_pi_sigma[i]))
        if i == PHASE:
            return Prior(p.local, p.local_sigma, DIE_RAD_PER_W, DIE_RELATIVE * DIE_RAD_PER_W)
        return Prior(p.local, p.local_sigma, 0.0, BALANCED_RAD_PER_W)


def _cosine(y: float, visibility: float, share: float) -> tuple[float, float, float]:
    return (y - 1.0) / visibility, y * share / visibility, y / visibility


def _arms(split_rad: float, long: float) -> tuple[float, float]:
    """(light through both arms, fringe contrast) of an interferometer behind a coupler."""
    cross = sin(split_rad / 2.0) ** 2
    short, lengthy = 1.0 - cross, cross * long
    return short + lengthy, 2.0 * (short * lengthy) ** 0.5 / (short + lengthy)


def _branch(cosine: float, near: float) -> tuple[float, float]:
    """(phase, sine): of the two phases with this cosine the one next to what is expected."""
    base = acos(min(1.0, max(-1.0, cosine)))
    found = [c + 2.0 * pi * round((near - c) / (2.0 * pi)) for c in (base, -base)]
    phase = min(found, key=lambda c: abs(c - near))
    sine = sin(phase)
    return phase, sine if abs(sine) > 1e-3 else 1e-3


@dataclass
class Experiment:
    """All settings and what was read at them."""

    fringes: Fringes
    powers: list[Array] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    changes: list[tuple[float, float]] = field(default_factory=list)
    seen: list[dict[str, float]] = field(default_factory=list)

    async def run(self) -> None:
        context, levels = self.fringes.context, self.fringes.levels()
        await self._set(levels, FAST[ORDER[0]])
        await context.sleep(context.settings.die_settle_s)
        order = (*ORDER, *reversed(ORDER))
        for k in order:
            await self._set(levels, FAST[k])
            await self._take(levels, FAST[k])
        for up in SLOW:
            await self._set(levels, up)
            await context.sleep(context.settings.die_settle_s)
            await self._take(levels, up)

    async def _set(self, levels: Array, up: Sequence[int]) -> None:
        context = self.fringes.context
        for i, name in enumerate(NAMES):
            await context.drive.set_power(name, float(levels[i, int(i in up)]))
        self.changes.append((context.clock.monotonic(), float(self._powers(levels, up).sum())))

    def _powers(self, levels: Array, up: Sequence[int]) -> Array:
        return np.array([levels[i, int(i in up)] for i in range(4)])

    async def _take(self, levels: Array, up: Sequence[int]) -> None:
        context = self.fringes.context
        carver = context.record("carver_bias").value
        out: dict[str, float] = {}
        await context.biases.set_voltage("carver", carver["null_v"])
        for state in (0, 1):
            await shine(context, LightMode.FIX, state)
            now = await context.photocurrents("pa0", "pa3", "pa4", samples=SAMPLES)
            out |= {f"z{state}_{n}": i for n, i in now.items()}
        await context.biases.set_voltage("carver", carver["peak_v"])
        await shine(context, LightMode.CW)
        now = await context.photocurrents("pa0", "pa1", samples=SAMPLES)
        out |= {f"cw_{n}": i for n, i in now.items()}
        await context.biases.set_voltage("carver", carver["null_v"])
        self.powers.append(self._powers(levels, up))
        self.at_s.append(context.clock.monotonic())
        self.seen.append(out)

    def solved(self) -> list[RowFit]:
        """One row an element. Raises FitRefused."""
        powers, at = np.array(self.powers), np.array(self.at_s)
        times, sums = (np.array(c) for c in zip(*self.changes, strict=True))
        die = lagged_sum(times, sums, at, float(sums[0]))
        behind = np.abs(powers.sum(axis=1) - die)
        die += stored_heat(times, sums, die, at, float(sums[0])) / SUBMOUNT_J_PER_K
        rows = [self.fringes.phases(seen, self.fringes.expected(p)) for seen, p in zip(self.seen, powers, strict=True)]
        phases, sigma, amplitude = (np.array([r[k] for r in rows]) for k in range(3))
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
                self.fringes.prior_of(i),
                walk_rad_per_root_s=WALK_RAD_PER_ROOT_S if i == PHASE else WALK,
                nuisance=[amplitude[:, i], ago, 0.5 * ago**2],
                nuisance_sigma=[AMPLITUDE, *(feels[i] * d for d in DRIFT_RAD)],
            )
            for i in range(4)
        ]
