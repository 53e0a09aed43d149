"""Pilot tones: every actuator moves a little, each on its own code, all at once; every monitor is read along.

The codes are rows of a Hadamard matrix (Walsh functions): orthogonal to one another and to a constant. A linear drift
leaks into the slow ones only, so it is fitted along. What comes out is the response of each monitor to each actuator
with its uncertainty: a control path that has a monitor is proved by it, dead channels and exchanged cables stand out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from calibration.fit import Array
from calibration.plot import Heatmap
from qmodd.selftest.bench import Bench

# Standard uncertainties above which a response is no chance: of 100 pairs none in 10^6 runs.
SIGNIFICANT = 6.0
# An exchanged actuator moves the other's monitor by at least this share of what moves it most.
EXCHANGED = 0.5


@dataclass(frozen=True)
class Actuator:
    """One output. `write` takes it to base + share * amplitude, in `unit`; `base` is where it is left."""

    name: str
    part: str
    write: Callable[[float], Awaitable[None]]
    base: float
    amplitude: float
    unit: str


@dataclass(frozen=True)
class Response:
    """Change of each monitor for +1 amplitude of each actuator, shape (actuators, monitors), and its standard
    uncertainty by the scatter of the residuals."""

    actuators: tuple[str, ...]
    monitors: tuple[str, ...]
    gain: Array
    sigma: Array

    def of(self, actuator: str, monitor: str) -> tuple[float, float]:
        """(gain, sigma)."""
        a, m = self.actuators.index(actuator), self.monitors.index(monitor)
        return float(self.gain[a, m]), float(self.sigma[a, m])

    def significant(self, actuator: str, monitor: str, z: float = SIGNIFICANT) -> bool:
        gain, sigma = self.of(actuator, monitor)
        return abs(gain) > z * sigma

    def figure(self, title: str, unit: str = "") -> Heatmap:
        return Heatmap(title, self.actuators, self.monitors, self.gain.tolist(), unit)


def walsh(actuators: int) -> Array:
    """Codes of +-1, shape (actuators, steps): the rows of a Hadamard matrix with the most changes of sign."""
    steps = 8
    while steps < 2 * (actuators + 1):
        steps *= 2
    h = np.ones((1, 1))
    while len(h) < steps:
        h = np.block([[h, h], [h, -h]])
    changes = np.count_nonzero(np.diff(h, axis=1), axis=1)
    return np.asarray(h[np.argsort(changes)[::-1][:actuators]])


async def sound(
    bench: Bench,
    actuators: Sequence[Actuator],
    read: Callable[[], Awaitable[Mapping[str, float]]],
    *,
    repeats: int = 2,
    settle_s: float = 0.003,
) -> Response:
    """All actuators on their codes, `repeats` times over; they are back at their bases afterwards, whatever happens.

    Raises drivers.errors.DriverError.
    """
    codes = np.tile(walsh(len(actuators)), repeats)
    rows: list[Mapping[str, float]] = []
    try:
        for step in codes.T:
            for a, share in zip(actuators, step, strict=True):
                await a.write(a.base + float(share) * a.amplitude)
            await bench.sleep(settle_s)
            rows.append(await read())
    finally:
        for a in actuators:
            await a.write(a.base)
    monitors = tuple(rows[0])
    y = np.array([[row[m] for m in monitors] for row in rows])
    return regress(tuple(a.name for a in actuators), monitors, codes, y)


def regress(actuators: tuple[str, ...], monitors: tuple[str, ...], codes: Array, y: Array) -> Response:
    """Codes (actuators, steps), readings (steps, monitors). A constant and a straight drift are fitted along."""
    steps = codes.shape[1]
    design = np.vstack([codes, np.ones(steps), np.linspace(-1.0, 1.0, steps)]).T
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    rest = y - design @ solution
    variance = np.sum(rest**2, axis=0) / max(1, steps - design.shape[1])
    spread = np.sqrt(np.diag(np.linalg.inv(design.T @ design)))[: len(actuators)]
    return Response(actuators, monitors, solution[: len(actuators)], np.outer(spread, np.sqrt(variance)))


def exchanged(gain: Mapping[str, Mapping[str, float]], own: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs of actuators that move one another's monitor and not their own; `gain`: size of the response by actuator
    and monitor, `own`: each actuator's monitor. Sizes of one monitor are compared only with one another."""

    def moves(a: str, monitor: str) -> bool:
        most = max(abs(row.get(monitor, 0.0)) for row in gain.values())
        return most > 0.0 and abs(gain[a].get(monitor, 0.0)) >= EXCHANGED * most

    return [
        (a, b)
        for a, b in combinations(own, 2)
        if own[a] != own[b] and moves(a, own[b]) and moves(b, own[a]) and not moves(a, own[a]) and not moves(b, own[b])
    ]
