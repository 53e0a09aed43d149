"""The least key length over all intensities that the calibration allows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from qmodd.keys.counts import BlockCounts
from qmodd.keys.proofs.length import KeyLength, key_length
from qmodd.keys.proofs.theorems import THEOREMS, Proof

_GRID = (0.0, 0.5, 1.0)
# Steps of the search from the grid's lowest point, as shares of each interval's width.
_STEPS = (0.25, 0.1, 0.03, 0.01)
_MOST_MOVES = 40
Box = Sequence[tuple[float, float]]


def key_length_interval(
    proof: Proof,
    counts: BlockCounts,
    mu_intervals: Box,
    p_mu: Sequence[float],
    eps_sec: float,
    eps_cor: float,
    leak_bits: int,
) -> KeyLength:
    """The least key length over all intensities inside their calibrated intervals (low, high).

    The minimum is at a corner wherever the bound is monotone; the middles of edges and faces and a search downhill from
    the lowest of all these points find one that is not. Raises ValueError as `key_length` does, and if any intensities
    in the box violate the proof's order.
    """
    if not mu_intervals:
        raise ValueError(f"mu has 0 intensities, {proof} needs {THEOREMS[proof].intensities}")
    if any(not 0 <= low <= high for low, high in mu_intervals):
        raise ValueError(f"mu {tuple(mu_intervals)}: intensity intervals are not ordered: 0 <= low <= high")

    def at(mu: tuple[float, ...]) -> KeyLength:
        return key_length(proof, counts, mu, p_mu, eps_sec, eps_cor, leak_bits)

    axes = [sorted({low + f * (high - low) for f in _GRID}) for low, high in mu_intervals]
    worst = min(map(at, itertools.product(*axes)), key=lambda r: r.paid_bits)
    return _downhill(at, worst, mu_intervals) if worst.length_bits > 0 else worst


def _downhill(at: Callable[[tuple[float, ...]], KeyLength], worst: KeyLength, box: Box) -> KeyLength:
    """Moves along one axis at a time, in ever smaller steps, as long as the length falls."""
    moves = 0
    for step in _STEPS:
        found = True
        while found and moves < _MOST_MOVES:
            found = False
            for mu in _around(worst.mu, box, step):
                tried = at(mu)
                if tried.paid_bits < worst.paid_bits:
                    worst, found, moves = tried, True, moves + 1
    return worst


def _around(mu: tuple[float, ...], box: Box, step: float) -> list[tuple[float, ...]]:
    """The neighbours inside the box, one axis moved."""
    near = []
    for k, (low, high) in enumerate(box):
        for sign in (-1.0, 1.0):
            moved = min(high, max(low, mu[k] + sign * step * (high - low)))
            if moved != mu[k]:
                near.append((*mu[:k], moved, *mu[k + 1 :]))
    return near
