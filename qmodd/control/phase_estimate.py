"""What public X counts say about the phase error (reference pair A5, control B6). Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# Above this the sine is no longer the error, and the cosine tells its size well.
LARGE = 0.45


class BatchLike(Protocol):
    """A sifted batch's tally; every tuple by intensity."""

    @property
    def n_x0(self) -> Sequence[int]: ...
    @property
    def e_x0(self) -> Sequence[int]: ...
    @property
    def n_x1(self) -> Sequence[int]: ...
    @property
    def e_x1(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class PhaseCounts:
    """Matched X detections n and errors e of an interval by the state sent, all intensities together."""

    seconds: float
    n_x0: int
    e_x0: int
    n_x1: int
    e_x1: int

    @classmethod
    def of(cls, batch: BatchLike, seconds: float) -> PhaseCounts:
        return cls(seconds, sum(batch.n_x0), sum(batch.e_x0), sum(batch.n_x1), sum(batch.e_x1))

    def __add__(self, other: PhaseCounts) -> PhaseCounts:
        return PhaseCounts(
            self.seconds + other.seconds,
            self.n_x0 + other.n_x0,
            self.e_x0 + other.e_x0,
            self.n_x1 + other.n_x1,
            self.e_x1 + other.e_x1,
        )

    @property
    def total(self) -> int:
        return self.n_x0 + self.n_x1

    @property
    def qber(self) -> float:
        return (self.e_x0 + self.e_x1) / self.total if self.total else 0.5

    @property
    def visibility(self) -> float:
        return 1.0 - 2.0 * self.qber


@dataclass(frozen=True)
class PhaseModel:
    """Fringe contrast V; xi: the states' phases are err - xi and err + xi in the heater's direction; efficiency of DX0
    over that of DX1."""

    visibility: float
    xi_rad: float
    efficiency_ratio: float = 1.0

    def errors(self, n: PhaseCounts) -> tuple[float, float]:
        """Error shares of X0 and X1 as equal detectors would count them: X0 is wrong in DX0, X1 in DX1.

        Without this a ratio of 0.9 and a floor of 2 % would shift the lock by 3 degrees.
        """
        r = self.efficiency_ratio
        wrong0, right0 = n.e_x0 / r, float(n.n_x0 - n.e_x0)
        wrong1, right1 = float(n.e_x1), (n.n_x1 - n.e_x1) / r
        return wrong0 / max(wrong0 + right0, 1e-9), wrong1 / max(wrong1 + right1, 1e-9)


@dataclass(frozen=True)
class Estimate:
    """Phase error (rad, in the direction of more heater power), its variance, the interval's 1 - 2 QBER_X.

    `decided` is False when the error is large but the counts do not tell its sign: do not act, take more.
    """

    error: float
    variance: float
    visibility: float
    decided: bool


def from_states(n: PhaseCounts, model: PhaseModel) -> Estimate:
    """e(X1) - e(X0) = V sin(xi) sin(err); the size of a large error comes from 1 - 2 QBER_X = V cos(xi) cos(err).

    Raises ValueError without counts of both states.
    """
    if n.n_x0 <= 0 or n.n_x1 <= 0:
        raise ValueError("an estimate needs counts of both X states")
    slope = model.visibility * math.sin(model.xi_rad)
    e0, e1 = model.errors(n)
    difference = e1 - e0
    # Fewer than 3 errors seen say little about how many were expected.
    variance = (max(n.e_x1, 3) / n.n_x1**2 + max(n.e_x0, 3) / n.n_x0**2) / slope**2
    return _combine(difference / slope, variance, n.visibility / (model.visibility * math.cos(model.xi_rad)), n)


def from_dither(plus: PhaseCounts, minus: PhaseCounts, dither_rad: float, model: PhaseModel) -> Estimate:
    """e(+) - e(-) = V cos(xi) sin(dither) sin(err) (reference control B6b). Raises ValueError without both."""
    if plus.total <= 0 or minus.total <= 0:
        raise ValueError("an estimate needs counts of both sides")
    slope = model.visibility * math.cos(model.xi_rad) * math.sin(dither_rad)
    e_plus, e_minus = max(plus.e_x0 + plus.e_x1, 3), max(minus.e_x0 + minus.e_x1, 3)
    variance = (e_plus / plus.total**2 + e_minus / minus.total**2) / slope**2
    n = plus + minus
    cosine = n.visibility / (model.visibility * math.cos(model.xi_rad) * math.cos(dither_rad))
    return _combine((plus.qber - minus.qber) / slope, variance, cosine, n)


def _combine(sine: float, variance: float, cosine: float, n: PhaseCounts) -> Estimate:
    """Small errors from the sine; large ones in size from the cosine, in sign from the sine if it is significant."""
    size = math.acos(min(max(cosine, -1.0), 1.0))
    if size < LARGE:
        return Estimate(min(max(sine, -0.6), 0.6), variance, n.visibility, True)
    # Near the far side of the fringe the sign hardly matters: either way ends closer than it began.
    decided = size > 2.5 or abs(sine) > 1.5 * math.sqrt(variance)
    return Estimate(math.copysign(size, sine), max(variance, 0.01), n.visibility, decided)
