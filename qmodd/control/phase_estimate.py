"""What counts say about the phase error: the two X states, a dither, a pilot (reference pair A5, control B6). Pure.

Each gives the sine of the error with its variance; the cosine, common to all, comes from the X states' error rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# Fewer errors seen than this say little about how many were expected.
LEAST_ERRORS = 3
# One output's share of all clicks beyond which the other one counts as silent, and the clicks needed to say so.
SILENT_SHARE = 0.1
SILENT_CLICKS = 100
# How well the states' ratio of counts keeps by itself, beside counting noise.
RATIO_SIGMA = 0.005


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
    @property
    def satellites(self) -> Sequence[int]: ...


class PilotLike(Protocol):
    """Middle clicks in pilot slots of a batch."""

    @property
    def n_plus_dx0(self) -> int: ...
    @property
    def n_plus_dx1(self) -> int: ...
    @property
    def n_minus_dx0(self) -> int: ...
    @property
    def n_minus_dx1(self) -> int: ...
    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True)
class PhaseCounts:
    """Matched X detections n and errors e of an interval by the state sent, all intensities together; clicks in the
    satellite bins (DX0 first and last, DX1 first and last), which no phase moves."""

    seconds: float
    n_x0: int
    e_x0: int
    n_x1: int
    e_x1: int
    satellites: tuple[int, int, int, int] = (0, 0, 0, 0)

    @classmethod
    def of(cls, batch: BatchLike, seconds: float) -> PhaseCounts:
        a, b, c, d = batch.satellites
        return cls(seconds, sum(batch.n_x0), sum(batch.e_x0), sum(batch.n_x1), sum(batch.e_x1), (a, b, c, d))

    def __add__(self, other: PhaseCounts) -> PhaseCounts:
        return PhaseCounts(
            self.seconds + other.seconds,
            self.n_x0 + other.n_x0,
            self.e_x0 + other.e_x0,
            self.n_x1 + other.n_x1,
            self.e_x1 + other.e_x1,
            tuple(a + b for a, b in zip(self.satellites, other.satellites, strict=True)),  # type: ignore[arg-type]
        )

    def halved(self) -> PhaseCounts:
        """Half as much of everything: for sums that forget."""
        a, b, c, d = (n // 2 for n in self.satellites)
        half = (self.n_x0 // 2, self.e_x0 // 2, self.n_x1 // 2, self.e_x1 // 2)
        return PhaseCounts(self.seconds / 2.0, *half, (a, b, c, d))

    @property
    def total(self) -> int:
        return self.n_x0 + self.n_x1

    @property
    def qber(self) -> float:
        return (self.e_x0 + self.e_x1) / self.total if self.total else 0.5

    @property
    def visibility(self) -> float:
        return 1.0 - 2.0 * self.qber

    @property
    def visibility_sigma(self) -> float:
        """Standard uncertainty of the visibility; that of half right, half wrong where nothing was counted."""
        return 2.0 * math.sqrt(self.binomial() / max(self.total, 1))

    def binomial(self) -> float:
        """q (1 - q) of the error rate q, never as if it were known to be 0 or 1."""
        least = min(2.0 * LEAST_ERRORS / max(self.total, 1), 0.5)
        q = min(max(self.qber, least), 1.0 - least)
        return q * (1.0 - q)

    @property
    def dx0(self) -> int:
        """Clicks of DX0: state X0 leaves by DX1 when right, X1 by DX0."""
        return self.e_x0 + self.n_x1 - self.e_x1


@dataclass(frozen=True)
class PilotTally:
    """Middle clicks in pilot slots: P+ and P- by output."""

    seconds: float
    plus_dx0: int
    plus_dx1: int
    minus_dx0: int
    minus_dx1: int

    @classmethod
    def of(cls, counts: PilotLike) -> PilotTally:
        return cls(counts.seconds, counts.n_plus_dx0, counts.n_plus_dx1, counts.n_minus_dx0, counts.n_minus_dx1)

    @property
    def dx0(self) -> int:
        return self.plus_dx0 + self.minus_dx0

    @property
    def dx1(self) -> int:
        return self.plus_dx1 + self.minus_dx1

    @property
    def total(self) -> int:
        return self.dx0 + self.dx1


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
class Sine:
    """Sine of the phase error (more heater power is positive) and its variance."""

    value: float
    variance: float


@dataclass(frozen=True)
class Estimate:
    """Sine and cosine of the phase error, each with its variance; infinite where nothing is known."""

    sine: float
    sine_variance: float
    cosine: float
    cosine_variance: float

    @property
    def angle(self) -> float:
        """The error on the whole turn, rad."""
        return math.atan2(self.sine, self.cosine)

    @property
    def angle_variance(self) -> float:
        """rad^2; of the contrast on the line through both, so that a lost fringe is not taken for a sharp angle."""
        s, c = self.sine, self.cosine
        r2 = max(s * s + c * c, 0.05)
        return (c * c * self.sine_variance + s * s * self.cosine_variance) / (r2 * r2)

    @property
    def contrast(self) -> float:
        """1 where the fringe is what was calibrated, 0 where there is none."""
        return math.hypot(self.sine, self.cosine)

    @property
    def decided(self) -> bool:
        """The error may be acted upon: small, or on the far side, where either way ends closer, or of known sign."""
        return self.cosine > 0.95 or self.cosine < -0.8 or abs(self.sine) > 2.5 * math.sqrt(self.sine_variance)


def from_states(n: PhaseCounts, model: PhaseModel) -> Estimate:
    """e(X1) - e(X0) = V sin(xi) sin(err); 1 - 2 QBER_X = V cos(xi) cos(err). Raises ValueError without both states."""
    if n.n_x0 <= 0 or n.n_x1 <= 0:
        raise ValueError("an estimate needs counts of both X states")
    slope = model.visibility * math.sin(model.xi_rad)
    e0, e1 = model.errors(n)
    # The variance from both together: from each alone the smaller reading would count as the surer one.
    variance = n.binomial() * (1.0 / n.n_x0 + 1.0 / n.n_x1) / slope**2
    return Estimate((e1 - e0) / slope, variance, *cosine(n, model))


def cosine(n: PhaseCounts, model: PhaseModel, dither_rad: float = 0.0) -> tuple[float, float]:
    """Cosine of the error from the visibility, and its variance."""
    whole = model.visibility * math.cos(model.xi_rad) * math.cos(dither_rad)
    return n.visibility / whole, (n.visibility_sigma / whole) ** 2


def from_dither(plus: PhaseCounts, minus: PhaseCounts, dither_rad: float, model: PhaseModel) -> Estimate:
    """e(+) - e(-) = V cos(xi) sin(dither) sin(err) (reference control B6b). Raises ValueError without both."""
    if plus.total <= 0 or minus.total <= 0:
        raise ValueError("an estimate needs counts of both sides")
    slope = model.visibility * math.cos(model.xi_rad) * math.sin(dither_rad)
    n = plus + minus
    variance = n.binomial() * (1.0 / plus.total + 1.0 / minus.total) / slope**2
    return Estimate((plus.qber - minus.qber) / slope, variance, *cosine(n, model, dither_rad))


def from_pilot(n: PilotTally, model: PhaseModel) -> Sine:
    """Quadrature: P+ and P- differ in both outputs by V sin, with opposite signs (reference control B6a).

    The mean over the outputs knows neither their efficiencies nor unequal pilots. Variance 1/(V^2 N) for equal counts.
    Raises ValueError unless both outputs have counted.
    """
    if n.dx0 <= 0 or n.dx1 <= 0:
        raise ValueError("a pilot needs counts in both outputs")
    first = (n.plus_dx0 - n.minus_dx0) / n.dx0
    second = (n.plus_dx1 - n.minus_dx1) / n.dx1
    variance = (1.0 / n.dx0 + 1.0 / n.dx1) / (2.0 * model.visibility) ** 2
    return Sine((first - second) / (2.0 * model.visibility), variance)


def fuse(parts: Sequence[Sine]) -> Sine:
    """By inverse variance. Raises ValueError for none."""
    if not parts:
        raise ValueError("nothing to fuse")
    weight = sum(1.0 / p.variance for p in parts)
    return Sine(sum(p.value / p.variance for p in parts) / weight, 1.0 / weight)


def silent_output(dx0: int, total: int) -> str:
    """Which output does not click although the other one does; "" when both do, or when too few clicks tell.

    Both states together put half of the light into each output, whatever the phase.
    """
    if total < SILENT_CLICKS:
        return ""
    if dx0 < SILENT_SHARE * total:
        return f"DX0 has {dx0} of {total} X clicks: silent, latched or not biased"
    if total - dx0 < SILENT_SHARE * total:
        return f"DX1 has {total - dx0} of {total} X clicks: silent, latched or not biased"
    return ""


def exchanged(before: PhaseCounts, after: PhaseCounts, efficiency_ratio: float) -> float:
    """How much likelier it is that the outputs were exchanged than that the phase made half a turn: the logarithm of
    the likelihoods' ratio (positive: exchanged). Near 0 the counts do not tell.

    Both turn all bits over. But exchanged cables exchange the satellites, which half a turn leaves alone; and with them
    each state keeps the detector that clicks for it, and so the states' ratio of counts, where after half a turn each
    has the other's, and the ratio changes by the square of the efficiencies'.
    """
    return _by_states(before, after, efficiency_ratio) + _by_satellites(before, after)


def _by_states(before: PhaseCounts, after: PhaseCounts, efficiency_ratio: float) -> float:
    counts = (before.n_x0, before.n_x1, after.n_x0, after.n_x1)
    if min(counts) < 10:
        return 0.0
    change = math.log(after.n_x0 / after.n_x1) - math.log(before.n_x0 / before.n_x1)
    turned = 2.0 * math.log(efficiency_ratio)
    # `change` is 0 for exchanged outputs, `turned` for half a turn.
    variance = sum(1.0 / n for n in counts) + RATIO_SIGMA**2
    return turned * (turned / 2.0 - change) / variance


def _by_satellites(before: PhaseCounts, after: PhaseCounts) -> float:
    whole, seen = sum(before.satellites), sum(after.satellites)
    if min(before.satellites) < 100 or not seen:
        return 0.0
    p = [n / whole for n in before.satellites]
    q = [p[2], p[3], p[0], p[1]]
    told = sum(n * math.log(b / a) for n, a, b in zip(after.satellites, p, q, strict=True))
    # The shares before are known to their own counting noise only.
    return told / (1.0 + seen / whole)
