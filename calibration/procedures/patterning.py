"""Patterning: what a symbol's energy depends on the symbol before it, from detections counted in service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.fit import Array
from calibration.names import INTENSITIES
from calibration.plot import Figure, Heatmap
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.record import Record, as_matrix

# Fewer than this behind the smallest of the four numbers say nothing at the 1 % that patterning may be.
LEAST = 10_000
# A driver of this kind has less than 5 %; more is another fault.
LIMIT = 0.05


@dataclass(frozen=True)
class PatternCounts:
    """Accepted detections of one stretch of service: counts[k][j] of intensity k whose slot before had intensity j
    (0 signal, 1 decoy), shape (2, 2); p: probability that a slot has intensity j, shape (2,)."""

    counts: npt.NDArray[np.int64]
    p: tuple[float, float]


class Patterning(Procedure):
    """n(k|j)/(n(k) p_j) - 1 for intensities k after j (reference control B10): what the decoy modulator remembers.

    The counts come from the key engine while keys are made, so that no walk makes this: who has counted stores what
    `from_counts` gives. Nothing is moved and no light is asked for. A record widens the intervals of the mean photon
    number from the next calibration of that on.
    """

    name: ClassVar[str] = "patterning"
    # A ratio of counts rests on no other record: a new operating point of the modulators does not take it out of force,
    # and the mean photon number that is redone with it can widen its intervals.
    needs: ClassVar[tuple[str, ...]] = ()
    valid_s: ClassVar[float] = 7 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.NOTHING
    deferred: ClassVar[bool] = True
    by_service: ClassVar[bool] = True
    cost_s: ClassVar[float] = 0.0
    equation: ClassVar[str] = "p_kj = n(k after j) / (n(k) p_j) - 1"

    async def calibrate(self, context: CalibrationContext) -> Record:
        """Raises CalibrationRefused: without the engine's counts there is nothing to calibrate from."""
        raise CalibrationRefused(
            self.name, "needs detections by intensity and the intensity before, counted in service"
        )

    async def from_counts(self, context: CalibrationContext, seen: PatternCounts) -> Record:
        """The record of one stretch. Raises CalibrationRefused: too few counts, or more than any driver has."""
        ratios, covariance = pattern(seen)
        value = {
            f"p_{k}_{j}": float(ratios[a, b]) for a, k in enumerate(INTENSITIES) for b, j in enumerate(INTENSITIES)
        }
        names = tuple(value)
        sigma = np.sqrt(np.diag(covariance)).reshape(2, 2)
        if np.any(np.abs(ratios) > LIMIT + 5.0 * sigma):
            worst = max(value, key=lambda n: abs(value[n]))
            raise CalibrationRefused(self.name, f"{worst} is {value[worst]:+.1%}; {LIMIT:.0%} is the limit")
        return await self.make_record(
            context, value, {"counts": seen.counts, "p": seen.p}, names=names, covariance=as_matrix(covariance)
        )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        cells = [[100.0 * record.value[f"p_{k}_{j}"] for j in INTENSITIES] for k in INTENSITIES]
        title = "Patterning: intensity of the row after that of the column"
        return [Heatmap(title, INTENSITIES, INTENSITIES, cells, "%")]


def pattern(seen: PatternCounts) -> tuple[Array, Array]:
    """(p_kj, shape (2, 2); covariance over them in row order, (4, 4)), counts of a class being multinomial.

    Raises CalibrationRefused when there are too few.
    """
    n = np.asarray(seen.counts, dtype=np.float64)
    if n.shape != (2, 2) or n.min() < LEAST:
        raise CalibrationRefused("patterning", f"{n.min():.0f} detections in the rarest pair; {LEAST} are needed")
    p = np.asarray(seen.p, dtype=np.float64)
    whole = n.sum(axis=1, keepdims=True)
    share = n / whole
    covariance = np.zeros((4, 4))
    for k in range(2):
        block = (np.diag(share[k]) - np.outer(share[k], share[k])) / whole[k, 0] / np.outer(p, p)
        covariance[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = block
    return np.asarray(share / p - 1.0), covariance


def widest(context: CalibrationContext) -> dict[str, float]:
    """By intensity, how far energies may be from their mean by the symbol before, two standard uncertainties included;
    empty without a record."""
    record = context.store.active("patterning")
    if record is None or context.store.invalid_reason("patterning") is not None:
        return {}
    return {
        k: max(abs(record.value[f"p_{k}_{j}"]) + 2.0 * record.sigma(f"p_{k}_{j}") for j in INTENSITIES)
        for k in INTENSITIES
    }
