"""Pure numerics of detectors that are blind for a while after each click: corrections, and the time itself from tags.

A detector counts nothing for its dead time t_d, then recovers exponentially with t_r: a click follows another one after
D with probability 1 - exp(-(D - t_d)/t_r) (reference pair A1, A7). Rates are corrected by n = m/(1 - m tau) with
tau = t_d + t_r (reference control B10).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.fit import Array, FitRefused, gauss_newton, judged

# Pairs of clicks are sorted by slots between them, up to LAST; from FIRST_ALIVE on both detectors of a pair are awake.
LAST, FIRST_ALIVE = 40, 10
LEAST_PAIRS = 300.0
STARTS_NS = (np.array([-0.5, 0.0]), np.zeros(2), np.array([0.5, 0.0]), np.array([1.0, 0.0]))
# Pulse and jitter blur the kink, s.
MODEL_S = 1e-10


def true_rate(counted_hz: Array | float, tau_s: Array | float) -> Array:
    """Detections/s without dead time from counts/s. Raises FitRefused where a detector is blind most of the time."""
    blind = np.asarray(counted_hz, dtype=np.float64) * tau_s
    if np.any(blind > 0.5):
        raise FitRefused(f"{float(np.max(counted_hz)):.3g} counts/s: blind {float(np.max(blind)):.0%} of the time")
    return np.asarray(np.asarray(counted_hz) / (1.0 - blind))


def counted_rate(true_hz: Array | float, tau_s: Array | float) -> Array:
    """Counts/s of a detector with dead time: the inverse of `true_rate`."""
    return np.asarray(np.asarray(true_hz) / (1.0 + np.asarray(true_hz) * tau_s))


def live_counts(counts: Array, slots: float, tau_slots: float) -> Array:
    """Counts of pulsed light by bin of the slot, (bins,) in the order of time, as they were without dead time.

    A bin is blind after a click in an earlier bin of its own slot, and in the tau/T - 1/2 slots before it, about.
    """
    share = counts / max(slots, 1.0)
    blind = share.sum() * max(tau_slots - 0.5, 0.0) + np.concatenate([[0.0], np.cumsum(share)[:-1]])
    if np.any(blind > 0.5):
        raise FitRefused(f"a detector is blind {float(blind.max()):.0%} of the time: lower the light")
    return np.asarray(counts / (1.0 - blind))


@dataclass(frozen=True)
class Pairs:
    """Pairs of clicks of one detector by slots between them and bins between their places in the slot.

    counts: (LAST, 2 reach + 1), rows 1 to LAST slots; at_s: time between the two, the same shape; rate_hz: counts/s
    while they were taken, weighted by pairs.
    """

    counts: Array
    at_s: Array
    rate_hz: float

    @property
    def total(self) -> float:
        return float(self.counts.sum())

    def add(self, other: Pairs) -> Pairs:
        """Of another time, also at another rate."""
        both = max(self.total + other.total, 1.0)
        rate = (self.total * self.rate_hz + other.total * other.rate_hz) / both
        return Pairs(self.counts + other.counts, self.at_s, rate)


def pairs_of(t: npt.NDArray[np.int64], period_ps: float, bin_ps: float, reach: int, seconds: float) -> Pairs:
    """From ascending tags of one detector, ps; `reach`: bins that two clicks can be apart beyond whole slots."""
    counts = np.zeros((LAST, 2 * reach + 1))
    longest = (LAST + 0.5) * period_ps
    for step in range(1, len(t)):
        gap = (t[step:] - t[:-step]).astype(np.float64)
        gap = gap[gap < longest]
        if not len(gap):
            break
        slots = np.rint(gap / period_ps)
        bins = np.rint((gap - slots * period_ps) / bin_ps)
        inside = (slots >= 1) & (slots <= LAST) & (np.abs(bins) <= reach)
        np.add.at(counts, (slots[inside].astype(int) - 1, bins[inside].astype(int) + reach), 1.0)
    at = np.arange(1, LAST + 1)[:, None] * period_ps + np.arange(-reach, reach + 1)[None, :] * bin_ps
    return Pairs(counts, np.asarray(at * 1e-12), len(t) / seconds)


@dataclass(frozen=True)
class DeadTime:
    """s; covariance over (dead_s, recovery_s). `alive`: share of the far pairs at `at_s`, and its residual."""

    dead_s: float
    recovery_s: float
    covariance: Array
    at_s: Array
    alive: Array
    residuals: Array
    reduced_chi2: float


def awake(at_s: Array, dead_s: float, recovery_s: float) -> Array:
    """Probability that a detector counts, a time after its last click."""
    return np.asarray(-np.expm1(-np.maximum(at_s - dead_s, 0.0) / max(recovery_s, 1e-12)))


def fit_dead_time(pairs: Pairs, dead_range_s: tuple[float, float], recovery_range_s: tuple[float, float]) -> DeadTime:
    """How soon a second click follows, against far pairs that know nothing of each other any more.

    Raises FitRefused with too few pairs or a dead time out of range.
    """
    far = pairs.counts[FIRST_ALIVE:].mean(axis=0)
    if far.sum() < LEAST_PAIRS:
        raise FitRefused(f"{far.sum():.0f} pairs of clicks a slot of distance; {LEAST_PAIRS:.0f} are needed")
    keep = far > 0.05 * far.max()
    at, seen = pairs.at_s[:FIRST_ALIVE, keep].ravel(), pairs.counts[:FIRST_ALIVE, keep].ravel()
    base = np.tile(far[keep], FIRST_ALIVE)
    noise = base / (LAST - FIRST_ALIVE)
    start, best = np.zeros(2), np.inf
    for dead in np.linspace(*dead_range_s, 41):
        for recovery in np.linspace(*recovery_range_s, 9):
            cost = float(np.sum((seen - base * awake(at, dead, recovery)) ** 2 / (base + noise)))
            if cost < best:
                start, best = np.array([dead, recovery]) * 1e9, cost

    slot_s = float(pairs.at_s[0].mean())

    def model(p: Array) -> Array:
        between = _between(p[0] * 1e-9, p[1] * 1e-9, pairs.rate_hz, slot_s)
        return np.asarray(base * awake(at, p[0] * 1e-9, p[1] * 1e-9) * np.interp(at, *between))

    expected = model(start)
    sigma = np.sqrt(np.maximum(expected, 1.0) + noise * np.square(expected / np.maximum(base, 1e-9)))
    # The awake share has a kink at the dead time, where a descent may stick: several starts, the best end.
    ends = [gauss_newton(model, start + d, seen, sigma, absolute=True) for d in STARTS_NS]
    fit = judged(min(ends, key=lambda f: f.reduced_chi2), "pairs of clicks", bounded=True)
    dead, recovery = (float(v) * 1e-9 for v in fit.parameters[:2])
    for name, value, (low, high) in (("dead time", dead, dead_range_s), ("recovery", recovery, recovery_range_s)):
        if not low <= value <= high:
            raise FitRefused(f"{name} {value * 1e9:.2f} ns is outside {low * 1e9:.0f} to {high * 1e9:.0f} ns")
    safe = np.maximum(base, 1e-9)
    return DeadTime(
        dead,
        recovery,
        fit.covariance[:2, :2] * 1e-18 + MODEL_S**2 * np.eye(2),
        at,
        seen / safe,
        np.asarray(fit.residuals / safe),
        fit.reduced_chi2,
    )


def _between(dead_s: float, recovery_s: float, rate_hz: float, slot_s: float) -> tuple[Array, Array]:
    """(times, factor) by which pairs are more than far ones where both are awake.

    Right after the dead time no third click can have come between and blinded the detector, later one may: the renewal
    density of a detector with this dead time, slot by slot, over what the awake share alone would give.
    """
    alive = awake(slot_s * np.arange(LAST + 1), dead_s, recovery_s)
    p = rate_hz * slot_s / max(1.0 - rate_hz * (dead_s + recovery_s - 0.5 * slot_s), 0.3)
    first = p * alive * np.concatenate([[1.0], np.cumprod(1.0 - p * alive)[:-1]])
    density = np.zeros(LAST + 1)
    for k in range(1, LAST + 1):
        density[k] = first[k] + float(first[1:k] @ density[k - 1 : 0 : -1])
    far = float(density[FIRST_ALIVE:].mean())
    awake_at = alive > 0.02
    times = slot_s * np.arange(LAST + 1)[awake_at]
    return times, np.asarray(density[awake_at] / alive[awake_at] / far)
