"""Fringe of the receiver's unbalanced interferometer against its heater, with the die that warms along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import pi, sqrt

import numpy as np

from calibration.context import CalibrationContext
from calibration.crosstalk import SUBMOUNT_J_PER_K, lagged_sum, stored_heat
from calibration.fit import Array, FitRefused, LeastSquares, gauss_newton, judged
from calibration.noise import power_variants
from calibration.procedures.amzi_phase import DRIFT_RAD, LAG_SHARE, WANDER_RAD
from calibration.procedures.sweeps import heater_fringe

# Both interferometers walk by 0.3 degrees in a root minute (pair A7).
WALK_RAD_PER_ROOT_S = np.radians(0.3) * np.sqrt(2.0 / 60.0)
# How much a reading of v cos t is off beyond its noise: gates, dead time, light between pulses.
FLOOR = 1e-3
# v, phi0, P_pi of the heater alone, c, drift, its change, xi.
V, PHI0, P_PI, DIE, DRIFT, BEND, XI = range(7)


@dataclass(frozen=True)
class Series:
    """v cos t of one state at every setting. sign: +1 for X0, -1 for X1: sign v cos(t - sign xi); at_s: when read."""

    sign: float
    value: Array
    sigma: Array
    at_s: Array


@dataclass(frozen=True)
class PhaseFit:
    """At the end of the sweep, the die as it is then. `covariance` over the seven parameters, with R(P).

    `p_pi_w` is the heater's own, the die's temperature held; `settled_w` with the die following.
    """

    parameters: Array
    covariance: Array
    drive: Array
    final_w: float
    residuals: Array
    reduced_chi2: float

    @property
    def visibility(self) -> float:
        return float(self.parameters[V])

    @property
    def p_pi_w(self) -> float:
        return float(self.parameters[P_PI])

    @property
    def phase_rad(self) -> float:
        """Phase at the end, with the heater at `final_w`."""
        return float(self.parameters[PHI0] + pi * self.final_w / self.parameters[P_PI])

    @property
    def settled_w(self) -> float:
        """P_pi with the die following."""
        return float(pi / (pi / self.parameters[P_PI] + self.parameters[DIE]))

    @property
    def settled_phi0_rad(self) -> float:
        """Phase at the end less pi P/P_pi of the settled kind."""
        return self.phase_rad - pi * self.final_w / self.settled_w

    def gradient(self, of: str) -> Array:
        """Derivative of a result by the parameters, (7,)."""
        p, c, w = self.parameters[P_PI], self.parameters[DIE], self.final_w
        g = np.zeros(7)
        if of == "phase_rad":
            g[PHI0], g[P_PI] = 1.0, -pi * w / p**2
        elif of == "settled_w":
            rate = pi / p + c
            g[P_PI], g[DIE] = pi**2 / (p * rate) ** 2, -pi / rate**2
        elif of == "settled_phi0_rad":
            g[PHI0], g[DIE] = 1.0, -w
        else:
            g[{"visibility": V, "xi_rad": XI, "p_pi_w": P_PI}[of]] = 1.0
        return g

    def covariance_of(self, names: Sequence[str]) -> Array:
        g = np.stack([self.gradient(n) for n in names])
        return np.asarray(g @ self.covariance @ g.T)

    def power_for(self, target_rad: float, top_w: float, margins: Sequence[float]) -> tuple[float, int, float]:
        """(W, fringe order, margin) of the least power with a phase modulo 2 pi, the die settled. Raises FitRefused."""
        for margin in margins:
            for order in range(-8, 9):
                power = self.final_w + (target_rad + 2.0 * pi * order - self.phase_rad) * self.settled_w / pi
                if margin * top_w <= power <= (1.0 - margin) * top_w:
                    return power, order, margin
        raise FitRefused(
            f"phase {target_rad:.2f} rad is out of reach: half period {self.settled_w * 1e3:.1f} mW in "
            f"{top_w * 1e3:.0f} mW"
        )

    def phase_sigma(self) -> float:
        """Of the phase at the end, by the drive's own watts, rad."""
        g = self.gradient("phase_rad")
        return sqrt(max(0.0, float(g @ self.drive @ g)))


@dataclass(frozen=True)
class PhaseSweep:
    """Readings in the order of time. powers (k,) of the heater; other_rad (k,): turn by the other heaters against the
    end, known; sum_w and set_s: sums of all heaters, and since when, also after the last reading; before_w: the sum
    before the first; end_s: the time that the result is for, final_w: the heater's power then."""

    context: CalibrationContext
    powers: Array
    sum_w: Array
    set_s: Array
    other_rad: Array
    series: Sequence[Series]
    before_w: float
    die_rad_per_w: float
    die_sigma: float
    end_s: float
    final_w: float

    def solved(self, start: Array | None = None) -> PhaseFit:
        """Raises FitRefused."""
        q = self._start() if start is None else start
        for _ in range(2):
            root = self._root(q)
            q = self._whitened(q, root, self.powers).parameters
        fit = judged(self._whitened(q, root, self.powers), "interferometer fringe", bounded=True)
        bent = [
            self._whitened(q, root, x).parameters - fit.parameters
            for x in power_variants(self.context, "phase", self.powers)
        ]
        true_watts = sum((np.outer(b, b) for b in bent), np.zeros((7, 7)))
        low, high = self.context.settings.heater_p_pi_w
        if not low <= fit.parameters[P_PI] <= high:
            raise FitRefused(
                f"heater 'phase': half period {fit.parameters[P_PI] * 1e3:.1f} mW is outside {low * 1e3:.0f} to "
                f"{high * 1e3:.0f} mW"
            )
        if not 0.5 <= fit.parameters[V] <= 1.05:
            raise FitRefused(f"visibility {fit.parameters[V]:.3f} of the X fringes; 0.5 is the least")
        values = np.concatenate([s.value for s in self.series]) - self._model(fit.parameters, self.powers)
        return PhaseFit(
            fit.parameters,
            np.asarray(fit.covariance + true_watts),
            fit.covariance,
            self.final_w,
            values,
            fit.reduced_chi2,
        )

    @cached_property
    def at_s(self) -> Array:
        """All readings of all series, (n k,)."""
        return np.concatenate([s.at_s for s in self.series])

    @cached_property
    def lagged(self) -> Array:
        """Heater sum as the die felt it at every reading, and at the end, W."""
        return lagged_sum(self.set_s, self.sum_w, np.append(self.at_s, self.end_s), self.before_w)

    @cached_property
    def felt(self) -> Array:
        """That and what the submount took, less what it is at the end, W."""
        at = np.append(self.at_s, self.end_s)
        taken = stored_heat(self.set_s, self.sum_w, self.lagged, at, self.before_w) / SUBMOUNT_J_PER_K
        whole = self.lagged + taken
        return np.asarray(whole[:-1] - whole[-1])

    def _start(self) -> Array:
        first = self.series[0]
        rough = heater_fringe(
            self.context, self.powers, 1.0 + first.sign * first.value, first.sigma + 0.08, 0.4, 0.3, absolute=False
        )
        settled = pi / rough.x_pi
        own = pi / (settled - self.die_rad_per_w) if settled > 2.0 * self.die_rad_per_w else rough.x_pi
        # The die's part is taken against the end: where the heater was at the end, both laws agree.
        phi0 = rough.phi0_rad + pi * self.final_w * (1.0 / rough.x_pi - 1.0 / own)
        v = min(rough.offset * rough.visibility, 1.0)
        return np.array([v, phi0, own, self.die_rad_per_w, 0.0, 0.0, 0.0])

    def _phase(self, q: Array, powers: Array) -> Array:
        """At every reading of all series, (n k,)."""
        ago, n = self.at_s - self.end_s, len(self.series)
        own = q[PHI0] + pi * powers / q[P_PI] + self.other_rad
        return np.asarray(np.tile(own, n) + q[DIE] * self.felt + q[DRIFT] * ago + 0.5 * q[BEND] * ago**2)

    @cached_property
    def _signs(self) -> Array:
        return np.repeat([s.sign for s in self.series], len(self.powers))

    def _model(self, q: Array, powers: Array) -> Array:
        return np.asarray(self._signs * q[V] * np.cos(self._phase(q, powers) - self._signs * q[XI]))

    def _root(self, q: Array) -> Array:
        """Cholesky factor of the readings' covariance: noise, the walk until the end, the die's lag and wander."""
        n, k = len(self.series), len(self.powers)
        ago = self.end_s - np.maximum.outer(self.at_s, self.at_s)
        behind = np.tile(self.sum_w[:k], n) - self.lagged[:-1]
        same = np.tile(np.eye(k), (n, n))
        lag = LAG_SHARE * q[DIE] * behind
        phase = WALK_RAD_PER_ROOT_S**2 * ago + same * (WANDER_RAD**2 + np.outer(lag, lag))
        gain = -self._signs * q[V] * np.sin(self._phase(q, self.powers) - self._signs * q[XI])
        second = 0.5 * q[V] * np.diag(phase)
        noise = np.diag(np.concatenate([s.sigma for s in self.series]) ** 2 + FLOOR**2 + second**2)
        return np.linalg.cholesky(noise + np.outer(gain, gain) * phase)

    def _whitened(self, q: Array, root: Array, powers: Array) -> LeastSquares:
        xi_sigma = 1e-6 if len(self.series) == 1 else 10.0
        prior = np.array([self.die_sigma, *DRIFT_RAD, xi_sigma])
        known = np.array([self.die_rad_per_w, 0.0, 0.0, 0.0])

        def model(p: Array) -> Array:
            return np.concatenate([np.linalg.solve(root, self._model(p, powers)), p[DIE:] / prior])

        y = np.concatenate([s.value for s in self.series])
        wanted = np.concatenate([np.linalg.solve(root, y), known / prior])
        return gauss_newton(model, q, wanted, np.ones(len(wanted)), absolute=True)
