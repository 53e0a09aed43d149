"""The optical law of the receiver's interferometer as a plant for the lock: counts are drawn, the truth is its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from qmodd.control.phase_estimate import PhaseCounts, PilotTally
from qmodd.control.phase_lock import Action, Facts, PhaseLock, PhaseLockConfig, Sample

RAD = math.pi / 180
V, FLOOR, P_PI = 0.985, 0.004, 0.040
BATCH_S = 0.1


def config(xi: float = -0.079, **kw: float | bool) -> PhaseLockConfig:
    chosen = {"low_rad": -0.045 / P_PI * math.pi, "high_rad": 0.065 / P_PI * math.pi, **kw}
    return PhaseLockConfig(xi, V, **chosen)  # type: ignore[arg-type]


@dataclass
class Fibre:
    """Matched X counts at `rate`, pilot clicks at `pilot` a second; `theta` is what drifts, rad; the heater adds to it.

    Batches arrive `latency` s after their end. `walk` rad/sqrt(s), `slow` rad rms of each die (30 s), `ramp` rad/s.
    """

    lock: PhaseLock
    rate: float = 47_000.0
    pilot: float = 0.0
    xi: float = -0.079
    theta: float = 0.0
    walk: float = 0.3 * RAD * math.sqrt(2 / 60)
    slow: float = 0.7 * RAD
    ramp: float = 0.0
    ratio: float = 1.0
    latency: float = 0.2
    batch: float = BATCH_S
    seed: int = 1
    now: float = 0.0
    dead: bool = False
    swapped: bool = False
    silent: int | None = None
    stuck: bool = False
    unmodulated: bool = False
    errors: list[float] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    falsely: float = 0.0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.heater = 0.0
        self.dice = np.zeros(2)
        self._under_way: list[tuple[float, Sample]] = []
        self.period = self.lock.config.period_s

    def error(self) -> float:
        return math.remainder(self.theta + self.dice[0] - self.dice[1] + self.heater, 2 * math.pi)

    def counts(self) -> PhaseCounts:
        half = 0.0 if self.dead else self.rate * self.batch / 2
        e = [FLOOR + (1 - 2 * FLOOR) * (1 - V * math.cos(self.error() + s * self.xi)) / 2 for s in (-1, 1)]
        if self.unmodulated:
            e = [0.5, 0.5]
        r = math.sqrt(self.ratio)
        cell = {(0, 1): (1 - e[0]) / r, (0, 0): e[0] * r, (1, 0): (1 - e[1]) * r, (1, 1): e[1] / r}
        n = {key: int(self.rng.poisson(half * mean)) for key, mean in cell.items()}
        if self.swapped:
            n = {(s, d): n[s, 1 - d] for s, d in n}
        if self.silent is not None:
            n |= {(s, self.silent): 0 for s in (0, 1)}
        return PhaseCounts(self.batch, n[0, 0] + n[0, 1], n[0, 0], n[1, 0] + n[1, 1], n[1, 1])

    def pilots(self) -> PilotTally | None:
        if not self.pilot:
            return None
        mean, s = self.pilot * self.batch / 4 * (not self.dead), V * math.sin(self.error() - self.xi)
        draw = [int(self.rng.poisson(mean * (1 + sign * s))) for sign in (1, -1, -1, 1)]
        if self.swapped:
            draw = [draw[1], draw[0], draw[3], draw[2]]
        if self.silent is not None:
            draw[self.silent] = draw[self.silent + 2] = 0
        return PilotTally(self.batch, *draw)

    def _sense(self) -> None:
        keep = math.exp(-self.batch / 30)
        self.dice = self.dice * keep + self.rng.normal(size=2) * self.slow * math.sqrt(1 - keep**2)
        self.theta += self.rng.normal() * self.walk * math.sqrt(self.batch) + self.ramp * self.batch
        self.errors.append(self.error())
        begin, self.now = self.now, self.now + self.batch
        self._under_way.append((self.now + self.latency, Sample(begin, self.now, counts=self.counts())))
        if (tally := self.pilots()) is not None:
            self._under_way.append((self.now + self.latency / 4, Sample(begin, self.now, pilot=tally)))
        if self.lock.report(self.now).locked and abs(self.error()) > self.lock.config.error_limit:
            self.falsely += self.batch

    def run(
        self, seconds: float, facts: Facts = Facts(), until: Callable[[], bool] = lambda: False, deaf: bool = False
    ) -> Action:
        """`deaf`: no counts arrive."""
        action = self.actions[-1] if self.actions else Action(0.0)
        per_step = max(1, round(self.period / self.batch))
        for i in range(round(seconds / self.batch)):
            self._sense()
            if (i + 1) % per_step:
                continue
            arrived = [s for t, s in self._under_way if t <= self.now + 1e-9]
            self._under_way = [(t, s) for t, s in self._under_way if t > self.now + 1e-9]
            action = self.lock.update(self.now, [] if deaf else arrived, facts)
            if not (self.stuck or facts.actuator or facts.leased):
                self.heater = action.phase_rad
                self.lock.applied(self.now, action.phase_rad)
            self.actions.append(action)
            if until():
                break
        return action


def fibre(xi: float = -0.079, limits: Mapping[str, float | bool] | None = None, **kw: float) -> Fibre:
    return Fibre(PhaseLock(config(xi, **(limits or {}))), xi=xi, **kw)  # type: ignore[arg-type]
