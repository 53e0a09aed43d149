"""Counts of a control step of any length without tags: Poisson about the law of the acceptance rule (reference pair C).

For each row of light (eight classes, two pilots) the chance of each outcome in a live slot follows from the table of
means; the share of live slots from each detector's clicks as a renewal process with dead time and recovery. What is
lost against tags: slot numbers, and that real counts scatter a little less than Poisson (Fano factor 0.9 at 10 dB).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.physics.clicks import CLASSES, PILOTS
from sim.physics.light import Light
from sim.physics.optics import PILOT_PLUS
from sim.physics.tagger import Receiver

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Outcomes of an accepted slot. X0: DX1 alone, X1: DX0 alone; DOUBLE: both; CROSS: Z and X, basis and bit by chance.
Z0, Z1, X0, X1, DOUBLE, CROSS, OUTCOMES = 0, 1, 2, 3, 4, 5, 6
GATES = np.array([2, 3, 3])  # a slot's bins at each detector
_SATELLITES = [2, 4, 5, 7]
_AT = [1, 1, 2, 2]
_LONGEST = 12  # slots, at least, after which a detector's recovery is looked at no more


@dataclass(frozen=True)
class Reception:
    """The receiver as its acceptance rule sees it. dead_ps, recovery_ps, inside: (3,); the last is the share of clicks
    that fall into the gate of their own bin."""

    period_ps: float
    half_gate_ps: float
    holdoff: int
    dead_ps: Floats
    recovery_ps: Floats
    inside: Floats

    @classmethod
    def of(
        cls, receiver: Receiver, period_ps: float = 8000.0, half_gate_ps: float = 200.0, holdoff: int = 5
    ) -> Reception:
        gate, u = [-half_gate_ps, half_gate_ps], np.linspace(0.0, 1.0, receiver.jitter.shape[1])
        inside = np.array([np.diff(np.interp(gate, q, u))[0] for q in receiver.jitter])
        return cls(period_ps, half_gate_ps, holdoff, receiver.parameters[0], receiver.parameters[1], inside)


@dataclass(frozen=True)
class Expected:
    """Means of an interval: slots; live: those live that carry no pilot; outcomes: (10, 6) by row and outcome;
    satellites: (4,), DX0 first and last bin, DX1 first and last, pilots' and vetoed slots' included."""

    slots: float
    live: float
    outcomes: Floats
    satellites: Floats

    def __add__(self, other: Expected) -> Expected:
        return Expected(
            self.slots + other.slots,
            self.live + other.live,
            self.outcomes + other.outcomes,
            self.satellites + other.satellites,
        )

    def times(self, factor: float) -> Expected:
        """Of an interval so many times as long."""
        return Expected(factor * self.slots, factor * self.live, factor * self.outcomes, factor * self.satellites)


@dataclass(frozen=True)
class StepCounts:
    """What a batch's tally holds. Pairs are (signal, decoy); m_z: errors of n_z, which nobody is told before
    correction; satellites as in `Expected`; pilot: (2, 2), P+ and P- by output DX0, DX1."""

    slots: int
    live_slots: int
    n_z: tuple[int, int]
    m_z: tuple[int, int]
    n_x0: tuple[int, int]
    e_x0: tuple[int, int]
    n_x1: tuple[int, int]
    e_x1: tuple[int, int]
    z_early: int
    z_late: int
    cross: int
    double_x: int
    satellites: tuple[int, int, int, int]
    pilot: Ints


def expected(light: Light, how: Reception, p_x: float, p_decoy: float, pilot_every: int = 0) -> Expected:
    """Means of one second in KEY mode. p_x, p_decoy: Alice's probabilities; pilot_every: 0 without pilot."""
    rows = _rows(light)
    slots = 1e12 / how.period_ps
    pilots = 1.0 / pilot_every if pilot_every else 0.0
    shares = np.zeros(CLASSES)
    shares[:PILOTS] = np.outer([(1 - p_x) / 2, (1 - p_x) / 2, p_x / 2, p_x / 2], [1 - p_decoy, p_decoy]).ravel()
    shares[PILOTS:] = 0.5 * bool(pilot_every)
    darks = light.steady * how.period_ps * 1e-12
    clicks = 1.0 - np.exp(-(rows @ _OF_CELL.T + darks))
    ordinary, bright = shares[:PILOTS] @ clicks[:PILOTS], shares[PILOTS:] @ clicks[PILOTS:]
    mean = (1.0 - pilots) * ordinary + pilots * bright
    quiet, alive = _quiet(ordinary, how), _quiet(mean, how)[1]
    live, live_pilot = _live(quiet[0], ordinary, bright, how.holdoff, pilot_every)
    seen = shares * np.where(np.arange(CLASSES) < PILOTS, (1.0 - pilots) * live, pilots * live_pilot)
    weights = shares * np.where(np.arange(CLASSES) < PILOTS, 1.0 - pilots, pilots)
    return Expected(
        slots,
        slots * (1.0 - pilots) * live,
        slots * seen[:, None] * outcomes(rows, light.steady, how),
        slots * (weights @ _satellites(rows, light.steady, how)) * alive[_AT],
    )


def draw(means: Expected, generator: np.random.Generator) -> StepCounts:
    """Counts of an interval with these means; live slots are as many as expected, the others Poisson."""
    n = generator.poisson(means.outcomes)
    plain = n.copy()
    # Cross clicks get a basis and a bit by chance, double clicks a bit.
    n[:, :4] += generator.multinomial(n[:, CROSS], [0.25] * 4)
    to_x0 = generator.binomial(n[:, DOUBLE], 0.5)
    n[:, X0] += to_x0
    n[:, X1] += n[:, DOUBLE] - to_x0
    k = n[:PILOTS].reshape(4, 2, OUTCOMES)  # state, intensity, outcome
    a, b, c, d = (int(v) for v in generator.poisson(means.satellites))
    z = plain[:PILOTS].sum(axis=0)
    return StepCounts(
        slots=round(means.slots),
        live_slots=round(means.live),
        n_z=_pair(k[:2, :, [Z0, Z1]].sum(axis=(0, 2))),
        m_z=_pair(k[0, :, Z1] + k[1, :, Z0]),
        n_x0=_pair(k[2, :, [X0, X1]].sum(axis=0)),
        e_x0=_pair(k[2, :, X1]),
        n_x1=_pair(k[3, :, [X0, X1]].sum(axis=0)),
        e_x1=_pair(k[3, :, X0]),
        z_early=int(z[Z0]),
        z_late=int(z[Z1]),
        cross=int(z[CROSS]),
        double_x=int(z[DOUBLE]),
        satellites=(a, b, c, d),
        pilot=n[PILOTS:][:, [X1, X0]],
    )


def counts(
    light: Light,
    how: Reception,
    p_x: float,
    p_decoy: float,
    seconds: float,
    generator: np.random.Generator,
    pilot_every: int = 0,
) -> StepCounts:
    """Counts of `seconds` in one light."""
    return draw(expected(light, how, p_x, p_decoy, pilot_every).times(seconds), generator)


def outcomes(rows: Floats, darks: Floats, how: Reception) -> Floats:
    """Chance of each outcome in a live slot, (n, 6), for means (n, 8) a slot and darks (3,) a second.

    A click outside the gates drops the slot; of two photo-detections at one detector the first one counts.
    """
    gate = darks * 2e-12 * how.half_gate_ps
    outside = darks * how.period_ps * 1e-12 - GATES * gate
    early, late = rows[:, 0] + gate[0], rows[:, 1] + gate[0]
    before = how.inside[0] * np.exp(-outside[0] / 2.0)
    z = np.stack([-np.expm1(-early), np.exp(-early) * -np.expm1(-late)]) * before
    none_z = np.exp(-early - late - outside[0])
    none, middle = [], []
    for q in (1, 2):
        first, second, third = (rows[:, 3 * q - 1 + i] + gate[q] for i in range(3))
        none.append(np.exp(-first - second - third - outside[q]))
        middle.append(np.exp(-first - outside[q] / 2.0) * -np.expm1(-second) * how.inside[q])
    out = np.empty((len(rows), OUTCOMES))
    out[:, [Z0, Z1]] = (z * none[0] * none[1]).T
    out[:, X0] = none_z * none[0] * middle[1]
    out[:, X1] = none_z * none[1] * middle[0]
    out[:, DOUBLE] = none_z * middle[0] * middle[1]
    out[:, CROSS] = z.sum(axis=0) * ((none[0] + middle[0]) * (none[1] + middle[1]) - none[0] * none[1])
    return out


def _rows(light: Light) -> Floats:
    """Means of the classes and the two pilots, (10, 8)."""
    return np.concatenate([light.lam[:PILOTS], light.lam[PILOT_PLUS : PILOT_PLUS + 2]])


_OF_CELL = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1]], float)


def _satellites(rows: Floats, darks: Floats, how: Reception) -> Floats:
    """Clicks in the satellites' gates a slot of ready detectors, (n, 4)."""
    gate = darks * 2e-12 * how.half_gate_ps
    out = np.empty((len(rows), 4))
    for k, q in ((0, 1), (2, 2)):
        first, second, third = (rows[:, 3 * q - 1 + i] + gate[q] for i in range(3))
        out[:, k] = -np.expm1(-first) * how.inside[q]
        out[:, k + 1] = np.exp(-first - second) * -np.expm1(-third) * how.inside[q]
    return out


def _quiet(chance: Floats, how: Reception) -> tuple[Floats, Floats]:
    """(chance of no click in the hold-off before a slot; share of slots in which a detector is ready), each (3,).

    chance: of a click in a slot in which the detector is ready, (3,). Clicks are a renewal process: `survive[u]` is the
    chance of none within u slots after one, and long after one it falls geometrically.
    """
    far = max(_LONGEST, how.holdoff) + int(np.max((how.dead_ps + 6.0 * how.recovery_ps) / how.period_ps))
    since = np.arange(1, far + 1)[:, None] * how.period_ps - how.dead_ps
    ready = -np.expm1(-np.maximum(since, 0.0) / how.recovery_ps)
    q = np.maximum(chance, 1e-15)
    survive = np.concatenate([np.ones((1, 3)), np.cumprod(1.0 - q * ready, axis=0)])
    tail = survive[-1] / q
    mean_gap = survive[:-1].sum(axis=0) + tail
    return (survive[how.holdoff : -1].sum(axis=0) + tail) / mean_gap, 1.0 / (q * mean_gap)


def _live(quiet: Floats, ordinary: Floats, bright: Floats, holdoff: int, every: int) -> tuple[float, float]:
    """Share of live slots among the ordinary ones and among pilots: a pilot in the hold-off takes the place of an
    ordinary slot."""
    live = float(np.prod(quiet))
    if not every:
        return live, 0.0
    instead = float(np.prod((1.0 - bright) / (1.0 - ordinary)))
    # A slot `at` after a pilot has, in its hold-off, that one and those a whole number of periods before.
    number = np.array([(holdoff - at) // every + 1 if at <= holdoff else 0 for at in range(1, every)])
    beside = live * float(np.mean(instead**number)) if every > 1 else 0.0
    return beside, live * instead ** (holdoff // every)


def _pair(values: Ints) -> tuple[int, int]:
    return int(values[0]), int(values[1])
