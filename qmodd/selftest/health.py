"""Health tests of random bits: NIST SP 800-90B, 4.4.1 and 4.4.2, and counts against the probabilities asked for. Pure.

Both tests of the standard look for a source that has broken, not for one that is slightly off: they follow from the
min-entropy H per sample that the source is credited with, and from alpha, the chance that a sound source fails once.
The standard recommends alpha of 2^-20 to 2^-40. It holds for every place at which a failure may begin: a test of a
million bits fails by chance once in a thousand at 2^-30, which was seen in a sound module, and once in a million at
2^-40, which is used here. A source that is stuck or biased fails either.

- repetition count: a value repeated C = 1 + ceil(-log2(alpha) / H) times on end;
- adaptive proportion: the first value of a window of W samples occurs C = 1 + critbinom(W, 2^-H, 1 - alpha) times in
  it or more (W 1024 for bits, 512 otherwise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ALPHA = 2.0**-40
WINDOW_BITS = 1024
WINDOW_OTHER = 512
Samples = npt.NDArray[np.uint8]


def min_entropy(p_one: float) -> float:
    """Of a bit that is one with probability `p_one`: -log2 of the likelier value. Raises ValueError outside 0 to 1."""
    if not 0.0 < p_one < 1.0:
        raise ValueError(f"a probability of {p_one} is no random bit")
    return -math.log2(max(p_one, 1.0 - p_one))


def repetition_cutoff(h: float, alpha: float = ALPHA) -> int:
    """C of 4.4.1. Raises ValueError for no entropy."""
    if not h > 0.0:
        raise ValueError(f"min-entropy {h} must be positive")
    return 1 + math.ceil(-math.log2(alpha) / h - 1e-12)


def proportion_cutoff(h: float, window: int = WINDOW_BITS, alpha: float = ALPHA) -> int:
    """C of 4.4.2: one more than the smallest count that a binomial variable exceeds with at most `alpha`."""
    p = 2.0**-h
    tail = 0.0
    # P(X > k) grows as k falls; the smallest k for which it is still at most alpha is the critical value.
    for k in range(window, 0, -1):
        tail += math.exp(_log_choose(window, k) + k * math.log(p) + (window - k) * math.log1p(-p))
        if tail > alpha:
            return 1 + k
    return 1


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def longest_run(samples: Samples) -> int:
    """Most samples of one value on end; 0 for none."""
    if not len(samples):
        return 0
    breaks = np.flatnonzero(np.diff(samples)) + 1
    return int(np.diff(np.concatenate(([0], breaks, [len(samples)]))).max())


def highest_proportion(samples: Samples, window: int = WINDOW_BITS) -> int:
    """Over all whole windows: how often the first value of the window occurs in it, at most; 0 without a window."""
    whole = len(samples) // window
    if not whole:
        return 0
    rows = samples[: whole * window].reshape(whole, window)
    return int((rows == rows[:, :1]).sum(axis=1).max())


@dataclass(frozen=True)
class Health:
    """Both tests on one stream: value and cut-off; it fails when it reaches the cut-off."""

    run: int
    run_cutoff: int
    proportion: int
    proportion_cutoff: int

    @property
    def ok(self) -> bool:
        return self.run < self.run_cutoff and self.proportion < self.proportion_cutoff


def health(samples: Samples, h: float, window: int = WINDOW_BITS, alpha: float = ALPHA) -> Health:
    """Both tests of a stream with min-entropy `h` a sample."""
    return Health(
        longest_run(samples),
        repetition_cutoff(h, alpha),
        highest_proportion(samples, window),
        proportion_cutoff(h, window, alpha),
    )


def chi_square(counts: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; cells that cannot occur must be empty, else it is infinite."""
    possible = probabilities > 0.0
    if counts[~possible].any():
        return math.inf, int(possible.sum()) - 1
    expected = probabilities[possible] * counts.sum()
    value = float(((counts[possible] - expected) ** 2 / expected).sum())
    return value, int(possible.sum()) - 1


def chi_square_cutoff(freedom: int, alpha: float = ALPHA) -> float:
    """What a chi-square variable exceeds with probability `alpha`, by bisection of its upper tail."""
    low, high = 0.0, 16.0 * (freedom - 2.0 * math.log(alpha))
    for _ in range(200):
        middle = (low + high) / 2.0
        if chi_square_tail(middle, freedom) > alpha:
            low = middle
        else:
            high = middle
    return high


def chi_square_tail(x: float, freedom: int) -> float:
    """P(X > x). For odd freedom from erfc, for even from the Poisson sum, two degrees at a time."""
    half = x / 2.0
    odd = freedom % 2
    tail = math.erfc(math.sqrt(half)) if odd else 0.0
    a = 0.5 if odd else 0.0
    while a < freedom / 2.0 - 0.25:
        if half > 0.0:
            tail += math.exp(a * math.log(half) - half - math.lgamma(a + 1.0))
        elif a == 0.0:
            tail = 1.0
        a += 1.0
    return min(1.0, tail)


def lag_z(samples: Samples, lag: int = 1) -> float:
    """Autocorrelation of bits at a lag in standard deviations of independent ones; 0 for a constant stream."""
    x = samples.astype(np.float64)
    x -= x.mean()
    power = float(x @ x)
    if power == 0.0 or len(x) <= lag:
        return 0.0
    return float(x[lag:] @ x[:-lag]) / power * math.sqrt(len(x))
