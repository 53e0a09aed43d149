"""Decoy-state estimators: what the detections of each intensity say about vacuum and single photons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt


@dataclass(frozen=True)
class Decoy:
    """At exactly known intensities `mu`, brightest first, sent with probabilities `p`.

    Methods that begin with `least` and `most` are bounds that hold but for the failure probability whose inverse's
    natural logarithm is `log_inverse_eps`. Counts are per intensity.
    """

    mu: tuple[float, ...]
    p: tuple[float, ...]
    log_inverse_eps: float

    def tau(self, photons: int) -> float:
        """Probability that a pulse holds 0 or 1 photons."""
        return sum(p * exp(-mu) * mu**photons for p, mu in zip(self.p, self.mu, strict=True))

    def spread(self, total: float) -> float:
        """Hoeffding: how far the count of one intensity may be from its mean, of `total` in all."""
        return sqrt(total / 2 * self.log_inverse_eps)

    def low(self, counts: Sequence[int], k: int) -> float:
        return exp(self.mu[k]) / self.p[k] * (counts[k] - self.spread(sum(counts)))

    def high(self, counts: Sequence[int], k: int) -> float:
        return exp(self.mu[k]) / self.p[k] * (counts[k] + self.spread(sum(counts)))

    def least_vacuum(self, n: Sequence[int], bright: int, dark: int) -> float:
        a, b = self.mu[bright], self.mu[dark]
        return max(0.0, self.tau(0) * (a * self.low(n, dark) - b * self.high(n, bright)) / (a - b))

    def most_vacuum(self, n: Sequence[int], m: Sequence[int]) -> float:
        """Half of the vacuum's detections are errors, so the errors bound them (one decoy)."""
        tau0 = self.tau(0)
        each = (
            2 * (tau0 * exp(self.mu[k]) / self.p[k] * (m[k] + self.spread(sum(m))) + self.spread(sum(n)))
            for k in range(2)
        )
        return min(float(sum(n)), *each)

    def least_single_of_two_decoys(self, n: Sequence[int]) -> float:
        a, b, c = self.mu
        vacuum = self.least_vacuum(n, 1, 2) / self.tau(0)
        bracket = self.low(n, 1) - self.high(n, 2) - (b * b - c * c) / (a * a) * (self.high(n, 0) - vacuum)
        return self.tau(1) * a * bracket / (a * (b - c) - b * b + c * c)

    def least_single_of_one_decoy(self, n: Sequence[int], m: Sequence[int]) -> float:
        a, b = self.mu
        vacuum = self.most_vacuum(n, m) / self.tau(0)
        bracket = self.low(n, 1) - (b / a) ** 2 * self.high(n, 0) - (a * a - b * b) / (a * a) * vacuum
        return self.tau(1) * a * bracket / (b * (a - b))

    def most_single_errors(self, m: Sequence[int], bright: int, dark: int) -> float:
        a, b = self.mu[bright], self.mu[dark]
        return max(0.0, self.tau(1) * (self.high(m, bright) - self.low(m, dark)) / (a - b))
